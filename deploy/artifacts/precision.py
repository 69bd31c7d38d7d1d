"""How the precision of an engine was chosen: what was tried, what each layer costs, what was kept.

Written by the pipeline beside the engine, read by the report.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.errors import BuildError
from deploy.files import json_bytes, write_aside

MISSED = "missed a gate"


@dataclass(frozen=True)
class Tried:
    """One engine that was considered.

    median_ms: None where it wasn't measured; `predicted_ms` then comes from the roofline.
    final: measured in the last loop; only figures of one loop compare. sqnr_db, drop_pct: against
    float32 on the judging samples, where that was looked at. outcome: what became of it, in words.
    """

    name: str
    description: str
    int8_layers: int
    float_layers: int
    median_ms: float | None
    predicted_ms: float | None
    rounds: int
    final: bool
    sqnr_db: float | None
    drop_pct: float | None
    outcome: str


def missed_gate(name: str, outcomes: Mapping[str, str]) -> str:
    """The outcome of that engine where it was judged and missed a gate; else empty."""
    found = outcomes.get(name, "")
    return found if found.startswith(MISSED) else ""


@dataclass(frozen=True)
class LayerNoise:
    """What quantizing one layer costs the outputs.

    noise_db: noise power over signal power of the outputs with this layer alone in INT8 (negative;
    the closer to 0 the worse). accumulated_db: predicted with every layer that is no noisier.
    """

    layer: str
    op: str
    tensor: str
    noise_db: float
    accumulated_db: float
    samples: int


@dataclass(frozen=True)
class PrecisionChoice:
    """The table of what was tried, the layers by what they cost, and what stays float and why."""

    chosen: str
    reason: str
    measured_here: bool
    tried: tuple[Tried, ...]
    sensitivity: tuple[LayerNoise, ...]
    kept_float: Mapping[str, str]

    def save(self, path: Path) -> None:
        """Write JSON: the same choice gives the same bytes."""
        write_aside(path, json_bytes(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> PrecisionChoice:
        """Read what `save` wrote; BuildError when it isn't that."""
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                row["chosen"],
                row["reason"],
                row["measured_here"],
                tuple(Tried(**t) for t in row["tried"]),
                tuple(LayerNoise(**layer) for layer in row["sensitivity"]),
                dict(row["kept_float"]),
            )
        except OSError as error:
            raise BuildError(f"{path}: {error.strerror}; build again") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{path}: damaged ({error!r}); build again with --fresh") from None


def save_noise(layers: Sequence[LayerNoise], path: Path) -> None:
    """Write the sensitivity of a model's layers as JSON."""
    write_aside(path, json_bytes([asdict(layer) for layer in layers]))


def load_noise(path: Path) -> tuple[LayerNoise, ...]:
    """Read what `save_noise` wrote; BuildError when it isn't that."""
    try:
        return tuple(LayerNoise(**row) for row in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BuildError(f"{path}: damaged ({error!r}); build again with --fresh") from None
