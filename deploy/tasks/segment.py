"""A class for every pixel: mean intersection over union, between the two and with label maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from calibrators.samples import Sample
from calibrators.truths import LabelMap
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import Figure, Predictions, SampleParity, TaskParity
from deploy.errors import CalibrationError
from deploy.task import Outputs, TaskResult, Term
from deploy.task_options import Options, checked, jackknifed, output_named, truth_of

# [3, classes] counts of pixels: in both, in the first, in the second
Counts = np.ndarray


class _Options(Options):
    """output: float[N, C, H, W] with a score per class, or integers [N, H, W] or [N, 1, H, W].

    axis: where an output of scores has its classes, 1 or 3. threshold: an output with one score
    per pixel says "class 1" above it. ignore: the class of pixels in label maps that don't count.
    """

    output: str | None = None
    axis: int = 1
    threshold: float = 0.5
    ignore: int = 255


@dataclass(frozen=True)
class Segment:
    """The class with the largest score at every pixel of the output."""

    output: str
    options: _Options

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "segment")
        return cls(output_named(outputs, chosen.output, _is_map, "a map of classes"), chosen)

    def term(
        self, found: SampleParity, sample: Sample, reference: Outputs, engine: Outputs
    ) -> Term:
        exact, ours = self._map(reference[self.output]), self._map(engine[self.output])
        truth = truth_of(sample, LabelMap, "segment")
        between = _counts(exact, ours)
        same = float(np.mean(exact == ours))
        known = None
        if truth is not None:
            wanted = _sized(truth.classes, exact.shape)
            counted = wanted != self.options.ignore
            self._check(sample, wanted[counted])
            known = tuple(_counts(wanted[counted], x[counted]) for x in (exact, ours))
        shown = replace(found, engine_said=f"{100 * same:.1f} % of the pixels as in float32")
        return Term(shown, same == 1.0, (between, known, same))

    def _map(self, output: np.ndarray) -> np.ndarray:
        """int64[H, W] of one sample."""
        x = output[0]
        if x.ndim == 3 and x.dtype.kind == "f":
            scores = np.moveaxis(x, self.options.axis - 1, 0)
            if len(scores) == 1:
                return np.asarray(scores[0] > self.options.threshold, np.int64)
            return np.asarray(scores.argmax(axis=0), np.int64)
        classes = np.asarray(x.reshape(x.shape[-2:]), np.int64)
        if classes.size and classes.min() < 0:
            raise CalibrationError(
                f"output {self.output!r} holds class {int(classes.min())}; a map of classes counts "
                "from 0 up: --task-option output=NAME says which output is meant"
            )
        return classes

    def _check(self, sample: Sample, wanted: np.ndarray) -> None:
        if wanted.size and wanted.min() < 0:
            raise CalibrationError(
                f"sample {sample.name} has class {int(wanted.min())} in its label map; classes are "
                "from 0 up, and --task-option ignore=N names the one that doesn't count"
            )

    def result(self, terms: Sequence[Term]) -> TaskResult:
        between = _mean_iou([term.values[0] for term in terms])
        same = 100 * sum(term.values[2] for term in terms) / len(terms)
        figures = (Figure("pixels of the same class", None, same),)
        said = Predictions("segment", "mIoU agreement", between, len(terms), figures)
        known = [term.values[1] for term in terms if term.values[1] is not None]
        return TaskResult(said, _scored(known) if known else None)


def _scored(known: Sequence[tuple[Counts, Counts]]) -> TaskParity:
    def mean_iou(part: Sequence[tuple[Counts, Counts]]) -> list[float]:
        return [_mean_iou([one[side] for one in part]) for side in (0, 1)]

    def drop(part: Sequence[tuple[Counts, Counts]]) -> float:
        before, after = mean_iou(part)
        return before - after

    before, after = mean_iou(known)
    right = [_pixel_accuracy([one[side] for one in known]) for side in (0, 1)]
    figures = (Figure("pixels right", right[0], right[1]),)
    error = jackknifed(known, drop)
    return TaskParity(
        len(known), before, after, before - after, error, "segment", "mIoU", figures=figures
    )


def _is_map(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 or (len(spec.shape) == 3 and spec.dtype.kind in "iu")


def _counts(a: np.ndarray, b: np.ndarray) -> Counts:
    classes = int(max(a.max(initial=0), b.max(initial=0))) + 1
    parts = (a[a == b], a.ravel(), b.ravel())
    return np.stack([np.bincount(part, minlength=classes) for part in parts])


def _total(counts: Sequence[Counts]) -> Counts:
    total = np.zeros((3, max(each.shape[1] for each in counts)), np.int64)
    for each in counts:
        total[:, : each.shape[1]] += each
    return total


def _mean_iou(counts: Sequence[Counts]) -> float:
    """In percent, over the classes that occur in either, all samples together."""
    both, first, second = _total(counts)
    union = first + second - both
    occurs = union > 0
    return 100 * float(np.mean(both[occurs] / union[occurs])) if occurs.any() else 100.0


def _pixel_accuracy(counts: Sequence[Counts]) -> float:
    both, first, _ = _total(counts).sum(axis=1)
    return 100 * float(both / first) if first else 100.0


def _sized(classes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The label map at the output's size: at every pixel the class nearest to its middle."""
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * have / n, have - 1).astype(np.int64)
        for n, have in zip(shape, classes.shape, strict=True)
    )
    return classes[np.ix_(rows, columns)]
