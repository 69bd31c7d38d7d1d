"""INT8 for one build: the fastest engine that passes the gates, and why it is that one.

Where INT8 isn't faster than the best float engine of this machine, the float one is shipped and
the reason says so. Where no candidate passes, the noisiest layers go back to float, as few as will
do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from deploy.artifacts.model import Model
from deploy.artifacts.precision import PrecisionChoice
from deploy.artifacts.ranges import Ranges
from deploy.fallback import noisiest, smallest_passing
from deploy.int8_stages import Int8Stages
from deploy.line import Judged
from deploy.placement import NOTHING, Exclude
from deploy.race import Race
from deploy.variants import Candidate, candidates

# candidates that are judged before layers are reverted one by one
_MOST_TRIES = 3
_MOST_REVERSIONS = 10


@dataclass(frozen=True)
class Shipped:
    """What one INT8 build comes to; `graphs` holds "quantized" unless a float engine won."""

    judged: Judged
    graphs: dict[str, Model]
    ranges: Ranges
    choice: PrecisionChoice


class Int8:
    """One job's way to the engine it ships."""

    def __init__(self, stages: Int8Stages) -> None:
        self.stages = stages
        self.recipe = stages.recipe

    def ship(self) -> Shipped:
        """The engine to ship, judged; its report says whether the gates hold."""
        keep = noisiest(self.stages.noise) if self.recipe.effort == "best" else NOTHING
        listed = {c.name: c for c in candidates(self.stages.target, self.recipe, keep)}
        found = self.stages.race(list(listed.values()))
        judged: dict[str, Judged] = {}
        for name in found.order[:_MOST_TRIES]:
            judged[name] = self.stages.judged(listed[name])
            if judged[name].report.passed:
                return self._shipped(name, found, judged)
        first = next((listed[n] for n in judged if listed[n].precision == "int8"), None)
        if first is None or self.recipe.effort == "fast" or not self.stages.calibrated:
            return self._shipped(next(iter(judged)), found, judged)
        listed = {c.name: c for c in listed.values() if c.precision != "int8"}
        tried = self._reverted(first, judged)
        if not any(judged[c.name].report.passed for c in tried):
            name = next((n for n, c in listed.items() if self._passes(c, judged)), first.name)
            return self._shipped(name, found, judged)
        # what the gate costs in time may be all that INT8 gained
        listed = {c.name: c for c in tried} | listed
        last = self.stages.race(list(listed.values()))
        order = (*last.order, *listed)
        name = next(n for n in order if self._passes(listed[n], judged))
        return self._shipped(name, found.also(last), judged)

    def _passes(self, candidate: Candidate, judged: dict[str, Judged]) -> bool:
        if candidate.name not in judged:
            judged[candidate.name] = self.stages.judged(candidate)
        return judged[candidate.name].report.passed

    def _reverted(self, first: Candidate, judged: dict[str, Judged]) -> list[Candidate]:
        """All that were tried on the way to the fewest layers back in float, the fewest first of
        those that pass."""
        tried: list[Candidate] = []

        def passes(keep: Exclude) -> bool:
            count = len(keep.layers)
            tried.append(
                replace(
                    first,
                    name=f"{first.name}, {count} layers back in float",
                    description=f"{first.description}; the {count} noisiest layers back in float",
                    exclude=first.exclude.also(keep),
                )
            )
            return self._passes(tried[-1], judged)

        built = judged[first.name].built.graph
        already = {d.subject for d in built.decisions if d.rule == "exclude"}
        smallest_passing(self.stages.noise, passes, already=already, most=_MOST_REVERSIONS)
        return sorted(tried, key=lambda c: len(c.exclude.layers))

    def _shipped(self, name: str, found: Race, judged: dict[str, Judged]) -> Shipped:
        built = judged[name].built
        graphs = {}
        if self.stages.equalized is not self.stages.fused:
            graphs["equalized"] = self.stages.equalized
        if built.precision == "int8":
            graphs["quantized"] = built.graph
        floats = [d for d in built.graph.decisions if d.rule == "exclude"]
        choice = PrecisionChoice(
            chosen=name,
            reason=_reason(name, found, judged),
            measured_here=found.measured_here,
            tried=tuple(found.tried(judged)),
            sensitivity=self.stages.known_noise,
            kept_float={d.subject: d.reason for d in floats},
        )
        return Shipped(judged[name], graphs, self.stages.ranges, choice)


def _reason(name: str, found: Race, judged: dict[str, Judged]) -> str:
    """Why this engine is the one, in a sentence."""
    if not judged[name].report.passed:
        return "no candidate passed the gates; this is the first that was tried"
    how = "measured on this machine" if found.measured_here else "predicted from the roofline"
    others = [n for n in found.times if n != name]
    ms = found.times.get(name)
    if judged[name].built.precision != "int8":
        tried = [other.report.passed for other in judged.values() if _is_int8(other)]
        if tried and not any(tried):
            return f"no INT8 engine passed the gates, {name} does"
        return f"no INT8 engine that passes is faster than {name} ({how}); so {name} is shipped"
    if "back in float" in name:
        return "the fewest layers back in float with which the gates hold"
    if ms is None or not others:
        return "the target's own placement; nothing else was tried"
    best = min(others, key=lambda n: found.times[n])
    ratio = found.times[best] / ms
    tie = "" if ratio >= 1 else ", within the noise, and it comes first in the target's list"
    return f"{how}: {ms:.3f} ms, {ratio:.2f}x the speed of {best}{tie}"


def _is_int8(judged: Judged) -> bool:
    return judged.built.precision == "int8"
