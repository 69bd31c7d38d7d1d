"""A float build where kernels of ours can be measured: the engine with them or the one without.

As for 8 bits: the faster one that passes the gates, and the plain one where they are equal.
"""

from __future__ import annotations

from deploy.artifacts.precision import PrecisionChoice
from deploy.int8.race import of_plugins, shown_ms
from deploy.int8.stages import Int8Stages
from deploy.int8.variants import float_candidates
from deploy.line import Judged


def ship_float(stages: Int8Stages) -> tuple[Judged, PrecisionChoice | None]:
    """The engine to ship, judged, and what was tried; None where there was nothing to choose."""
    listed = {c.name: c for c in float_candidates(stages.target, stages.precision)}
    found = stages.race(list(listed.values()))
    if len(found.entries) == 1:
        return stages.judged(listed[found.order[0]]), None
    judged: dict[str, Judged] = {}
    for name in found.order:
        judged[name] = stages.judged(listed[name])
        if judged[name].report.passed:
            break
    name = next((n for n, one in judged.items() if one.report.passed), next(iter(listed)))
    reason = f"{found.how}: {shown_ms(found.times[name])}{of_plugins(name, found)}"
    missed = [n for n in judged if n != name]
    if missed:
        reason += f"; {missed[0]} missed a gate"
    choice = PrecisionChoice(
        chosen=name,
        reason=reason,
        measured_here=found.measured_here,
        tried=tuple(found.tried(judged)),
        sensitivity=(),
        kept_float={},
    )
    return judged[name], choice
