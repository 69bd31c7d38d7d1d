"""The rung of the device itself, from what its report says: engine and simulation side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deploy.artifacts.ladder import Ladder, OutputLoss, Rung, TensorError
from deploy.on_device.numbers_check import ROUNDING_MARGIN_DB

# kernels in 16 bits of another vendor, where nothing was measured
_FLOAT_DB = 20.0


def with_device(found: Ladder, report: Mapping[str, Any], sent: Mapping[str, Any]) -> Ladder:
    """The ladder with the device as its last rung, in place of an earlier one.

    report: the content of device_report.json. sent: the manifest of device/, whose `parity` says
    what integers off by one may cost. The ladder itself where the report has no figures.
    """
    rows = (report.get("parity") or {}).get("outputs") or []
    rungs = tuple(rung for rung in found.rungs if rung.name != "device")
    if not rows or not rungs:
        return found
    wanted = sent.get("parity") or {}
    bound = wanted.get("rounding_sqnr_db") or {}
    least = {row["name"]: bound.get(row["name"], _FLOAT_DB + ROUNDING_MARGIN_DB) for row in rows}
    own = {row["name"]: row["simulated_sqnr_db"] for row in rows}
    known = [name for name, value in own.items() if value is not None]
    limit = wanted.get("min_sqnr_db")
    worst = min(known, key=lambda n: own[n] - least[n]) if known else None
    rung = Rung(
        "device",
        "build on the device",
        rungs[-1].name,
        tuple(OutputLoss(_figures(row), limit, "the bundle" if limit else "") for row in rows),
        own[worst] if worst else min(row["sqnr_db"] for row in rows),
        least[worst] - ROUNDING_MARGIN_DB if worst else -200.0,
        "every value rounded to the next step instead, measured here"
        if bound
        else "kernels of another vendor",
    )
    return replace(found, rungs=(*rungs, rung))


def _figures(row: Mapping[str, Any]) -> TensorError:
    # the device doesn't say how large its outputs are
    return TensorError(row["name"], "output", row["sqnr_db"], row["cosine"], row["max_abs"], 0.0)
