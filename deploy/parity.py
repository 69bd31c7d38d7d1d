"""The engine against the untouched model in float32, over every evaluation sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.parity import Gate, OutputParity, ParityReport
from deploy.compared import KEPT, Compared, Evidence, add, compared, push
from deploy.errors import CalibrationError
from deploy.metrics import Error
from deploy.recipe import OutputGate
from deploy.target import Tolerance
from deploy.task import Outputs, Task, TaskResult, Term
from deploy.tasks.classify import Classify

_LISTED = 50
_KEPT_BYTES = 32 * 2**20
_JSON_MAX = 1e308  # JSON has no infinity


@dataclass(frozen=True)
class Limits:
    """The thresholds in force, where each is from, and the task that predictions are judged by.

    scores: a classifier's class scores: short for the task `Classify(scores)`. outputs: the
    recipe's own thresholds of some outputs, which hold in place of the tolerance's.
    """

    tolerance: Tolerance
    scores: str | None = None
    origin: str = "target"
    given: frozenset[str] = frozenset()
    other_task: Task | None = None
    outputs: Mapping[str, OutputGate] = field(default_factory=dict)

    @property
    def task(self) -> Task | None:
        if self.scores is None:
            return self.other_task
        return Classify(self.scores)

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
    everyone = compared(reference, engine, samples, limits.task)
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
        self.task = limits.task
        self.errors: dict[str, Error] = {}
        self.count = 0
        self.any_label = False
        self.terms: list[Term] = []
        self.first: list[Evidence] = []
        # least bad first: how bad, which sample, and the sample
        self.worst: list[tuple[float, int, Compared]] = []

    def add(self, one: Compared) -> None:
        """The next sample."""
        self.any_label |= one.labelled
        for name, error in one.errors.items():
            add(self.errors.setdefault(name, Error()), error)
        if one.term is not None:
            self.terms.append(one.term)
        if len(self.first) < KEPT and one.evidence is not None:
            self.first.append(one.evidence)
        push(self.worst, (one.badness, self.count, one))
        self.count += 1

    def worst_first(self) -> list[Compared]:
        return [one for _, _, one in sorted(self.worst, key=lambda row: (-row[0], row[1]))]

    def report(self, about: str) -> ParityReport:
        result = self.task.result(self.terms) if self.task is not None else None
        outputs = tuple(self.output(name, error, result) for name, error in self.errors.items())
        differing = (term.found for term in self.terms if not term.agrees)
        return ParityReport(
            self.count,
            about,
            outputs,
            result.scored if result else None,
            tuple(_gates(outputs, result, self.limits)),
            tuple(one.found for one in self.worst_first()),
            tuple(islice(differing, _LISTED)),
            self.any_label,
            result.predictions if result else None,
        )

    def output(self, name: str, error: Error, result: TaskResult | None) -> OutputParity:
        scores = result.predictions if result and self.limits.scores == name else None
        return OutputParity(
            name,
            error.sqnr_db,
            error.cosine,
            min(error.max_abs, _JSON_MAX),
            min(error.reference_max, _JSON_MAX),
            scores.agreement_pct if scores else None,
            scores.figures[0].engine if scores and scores.figures else None,
        )


def _gates(
    outputs: Sequence[OutputParity], result: TaskResult | None, limits: Limits
) -> Iterable[Gate]:
    wanted = limits.tolerance
    for out in outputs:
        for key, what, observed in (
            ("min_sqnr_db", f"SQNR of {out.name!r} (dB)", out.sqnr_db),
            ("min_cosine", f"cosine of {out.name!r}", out.cosine),
        ):
            own = getattr(limits.outputs.get(out.name), key, None)
            if own is not None:
                yield Gate(what, own, observed, observed >= own, "recipe")
            elif getattr(wanted, key) is not None:
                yield _at_least(what, observed, key, limits, out)
        if wanted.min_agreement_pct is not None and out.top1_agreement_pct is not None:
            name = f"top-1 agreement of {out.name!r} (%)"
            yield _at_least(name, out.top1_agreement_pct, "min_agreement_pct", limits)
    if wanted.max_drop_pct is None or result is None:
        return
    if result.scored is not None:
        name, lost = result.scored.gate, result.scored.drop
    else:
        name, lost = result.predictions.gate, 100 - result.predictions.agreement_pct
    passed = lost <= wanted.max_drop_pct
    yield Gate(name, wanted.max_drop_pct, lost, passed, limits.origin_of("max_drop_pct"))


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
