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
class TaskParity:
    """Top-1 accuracy of both on labelled samples, in percent; drop in points.

    drop_error: standard error of the drop, from the samples on which exactly one is right
    (McNemar 1947): the next test set of this size would move it by about that much.
    """

    samples: int
    reference_pct: float
    engine_pct: float
    drop: float
    drop_error: float


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
    """One sample that stands out: its SQNR, and the classes where they differ."""

    name: str
    sqnr_db: float
    reference_class: int | None = None
    engine_class: int | None = None
    label: int | None = None


@dataclass(frozen=True)
class ParityReport:
    """The engine against the untouched model in float32.

    labelled: whether samples carried labels; without `task`, no output held class scores then.
    """

    samples: int
    about: str
    outputs: tuple[OutputParity, ...]
    task: TaskParity | None
    gates: tuple[Gate, ...]
    worst: tuple[SampleParity, ...]
    disagreements: tuple[SampleParity, ...]
    labelled: bool = False

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
            TaskParity(**row["task"]) if row["task"] else None,
            tuple(Gate(**g) for g in row["gates"]),
            tuple(SampleParity(**s) for s in row["worst"]),
            tuple(SampleParity(**s) for s in row["disagreements"]),
            row["labelled"],
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
