"""What two builds came to: accuracy, SQNR, latency with its noise in mind, size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.diff.bundles import Side

# two engines of one run are told apart from 3 % on (deploy.bench); of two runs, from twice that
NOISE = 0.06
# where the clock doesn't confirm at least this part of it, as much as two runs at other times
_ROUGH, _AGREED = 0.25, 0.3


def results(before: Side, after: Side, comparable: bool) -> dict[str, Any]:
    """Everything measured of both, side by side; None where one of them has no such figure.

    comparable: whether accuracy and SQNR were measured of one model on the same samples.
    """
    return {
        "comparable": comparable,
        "gates": _gates(before.content, after.content),
        "accuracy": _accuracy(before.content, after.content, comparable),
        "outputs": _outputs(before.content, after.content),
        "layers": _layers(before.content, after.content),
        "latency": _latency(before, after),
        "size": _size(before.content, after.content),
    }


def _pairs(before: list[Any], after: list[Any], key: str) -> list[tuple[str, Any, Any]]:
    """Rows with the same name, in the order of the first."""
    known = {row[key]: row for row in after}
    return [(row[key], row, known[row[key]]) for row in before if row[key] in known]


def _gates(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [content["parity"]["gates"] for content in (before, after)]
    names = dict.fromkeys(row["name"] for found in rows for row in found)
    return [
        {"name": name, "before": _gate(rows[0], name), "after": _gate(rows[1], name)}
        for name in names
    ]


def _gate(rows: list[dict[str, Any]], name: str) -> dict[str, Any] | None:
    return next((row for row in rows if row["name"] == name), None)


def _accuracy(
    before: Mapping[str, Any], after: Mapping[str, Any], comparable: bool
) -> dict[str, Any] | None:
    """Points of accuracy; error: the standard error of the difference, both drops' together.

    Both builds judge the same samples, which makes the true error smaller: this one is safe.
    """
    old, new = before["parity"]["task"], after["parity"]["task"]
    if old is None or new is None or _metric(old) != _metric(new):
        return None
    change = (new["engine_pct"] - old["engine_pct"]) * (-1 if new.get("rises") else 1)
    error = math.hypot(old["drop_error"], new["drop_error"])
    # one sample is the least that can change
    by_class = new.get("kind", "classify") == "classify"
    least = 100 / min(old["samples"], new["samples"]) if by_class else 0.0
    return {
        "before": old["engine_pct"],
        "after": new["engine_pct"],
        "change": change,
        "error": error,
        "beyond_noise": comparable and abs(change) > max(2 * error, 1.5 * least),
    }


def _outputs(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    pairs = _pairs(before["parity"]["outputs"], after["parity"]["outputs"], "name")
    return [_sqnr("output", name, old, new) for name, old, new in pairs]


def _layers(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    pairs = _pairs(before["layer_errors"], after["layer_errors"], "tensor")
    return [_sqnr("tensor", name, old, new) for name, old, new in pairs]


def _sqnr(key: str, name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    change = new["sqnr_db"] - old["sqnr_db"]
    return {key: name, "before": old["sqnr_db"], "after": new["sqnr_db"], "change": change}


def _latency(before: Side, after: Side) -> dict[str, Any] | None:
    """Medians, and the speed against an engine that both runs had, which is what compares.

    times: how many times as fast the second engine is; None where nothing can be said.
    """
    rows = [side.content["measured"]["latency"] for side in (before, after)]
    own = [side.content["summary"]["precision"] for side in (before, after)]
    if any(name not in found for name, found in zip(own, rows, strict=True)):
        return None
    medians = [found[name]["median_ms"] for name, found in zip(own, rows, strict=True)]
    machines = [side.content["measured"]["machine"] for side in (before, after)]
    base = _base(rows, before.manifest["model"]["sha256"] == after.manifest["model"]["sha256"])
    found: dict[str, Any] = {"before": medians[0], "after": medians[1], "against": base}
    if machines[0] != machines[1]:
        return {**found, "ratios": None, "times": None, "beyond_noise": False, "noise": None}
    if base is None:
        noise = _spread(own, rows)
        times = medians[0] / medians[1]
        ratios = None
    else:
        ratios = [r[base]["median_ms"] / m for r, m in zip(rows, medians, strict=True)]
        times = ratios[1] / ratios[0]
        # of very short calls the float engine itself drifts: the milliseconds then say otherwise
        clock = math.log(medians[0] / medians[1])
        noise = NOISE if clock * math.log(times) > _AGREED * math.log(times) ** 2 else _ROUGH
    far = abs(math.log(times)) > math.log1p(noise)
    return {**found, "ratios": ratios, "times": times, "beyond_noise": far, "noise": noise}


def _base(rows: list[Mapping[str, Any]], same_model: bool) -> str | None:
    """The float engine of the same graph in both runs, fp32 first."""
    both = [name for name in ("fp32", "bf16", "fp16") if all(name in found for found in rows)]
    return next(iter(both), None) if same_model else None


def _spread(own: list[str], rows: list[Mapping[str, Any]]) -> float:
    """How far apart two runs at other times may lie: what each of them spread by itself."""
    found = [row[name] for name, row in zip(own, rows, strict=True)]
    spread = (float(row["p90_ms"] / row["median_ms"]) - 1 for row in found)
    return min(1.0, max(_ROUGH, *spread))


def _size(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    sizes = [content["sizes"] for content in (before, after)]
    what = " and ".join(dict.fromkeys(size["what"] for size in sizes))
    return {"before": sizes[0]["engine"], "after": sizes[1]["engine"], "what": what}


def _metric(task: Mapping[str, Any]) -> str:
    """What a build's accuracy is measured in; classes before tasks had names."""
    return str(task.get("metric", "top-1 accuracy"))
