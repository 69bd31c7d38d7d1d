"""The engine against the untouched model in float32, over every evaluation sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from deploy.compared import KEPT, Compared, Evidence, Outputs, add, compared, push
from deploy.errors import CalibrationError
from deploy.metrics import Error
from deploy.target import Tolerance

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
    everyone = compared(reference, engine, samples, limits.scores)
    return judged(_counted(everyone, advance), limits, about, evidence)


def judged(
    everyone: Iterable[Compared], limits: Limits, about: str, evidence: Path | None
) -> ParityReport:
    """The report on compared samples, in their order; CalibrationError when there are none."""
    judge = _Judge(limits)
    for one in everyone:
        judge.add(one)
    if judge.count == 0:
        raise CalibrationError("no samples to judge on; check --eval-data and --eval-samples")
    if evidence is not None:
        _save_evidence(evidence, judge)
    return judge.report(about)


def _counted(everyone: Iterable[Compared], advance: Callable[[int], None]) -> Iterator[Compared]:
    for one in everyone:
        yield one
        advance(1)


class _Judge:
    """Sums in the order of the samples, and the ones that stand out."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.errors: dict[str, Error] = {}
        self.count = 0
        self.any_label = False
        self.top1 = self.top5 = 0
        self.labelled = self.right_reference = self.right_engine = 0
        self.only_reference = self.only_engine = 0
        self.first: list[Evidence] = []
        # least bad first: how bad, which sample, and the sample
        self.worst: list[tuple[float, int, Compared]] = []
        self.disagreements: list[SampleParity] = []

    def add(self, one: Compared) -> None:
        """The next sample."""
        self.any_label |= one.labelled
        for name, error in one.errors.items():
            add(self.errors.setdefault(name, Error()), error)
        if self.limits.scores is not None:
            self.classes(one)
        if len(self.first) < KEPT and one.evidence is not None:
            self.first.append(one.evidence)
        push(self.worst, (one.badness, self.count, one))
        self.count += 1

    def classes(self, one: Compared) -> None:
        found = one.found
        agree = found.reference_class == found.engine_class
        self.top1 += agree
        self.top5 += one.in_top5
        if found.label is not None:
            self.task(found.label, found.reference_class, found.engine_class)
        if not agree and len(self.disagreements) < _LISTED:
            self.disagreements.append(found)

    def task(self, label: int, wanted: int | None, given: int | None) -> None:
        self.labelled += 1
        self.right_reference += wanted == label
        self.right_engine += given == label
        self.only_reference += wanted == label != given
        self.only_engine += given == label != wanted

    def worst_first(self) -> list[Compared]:
        return [one for _, _, one in sorted(self.worst, key=lambda row: (-row[0], row[1]))]

    def report(self, about: str) -> ParityReport:
        outputs = tuple(self.output(name, error) for name, error in self.errors.items())
        task = self.task_parity()
        worst = tuple(one.found for one in self.worst_first())
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
    _save_kept(worst, [one.evidence for one in judge.worst_first() if one.evidence is not None])


def _save_kept(folder: Path, kept: Sequence[Evidence]) -> None:
    """`samples.npz`, `reference.npz`, `engine.npz`, row by row the same samples.

    Fewer where they are large, and of dynamic shapes those like the first.
    """
    kept = [k for k in kept if _shapes(k) == _shapes(kept[0])]
    size = sum(x.nbytes for x in (*kept[0].sample.feeds.values(), *kept[0].reference.values()))
    kept = kept[: max(1, _KEPT_BYTES // max(size, 1))]
    np.savez(folder / "samples.npz", **_stacked([k.sample.feeds for k in kept]))  # type: ignore[arg-type]
    np.savez(folder / "reference.npz", **_stacked([k.reference for k in kept]))  # type: ignore[arg-type]
    np.savez(folder / "engine.npz", **_stacked([k.engine for k in kept]))  # type: ignore[arg-type]


def _stacked(rows: Sequence[Outputs]) -> dict[str, np.ndarray]:
    """Arrays with the samples along the first axis."""
    return {
        name: (np.concatenate if first.shape[:1] == (1,) else np.stack)([row[name] for row in rows])
        for name, first in rows[0].items()
    }


def _shapes(kept: Evidence) -> list[tuple[int, ...]]:
    return [x.shape for x in (*kept.sample.feeds.values(), *kept.reference.values())]
