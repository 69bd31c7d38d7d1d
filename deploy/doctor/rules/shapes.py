"""Dimensions that the model leaves free."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.artifacts.model import TensorSpec
from deploy.doctor.case import Case, Finding, some


def shapes(case: Case) -> list[Finding]:
    """What a free batch becomes, and what other free dimensions ask for."""
    found = []
    inputs = case.loaded.inputs
    batch = case.target.engine.batch
    if any(spec.shape and spec.shape[0] is None for spec in inputs) and batch != "dynamic":
        text = f"the batch is free; the engine is built for {batch} (--batch changes that)"
        found.append(Finding("shapes", "note", text))
    free = [spec for spec in inputs if None in spec.shape[1:]]
    return found + _free(case, free) if free else found


def _free(case: Case, free: Sequence[TensorSpec]) -> list[Finding]:
    dla = case.nvidia is not None and case.nvidia.use_dla
    flags = [f"--shape {s.name}={','.join(str(d or '?') for d in (1, *s.shape[1:]))}" for s in free]
    have = f"{some(str(spec) for spec in free)}: free dimensions besides the batch"
    fix = f"fix them with {' '.join(flags)}, numbers in place of each ?"
    names = tuple(spec.name for spec in free)
    if dla or case.target.engine.device == "NPU":
        what = "a DLA" if dla else "an NPU"
        return [Finding("shapes", "stop", f"{have}, and {what} takes none; {fix}", names)]
    if case.nvidia is not None:
        text = (
            f"{have}; the build wants a word on them: {' '.join(flags)} keeps them free (the "
            "engine gets an optimization profile around the sizes in your samples), numbers in "
            "place of each ? fix them"
        )
        return [Finding("shapes", "warning", text, names)]
    return [Finding("shapes", "note", f"{have}; {fix}, it is faster", names)]
