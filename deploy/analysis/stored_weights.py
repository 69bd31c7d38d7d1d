"""What became of every weight that could have been stored as integers."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.analysis.layer_precision import constants
from deploy.artifacts.model import Model


@dataclass(frozen=True)
class StoredWeight:
    """stored: "int8", "int4" or "float". reason: how, or why not. before, after: bytes."""

    weight: str
    stored: str
    reason: str
    before: int
    after: int


def stored_weights(float_model: Model, compressed: Model) -> list[StoredWeight]:
    """A row per weight that `compress` decided on, in the order it did."""
    rows = [d for d in compressed.decisions if d.stage == "compress"]
    values = constants(float_model, {row.subject for row in rows})
    return [
        StoredWeight(
            row.subject,
            row.rule if row.outcome == "applied" else "float",
            row.reason,
            values[row.subject].nbytes,
            values[row.subject].nbytes - row.bytes_saved,
        )
        for row in rows
        if row.subject in values  # else it isn't about a weight
    ]
