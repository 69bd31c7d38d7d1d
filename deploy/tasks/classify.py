"""One class per sample: top-1 and top-5 agreement with float32, and accuracy with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import Figure, Predictions, SampleParity, TaskParity
from deploy.errors import CalibrationError
from deploy.task import Outputs, TaskResult, Term
from deploy.task_options import Options, checked

_FIVE = 5


class _Options(Options):
    """output: the one with a score per class."""

    output: str


@dataclass(frozen=True)
class Classify:
    """The class with the largest score of an output, or the one whose number it gives out."""

    scores: str

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        return cls(checked(_Options, options, "classify").output)

    def term(
        self, found: SampleParity, sample: Sample, reference: Outputs, engine: Outputs
    ) -> Term:
        left, right = (x[self.scores].reshape(-1) for x in (reference, engine))
        if left.dtype.kind in "iu" and left.size == 1:
            wanted, given = int(left[0]), int(right[0])
            seen = replace(found, reference_class=wanted, engine_class=given, label=sample.label)
            return Term(seen, wanted == given, None)
        if sample.label is not None and sample.label >= left.size:
            raise CalibrationError(
                f"sample {sample.name} has label {sample.label}, but output {self.scores!r} has "
                f"{left.size} classes (0 to {left.size - 1}); check the labels"
            )
        wanted, given = int(left.argmax()), int(right.argmax())
        in_top5 = bool(wanted in np.argsort(-right, kind="stable")[:_FIVE])
        seen = replace(found, reference_class=wanted, engine_class=given, label=sample.label)
        return Term(seen, wanted == given, in_top5)

    def result(self, terms: Sequence[Term]) -> TaskResult:
        count = len(terms)
        top1 = 100 * sum(term.agrees for term in terms) / count
        fives = [term.values for term in terms if term.values is not None]
        # of a class's number there are no five best
        figures = (Figure("top-5 agreement", None, 100 * sum(fives) / count),) if fives else ()
        said = Predictions("classify", "top-1 agreement", top1, count, figures)
        return TaskResult(said, _accuracy([term.found for term in terms]))


def _accuracy(found: Sequence[SampleParity]) -> TaskParity | None:
    labelled = [one for one in found if one.label is not None]
    if not labelled:
        return None
    right_before = [one.reference_class == one.label for one in labelled]
    right_after = [one.engine_class == one.label for one in labelled]
    n = len(labelled)
    lost = sum(a and not b for a, b in zip(right_before, right_after, strict=True))
    won = sum(b and not a for a, b in zip(right_before, right_after, strict=True))
    # variance of the mean of a paired difference that is +1, 0 or -1
    variance = max(lost + won - (lost - won) ** 2 / n, 0.0) / n**2
    return TaskParity(
        n,
        100 * sum(right_before) / n,
        100 * sum(right_after) / n,
        100 * (lost - won) / n,
        100 * float(np.sqrt(variance)),
    )
