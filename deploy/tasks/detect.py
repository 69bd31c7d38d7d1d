"""Boxes around objects: do both see the same, and average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, cast

import numpy as np
from pydantic import Field

from calibrators.samples import Sample
from calibrators.truths import Boxes
from deploy import registry
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import Figure, Predictions, SampleParity, TaskParity
from deploy.detection.average_precision import OVERLAPS, Found, average_precision, found_in
from deploy.detection.boxes import Decoder, Detections, likely, matched, suppressed
from deploy.errors import CalibrationError, RecipeError
from deploy.task import Outputs, TaskResult, Term
from deploy.task_options import Options, checked, jackknifed, truth_of

_SAME = 0.5  # boxes that overlap by this are one
_NAMED = 3


class _Options(Options):
    """decoder: the form of the outputs; what else is given are the decoder's own options.

    min_score: the least score that counts for average precision. seen_score: the least at which an
    application would show a box: those are compared between the two. iou: boxes of a class that
    overlap by more are one; 1 where the model has sorted that out itself. metric: what --max-drop
    limits.
    """

    decoder: str
    min_score: float = Field(default=0.01, ge=0, le=1)
    seen_score: float = Field(default=0.3, ge=0, le=1)
    iou: float = Field(default=0.45, ge=0, le=1)
    metric: Literal["AP50", "mAP"] = "AP50"


@dataclass(frozen=True)
class Detect:
    """Detections out of a decoder, the best of each object kept."""

    decoder: Decoder
    options: _Options

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        own = {key: value for key, value in options.items() if key in _Options.model_fields}
        if "decoder" not in own:
            raise RecipeError(
                "--task detect needs to know the form of the outputs: --task-option decoder=NAME, "
                f"one of {', '.join(registry.names('decoder'))}"
            )
        chosen = checked(_Options, own, "detect")
        registry.path("decoder", chosen.decoder)
        rest = {key: value for key, value in options.items() if key not in own}
        return cls(registry.load("decoder", chosen.decoder).of(outputs, rest), chosen)

    def term(
        self, found: SampleParity, sample: Sample, reference: Outputs, engine: Outputs
    ) -> Term:
        size = _picture_size(sample)
        exact, ours = (self._detected(outputs, size) for outputs in (reference, engine))
        truth = truth_of(sample, Boxes, "detect")
        seen = [d.at(d.scores >= self.options.seen_score) for d in (exact, ours)]
        pairs = matched(seen[0], seen[1], _SAME)
        known = None if truth is None else (found_in(exact, truth), found_in(ours, truth))
        paired = [{i for i, _, _ in pairs}, {j for _, j, _ in pairs}]
        said = [_said(boxes, those) for boxes, those in zip(seen, paired, strict=True)]
        shown = replace(
            found,
            reference_said=said[0],
            engine_said=said[1],
            truth_said="" if truth is None else _boxes(len(truth.classes)),
        )
        counts = (len(seen[0]), len(seen[1]), len(pairs), float(sum(p[2] for p in pairs)))
        return Term(shown, len(pairs) == len(seen[0]) == len(seen[1]), (counts, known))

    def _detected(self, outputs: Outputs, size: tuple[int, int]) -> Detections:
        # an engine gone wrong may compute anything
        with np.errstate(over="ignore", invalid="ignore"):
            everything = likely(self.decoder.decode(outputs, size), self.options.min_score)
        return suppressed(everything, self.options.iou)

    def result(self, terms: Sequence[Term]) -> TaskResult:
        exact, ours, pairs, overlap = (
            sum(column) for column in zip(*(term.values[0] for term in terms), strict=True)
        )
        agreement = 200 * pairs / (exact + ours) if exact + ours else 100.0
        figures = [Figure("boxes seen", exact, ours, "")]
        if pairs:
            figures.append(Figure("mean overlap of those that match", None, 100 * overlap / pairs))
        said = Predictions("detect", "box agreement", agreement, len(terms), tuple(figures))
        known = [term.values[1] for term in terms if term.values[1] is not None]
        return TaskResult(said, self._scored(known) if known else None)

    def _scored(self, known: Sequence[tuple[Found, Found]]) -> TaskParity:
        before, after = _precisions(known)
        metric = self.options.metric
        other = "mAP" if metric == "AP50" else "AP50"
        drop = before[metric] - after[metric]

        levels = 1 if metric == "AP50" else len(OVERLAPS)

        def of_part(part: Sequence[tuple[Found, Found]]) -> float:
            sides = [average_precision([one[n] for one in part], levels) for n in (0, 1)]
            return 100 * float(sides[0].mean() - sides[1].mean())

        return TaskParity(
            len(known),
            before[metric],
            after[metric],
            drop,
            jackknifed(known, of_part),
            "detect",
            metric,
            figures=(Figure(other, before[other], after[other]),),
        )


def _precisions(known: Sequence[tuple[Found, Found]]) -> list[dict[str, float]]:
    """AP50 and mAP in percent, of float32 and of the engine."""
    by_overlap = [average_precision([one[side] for one in known]) for side in (0, 1)]
    return [{"AP50": 100 * float(ap[0]), "mAP": 100 * float(ap.mean())} for ap in by_overlap]


def _picture_size(sample: Sample) -> tuple[int, int]:
    """Height and width of the picture a sample feeds."""
    pictures = [x.shape for x in sample.feeds.values() if x.ndim == 4]
    if len(pictures) != 1:
        raise CalibrationError(
            f"sample {sample.name} feeds {len(pictures)} arrays of rank 4, and --task detect needs "
            "to know the picture; use --task none"
        )
    shape = cast("tuple[int, ...]", pictures[0])
    return (shape[2], shape[3]) if shape[1] in (1, 3) else (shape[1], shape[2])


def _said(seen: Detections, paired: set[int]) -> str:
    """How many boxes, and the surest of those that the other one doesn't have."""
    alone = [i for i in range(len(seen)) if i not in paired]
    named = [f"class {seen.classes[i]} at {seen.scores[i]:.2f}" for i in alone[:_NAMED]]
    more = f" and {len(alone) - _NAMED} more" if len(alone) > _NAMED else ""
    return _boxes(len(seen)) + (f", alone: {', '.join(named)}{more}" if alone else "")


def _boxes(count: int) -> str:
    return "1 box" if count == 1 else f"{count} boxes"
