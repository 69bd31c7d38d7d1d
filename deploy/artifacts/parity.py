"""What parity found: figures per output, the task's result, and the gates they met or missed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.errors import BundleError
from deploy.files import json_bytes, write_aside


@dataclass(frozen=True)
class OutputParity:
    """One output against float32 over all samples; agreement only for a classifier's scores.

    top5_agreement_pct: how often the reference's class is among the engine's five best.
    """

    name: str
    sqnr_db: float
    cosine: float
    max_abs: float
    reference_max: float
    top1_agreement_pct: float | None = None
    top5_agreement_pct: float | None = None


@dataclass(frozen=True)
class Figure:
    """One more figure of a task: of float32 where that has one of its own, and of the engine."""

    name: str
    reference: float | None
    engine: float
    unit: str = "%"

    def line(self) -> str:
        """In words, `exact lines 73.39 % -> 72.58 %`."""
        values = [v for v in (self.reference, self.engine) if v is not None]
        digits = 2 if self.unit else 4
        shown = (f"{v:,}" if isinstance(v, int) else f"{v:.{digits}f}" for v in values)
        return f"{self.name} {' -> '.join(f'{v} {self.unit}'.rstrip() for v in shown)}"


@dataclass(frozen=True)
class TaskParity:
    """The task's metric of both on labelled samples, in percent; drop in points, a loss above 0.

    drop_error: standard error of the drop: the next test set of this size would move it by about
    that much. For classes from the samples on which exactly one is right (McNemar 1947), else by
    the jackknife. rises: the metric is an error rate, so a loss is a rise. unit: "" where the
    metric is no percentage, as a correlation times 100. counted: what `samples` counts.
    """

    samples: int
    reference_pct: float
    engine_pct: float
    drop: float
    drop_error: float
    kind: str = "classify"
    metric: str = "top-1 accuracy"
    rises: bool = False
    unit: str = "%"
    counted: str = "sample"
    figures: tuple[Figure, ...] = ()

    @property
    def gate(self) -> str:
        """What --max-drop limits here."""
        metric = "accuracy" if self.kind == "classify" else self.metric
        return f"{metric} {'rise' if self.rises else 'drop'} (points)"

    def line(self) -> str:
        """The result in one line."""
        both = [f"{v:.2f} {self.unit}".rstrip() for v in (self.reference_pct, self.engine_pct)]
        return (
            f"{self.metric}: fp32 {both[0]}, engine {both[1]}, "
            f"{'rise' if self.rises else 'drop'} {self.drop:.2f} ± {self.drop_error:.2f} points "
            f"on {self.samples} {self.counted}s{''.join(f', {f.line()}' for f in self.figures)}"
        )


@dataclass(frozen=True)
class Predictions:
    """How far the engine predicts what float32 predicts: needs no labels.

    metric: what agrees, such as "box agreement"; agreement_pct: 100 where all of it does.
    """

    kind: str
    metric: str
    agreement_pct: float
    samples: int
    figures: tuple[Figure, ...] = ()

    @property
    def gate(self) -> str:
        """What --max-drop limits where there are no labels."""
        return f"{self.metric.replace('agreement', 'disagreement')} (points)"

    def line(self) -> str:
        """The result in one line."""
        more = "".join(f", {figure.line()}" for figure in self.figures)
        return f"{self.metric} {self.agreement_pct:.2f} % on {self.samples} samples{more}"


@dataclass(frozen=True)
class Gate:
    """One threshold: where it came from, what was observed, and whether that is enough.

    note: why it counts as met although the figure says otherwise; else empty.
    """

    name: str
    limit: float
    observed: float
    passed: bool
    origin: str
    note: str = ""

    def shown(self) -> str:
        """The figure with enough digits to tell it from the limit."""
        for digits in (2, 4, 6):
            if round(self.observed, digits) != round(self.limit, digits):
                return f"{self.observed:.{digits}f}"
        return f"{self.observed:.9f}"


@dataclass(frozen=True)
class SampleParity:
    """One sample that stands out: its SQNR, and what was predicted where that differs.

    reference_said, engine_said, truth_said: predictions in words, of tasks other than classes.
    """

    name: str
    sqnr_db: float
    reference_class: int | None = None
    engine_class: int | None = None
    label: int | None = None
    reference_said: str = ""
    engine_said: str = ""
    truth_said: str = ""


@dataclass(frozen=True)
class ParityReport:
    """The engine against the untouched model in float32.

    labelled: whether samples carried labels; without `task`, nothing was said to be judged by
    them. predictions: None where no task is known.
    """

    samples: int
    about: str
    outputs: tuple[OutputParity, ...]
    task: TaskParity | None
    gates: tuple[Gate, ...]
    worst: tuple[SampleParity, ...]
    disagreements: tuple[SampleParity, ...]
    labelled: bool = False
    predictions: Predictions | None = None

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def save(self, path: Path) -> None:
        write_aside(path, json_bytes(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> ParityReport:
        """Read what `save` wrote; BundleError when it isn't that."""
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path}: not a parity report ({error}); build again") from None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ParityReport:
        return cls(
            row["samples"],
            row["about"],
            tuple(OutputParity(**o) for o in row["outputs"]),
            _task(row["task"]) if row["task"] else None,
            tuple(Gate(**g) for g in row["gates"]),
            tuple(SampleParity(**s) for s in row["worst"]),
            tuple(SampleParity(**s) for s in row["disagreements"]),
            row["labelled"],
            # bundles from before there were other tasks have none
            _predictions(row["predictions"]) if row.get("predictions") else None,
        )

    def verdict(self) -> str:
        """One line: the gates that were missed, or the weakest figure of those that hold."""
        missed = [gate for gate in self.gates if not gate.passed]
        if missed:
            parts = [f"{g.name} is {g.shown()}, needs {g.limit:g} ({g.origin})" for g in missed]
            return "; ".join(parts)
        weakest = min(self.outputs, key=lambda o: o.sqnr_db)
        if any(gate.note for gate in self.gates):
            return f"largest error {weakest.max_abs:.1e}, negligible, on {self.samples} samples"
        return f"{weakest.sqnr_db:.1f} dB on {self.samples} samples"


def _task(row: Mapping[str, Any]) -> TaskParity:
    return TaskParity(**{**row, "figures": _figures(row)})


def _predictions(row: Mapping[str, Any]) -> Predictions:
    return Predictions(**{**row, "figures": _figures(row)})


def _figures(row: Mapping[str, Any]) -> tuple[Figure, ...]:
    return tuple(Figure(**each) for each in row.get("figures", ()))
