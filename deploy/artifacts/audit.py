"""What an audit of the calibration samples found: findings, and how the ranges grew with them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from deploy.errors import CalibrationError
from deploy.files import json_bytes, write_aside

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Finding:
    """One thing about the samples: what was observed, why it matters, and what to do.

    severity: "warn" for what likely costs accuracy, "note" for what is good to know. samples: names
    of samples that show it, the first few.
    """

    kind: str
    severity: Literal["warn", "note"]
    observed: str
    why: str
    advice: str
    samples: tuple[str, ...] = ()

    def line(self) -> str:
        """Observation and advice on one line, for a terminal."""
        return f"{self.observed}: {self.advice}"


@dataclass(frozen=True)
class Curve:
    """How the ranges of `tensors` tensors grew with the samples.

    missing_pct[i]: after `after[i]` samples, what 19 of 20 tensors lacked of their range's final
    width at most. stable_after: samples after which 19 of 20 lack at most 5 %.
    """

    after: tuple[int, ...]
    missing_pct: tuple[float, ...]
    stable_after: int
    tensors: int


@dataclass(frozen=True)
class Audit:
    """Findings in the order of their weight; not_told: what these samples and this model can't
    show, in words. curve: None where no tensor was observed."""

    samples: int
    findings: tuple[Finding, ...]
    not_told: tuple[str, ...]
    curve: Curve | None

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(found for found in self.findings if found.severity == "warn")

    def in_short(self) -> str:
        """One line: how much was found, and after how many samples the ranges were stable."""
        warned = len(self.warnings)
        parts = [f"{self.samples} samples"]
        parts.append(f"{warned} warning{'s' if warned != 1 else ''}" if warned else "no warnings")
        if self.curve is not None:
            parts.append(f"ranges stable after {self.curve.stable_after}")
        return ", ".join(parts)

    def save(self, path: Path) -> None:
        """Write JSON: the same audit gives the same bytes."""
        write_aside(path, json_bytes({"schema_version": SCHEMA_VERSION, **asdict(self)}))

    @classmethod
    def load(cls, path: Path) -> Audit:
        """Read what `save` wrote; CalibrationError when it isn't that."""
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            if row["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {row['schema_version']}, not {SCHEMA_VERSION}")
            curve = row["curve"]
            return cls(
                row["samples"],
                tuple(Finding(**{**f, "samples": tuple(f["samples"])}) for f in row["findings"]),
                tuple(row["not_told"]),
                None if curve is None else _curve(**curve),
            )
        except OSError as error:
            raise CalibrationError(f"{path}: {error.strerror}; build again") from None
        except (ValueError, KeyError, TypeError) as error:
            message = f"{path}: damaged ({error!r}); build again with --fresh"
            raise CalibrationError(message) from None


def _curve(after: list[int], missing_pct: list[float], stable_after: int, tensors: int) -> Curve:
    return Curve(tuple(after), tuple(missing_pct), stable_after, tensors)
