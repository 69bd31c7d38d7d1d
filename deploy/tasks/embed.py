"""A vector per sample: the same nearest neighbours, and Spearman's correlation with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from calibrators.samples import Sample
from calibrators.truths import PairScore
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import Figure, Predictions, SampleParity, TaskParity
from deploy.task import Outputs, TaskResult, Term
from deploy.task_options import Options, checked, jackknifed, output_named, truth_of

# neighbours as near as the nearest, to rounding, are as good: samples may be there twice
_EQUAL = 1e-6
_BLOCK = 256

# similarity in float32, in the engine, and people's score
Row = tuple[float, float, float]


class _Options(Options):
    """output: float[N, D]."""

    output: str | None = None


@dataclass(frozen=True)
class Embed:
    """Vectors compared by cosine."""

    output: str

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        chosen = checked(_Options, options, "embed")
        return cls(output_named(outputs, chosen.output, _is_vector, "a vector per sample"))

    def term(
        self, found: SampleParity, sample: Sample, reference: Outputs, engine: Outputs
    ) -> Term:
        exact, ours = _unit(reference[self.output]), _unit(engine[self.output])
        truth = truth_of(sample, PairScore, "embed")
        cosine = float(exact @ ours) if len(exact) == len(ours) else 0.0
        shown = replace(found, engine_said=f"cosine {cosine:.4f}")
        pair = None if truth is None else (truth.pair, truth.score)
        # who agrees shows only when all are there
        return Term(shown, True, (exact, ours, cosine, pair))

    def result(self, terms: Sequence[Term]) -> TaskResult:
        exact, ours = (np.stack([term.values[side] for term in terms]) for side in (0, 1))
        agreement = 100 * _same_neighbour(exact, ours)
        cosines = [term.values[2] for term in terms]
        figures = (
            Figure("mean cosine", None, float(np.mean(cosines)), ""),
            Figure("least cosine", None, float(np.min(cosines)), ""),
        )
        said = Predictions("embed", "nearest-neighbour agreement", agreement, len(terms), figures)
        rows = _pairs(terms)
        return TaskResult(said, _scored(rows) if len(rows) > 1 else None)


def _scored(rows: Sequence[Row]) -> TaskParity:
    before, after = _correlations(rows)
    error = jackknifed(rows, lambda part: float(np.subtract(*_correlations(part))))
    metric = "100 x Spearman correlation"
    return TaskParity(
        len(rows), before, after, before - after, error, "embed", metric, unit="", counted="pair"
    )


def _correlations(rows: Sequence[Row]) -> tuple[float, float]:
    """Times 100, of float32 and of the engine."""
    exact, ours, people = (np.array(column) for column in zip(*rows, strict=True))
    return 100 * spearman(exact, people), 100 * spearman(ours, people)


def _pairs(terms: Sequence[Term]) -> list[Row]:
    """One row per pair whose two samples are there, in the order of the first ones."""
    halves: dict[str, list[Any]] = {}
    for term in terms:
        if term.values[3] is not None:
            halves.setdefault(term.values[3][0], []).append(term.values)
    return [
        (float(a[0] @ b[0]), float(a[1] @ b[1]), a[3][1])
        for a, b in (found for found in halves.values() if len(found) == 2)
    ]


def _is_vector(spec: TensorSpec) -> bool:
    return len(spec.shape) == 2 and spec.dtype.kind == "f"


def _unit(output: np.ndarray) -> np.ndarray:
    """float64[D] of length 1; zeros where it has no direction: it is 0, or holds no numbers."""
    x = output.astype(np.float64).ravel()
    length = float(np.linalg.norm(x))
    return x / length if 0 < length < np.inf else np.zeros_like(x)


def _same_neighbour(exact: np.ndarray, ours: np.ndarray) -> float:
    """The part of the samples whose nearest other sample is one of float32's nearest."""
    count = len(exact)
    if count < 2:
        return 1.0
    same = 0
    for start in range(0, count, _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, count))
        near, near_ours = exact[rows] @ exact.T, ours[rows] @ ours.T
        for x in (near, near_ours):
            x[np.arange(len(rows)), rows] = -np.inf
        chosen = near[np.arange(len(rows)), near_ours.argmax(axis=1)]
        same += int(np.sum(chosen >= near.max(axis=1) - _EQUAL))
    return same / count


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where one of them doesn't vary."""
    x, y = _ranks(a), _ranks(b)
    x, y = x - x.mean(), y - y.mean()
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else 0.0


def _ranks(x: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[place])
