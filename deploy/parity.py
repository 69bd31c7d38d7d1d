"""The engine against the untouched model in float32, over every evaluation sample."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.parity import (
    Gate,
    OutputParity,
    ParityReport,
    SampleParity,
    TaskParity,
)
from deploy.batches import batches, feeds_of, fixed_batch, groups, rows
from deploy.errors import CalibrationError
from deploy.metrics import Error, sqnr_db
from deploy.target import Tolerance

_KEPT = 8
_LISTED = 50
_KEPT_BYTES = 32 * 2**20
_JSON_MAX = 1e308  # JSON has no infinity


@dataclass(frozen=True)
class Limits:
    """The thresholds in force, the name of the class scores, and where each threshold is from."""

    tolerance: Tolerance
    scores: str | None = None
    origin: str = "target"
    given: frozenset[str] = frozenset()

    def origin_of(self, name: str) -> str:
        return "recipe" if name in self.given else self.origin


def parity(
    reference: Engine,
    engine: Engine,
    samples: Iterable[Sample],
    limits: Limits,
    *,
    about: str = "",
    evidence: Path | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> ParityReport:
    """Compare two engines on the same samples; the report says which gates hold.

    evidence: an existing folder that gets the first samples, the worst ones, and what both
    computed, as `.npz` keyed by input and output name.
    """
    judge = _Judge(reference, engine, limits)
    for group in groups(samples, max(fixed_batch(reference.inputs), fixed_batch(engine.inputs))):
        judge.group(group)
        advance(len(group))
    if judge.count == 0:
        raise CalibrationError("no samples to judge on; check --eval-data and --eval-samples")
    if evidence is not None:
        _save_evidence(evidence, judge)
    return judge.report(about)


@dataclass(frozen=True, order=True)
class _Kept:
    """A sample with both results; ordered by how well it does, worst last (for a heap)."""

    badness: float
    index: int
    sample: Sample = field(compare=False)
    reference: dict[str, np.ndarray] = field(compare=False)
    engine: dict[str, np.ndarray] = field(compare=False)


class _Judge:
    def __init__(self, reference: Engine, engine: Engine, limits: Limits) -> None:
        self.reference = reference
        self.engine = engine
        self.limits = limits
        self.errors = {spec.name: Error() for spec in reference.outputs}
        self.count = 0
        self.any_label = False
        self.top1 = self.top5 = 0
        self.labelled = self.right_reference = self.right_engine = 0
        self.only_reference = self.only_engine = 0
        self.first: list[_Kept] = []
        self.worst: list[_Kept] = []
        self.worst_listed: list[tuple[float, int, SampleParity]] = []
        self.disagreements: list[SampleParity] = []

    def group(self, samples: list[Sample]) -> None:
        """One batch through both engines, then sample by sample."""
        expected = _run(self.reference, samples)
        got = _run(self.engine, samples)
        for sample, left, right in zip(samples, expected, got, strict=True):
            self.sample(sample, left, right)

    def sample(
        self, sample: Sample, expected: dict[str, np.ndarray], got: dict[str, np.ndarray]
    ) -> None:
        self.any_label |= sample.label is not None
        for name, value in expected.items():
            self.errors[name].add(value, got[name])
        quality = min(sqnr_db(value, got[name]) for name, value in expected.items())
        found = self.classes(sample, expected, got, quality)
        self.keep(_Kept(-quality, self.count, sample, expected, got), found)
        self.count += 1

    def classes(
        self,
        sample: Sample,
        expected: dict[str, np.ndarray],
        got: dict[str, np.ndarray],
        quality: float,
    ) -> SampleParity:
        name = self.limits.scores
        if name is None:
            return SampleParity(sample.name, quality)
        left, right = expected[name].reshape(-1), got[name].reshape(-1)
        if sample.label is not None and sample.label >= left.size:
            raise CalibrationError(
                f"sample {sample.name} has label {sample.label}, but output {name!r} has "
                f"{left.size} classes (0 to {left.size - 1}); check the labels"
            )
        wanted, given = int(left.argmax()), int(right.argmax())
        self.top1 += wanted == given
        self.top5 += wanted in np.argsort(-right, kind="stable")[:5]
        if sample.label is not None:
            self.task(sample.label, wanted, given)
        found = SampleParity(sample.name, quality, wanted, given, sample.label)
        if wanted != given and len(self.disagreements) < _LISTED:
            self.disagreements.append(found)
        return found

    def task(self, label: int, wanted: int, given: int) -> None:
        self.labelled += 1
        self.right_reference += wanted == label
        self.right_engine += given == label
        self.only_reference += wanted == label != given
        self.only_engine += given == label != wanted

    def keep(self, kept: _Kept, found: SampleParity) -> None:
        if len(self.first) < _KEPT:
            self.first.append(kept)
        _push(self.worst, kept)
        _push(self.worst_listed, (kept.badness, kept.index, found))

    def report(self, about: str) -> ParityReport:
        outputs = tuple(self.output(name, error) for name, error in self.errors.items())
        task = self.task_parity()
        worst = tuple(row for _, _, row in sorted(self.worst_listed, key=lambda r: (-r[0], r[1])))
        gates = tuple(_gates(outputs, task, self.limits))
        return ParityReport(
            self.count,
            about,
            outputs,
            task,
            gates,
            worst,
            tuple(self.disagreements),
            self.any_label,
        )

    def output(self, name: str, error: Error) -> OutputParity:
        agreement = self.limits.scores == name
        return OutputParity(
            name,
            error.sqnr_db,
            error.cosine,
            min(error.max_abs, _JSON_MAX),
            min(error.reference_max, _JSON_MAX),
            100 * self.top1 / self.count if agreement else None,
            100 * self.top5 / self.count if agreement else None,
        )

    def task_parity(self) -> TaskParity | None:
        if self.labelled == 0:
            return None
        n, lost, won = self.labelled, self.only_reference, self.only_engine
        # variance of the mean of a paired difference that is +1, 0 or -1
        variance = max(lost + won - (lost - won) ** 2 / n, 0.0) / n**2
        return TaskParity(
            n,
            100 * self.right_reference / n,
            100 * self.right_engine / n,
            100 * (self.right_reference - self.right_engine) / n,
            100 * float(np.sqrt(variance)),
        )


def _push(heap: list, item: object) -> None:  # type: ignore[type-arg]
    """Keep the `_KEPT` items with the largest key."""
    if len(heap) < _KEPT:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def _run(engine: Engine, samples: list[Sample]) -> list[dict[str, np.ndarray]]:
    """Every sample's outputs, run in the batch size the engine fixes."""
    results = []
    for group, size in batches(samples, engine.inputs):
        feeds = feeds_of(group, size)
        # an input that nothing reads may be gone from the engine
        outputs = engine.run({spec.name: feeds[spec.name] for spec in engine.inputs})
        for index in range(len(group)):
            results.append({name: rows(x, index, size) for name, x in outputs.items()})
    return results


def _gates(
    outputs: Sequence[OutputParity], task: TaskParity | None, limits: Limits
) -> Iterable[Gate]:
    wanted = limits.tolerance
    for out in outputs:
        if wanted.min_sqnr_db is not None:
            yield _at_least(f"SQNR of {out.name!r} (dB)", out.sqnr_db, "min_sqnr_db", limits, out)
        if wanted.min_cosine is not None:
            yield _at_least(f"cosine of {out.name!r}", out.cosine, "min_cosine", limits, out)
        if wanted.min_agreement_pct is not None and out.top1_agreement_pct is not None:
            name = f"top-1 agreement of {out.name!r} (%)"
            yield _at_least(name, out.top1_agreement_pct, "min_agreement_pct", limits)
    if wanted.max_drop_pct is None:
        return
    origin = limits.origin_of("max_drop_pct")
    if task is not None:
        passed = task.drop <= wanted.max_drop_pct
        yield Gate("accuracy drop (points)", wanted.max_drop_pct, task.drop, passed, origin)
        return
    agreement = [o.top1_agreement_pct for o in outputs if o.top1_agreement_pct is not None]
    if agreement:
        lost = 100 - min(agreement)
        passed = lost <= wanted.max_drop_pct
        yield Gate("top-1 disagreement (points)", wanted.max_drop_pct, lost, passed, origin)


def _at_least(
    name: str, observed: float, key: str, limits: Limits, out: OutputParity | None = None
) -> Gate:
    """A lower bound; the target's own is met anyway where every error is negligible."""
    limit, floor = getattr(limits.tolerance, key), limits.tolerance.negligible_abs
    if observed >= limit or out is None or out.max_abs > floor or key in limits.given:
        return Gate(name, limit, observed, observed >= limit, limits.origin_of(key))
    note = f"no error is above {floor:g}, which counts as rounding"
    return Gate(name, limit, observed, True, limits.origin_of(key), note)


def _save_evidence(folder: Path, judge: _Judge) -> None:
    _save_kept(folder, judge.first)
    worst = folder / "worst"
    worst.mkdir(exist_ok=True)
    _save_kept(worst, sorted(judge.worst, key=lambda k: (-k.badness, k.index)))


def _save_kept(folder: Path, kept: Sequence[_Kept]) -> None:
    """`samples.npz`, `reference.npz`, `engine.npz`, row by row the same samples.

    Fewer where they are large, and of dynamic shapes those like the first.
    """
    kept = [k for k in kept if _shapes(k) == _shapes(kept[0])]
    size = sum(x.nbytes for x in (*kept[0].sample.feeds.values(), *kept[0].reference.values()))
    kept = kept[: max(1, _KEPT_BYTES // max(size, 1))]
    np.savez(folder / "samples.npz", **_stacked([k.sample.feeds for k in kept]))  # type: ignore[arg-type]
    np.savez(folder / "reference.npz", **_stacked([k.reference for k in kept]))  # type: ignore[arg-type]
    np.savez(folder / "engine.npz", **_stacked([k.engine for k in kept]))  # type: ignore[arg-type]


def _stacked(rows_: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Arrays with the samples along the first axis."""
    return {
        name: (np.concatenate if first.shape[:1] == (1,) else np.stack)(
            [row[name] for row in rows_]
        )
        for name, first in rows_[0].items()
    }


def _shapes(kept: _Kept) -> list[tuple[int, ...]]:
    return [x.shape for x in (*kept.sample.feeds.values(), *kept.reference.values())]
