"""The section about compute and memory: what the target's roofs allow every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.report import units
from deploy.report.summary import Content, on_target
from deploy.report.table import Row, folded, name, number, paragraph, table

_Analysed = Mapping[str, Any]

# a longer table nobody reads, and report.json has them all
_LISTED = 250


def roofline(content: Content) -> dict[str, str]:
    """The values of page.html's roofline section; empty for a graph without layers."""
    analysed = content["roofline"]
    if not analysed["built"]["layers"]:
        return {"roofline": "", "roofline_graphs": "", "roofline_layers": ""}
    return {
        "roofline": paragraph(_words(content)),
        "roofline_graphs": _graphs(analysed),
        "roofline_layers": _layers(analysed["built"]),
    }


def _words(content: Content) -> str:
    built = content["roofline"]["built"]
    (device,) = built["targets"].values()
    found = device["precisions"][device["layers_at"]]
    layers = found["memory_bound"] + found["compute_bound"]
    text = (
        f"On the target's figures ({_figures(device)}), {found['memory_bound']:,} of "
        f"{units.amount(layers, 'layer')} are bound by memory traffic and take "
        f"{units.share(found['memory_share'])} of a predicted {units.duration(found['ms'])}."
    )
    moving = [row for row in built["layers"] if not row["flops"]]
    if moving:
        spent = sum(at["ms"] for row in moving for at in row["targets"].values())
        text += (
            f" {units.amount(len(moving), 'layer')} only {'moves' if len(moving) == 1 else 'move'} "
            f"data: {units.duration(spent)}."
        )
    unknown = len(built["total"]["unknown"])
    if unknown:
        text += f" {units.amount(unknown, 'layer')} of unknown cost count for too little."
    precision = content["summary"]["precision"]
    measured = content["measured"]["latency"].get(precision)
    if measured and on_target(content):
        text += f" The engine measured {units.ms(measured['median_ms'])}."
    return text


def _figures(device: Mapping[str, Any]) -> str:
    peak = device["peak_flops"].get(device["layers_at"], max(device["peak_flops"].values()))
    bandwidth = units.scaled(device["bandwidth_bytes_per_s"], "B/s")
    return f"{units.scaled(peak, 'FLOP/s')} in {device['layers_at']}, {bandwidth}"


def _graphs(analysed: Mapping[str, _Analysed]) -> str:
    """The graph before and after, at every precision that says something about it."""
    rows: list[Row] = []
    (fused,) = (device["precisions"] for device in analysed["fused"]["targets"].values())
    for stage in ("loaded", "fused", "built"):
        (device,) = analysed[stage]["targets"].values()
        kept = [device["layers_at"]] if stage != "fused" else list(device["precisions"])
        if stage == "built" and device["precisions"][kept[0]] == fused.get(kept[0]):
            continue
        total = analysed[stage]["total"]
        rows += [_graph(stage, p, device["precisions"][p], total) for p in kept]
    columns = ["Graph", "Counted in", "#Layers", "#Compute", "#Memory traffic", "#FLOP/byte"]
    return table("Before and after", [*columns, "#Predicted", "#Bound by memory"], rows)


def _graph(
    stage: str, precision: str, found: Mapping[str, Any], total: Mapping[str, Any]
) -> list[Any]:
    layers = found["memory_bound"] + found["compute_bound"]
    ratio = total["flops"] / found["bytes"] if found["bytes"] else 0.0
    return [
        {"built": "as built"}.get(stage, stage),
        precision,
        number(f"{layers:,}", layers),
        number(units.scaled(total["flops"], "FLOP"), total["flops"]),
        number(units.size(found["bytes"]), found["bytes"]),
        number(units.significant(ratio), ratio),
        number(units.duration(found["ms"]), found["ms"]),
        number(f"{found['memory_bound']:,}", found["memory_bound"]),
    ]


def _layers(built: _Analysed) -> str:
    """The layers as the engine was built, the longest first."""
    found = [(row, at) for row in built["layers"] for at in row["targets"].values()]
    total = sum(at["ms"] for _, at in found) or 1.0
    found.sort(key=lambda pair: -pair[1]["ms"])
    rows: list[Row] = [
        [
            name(row["name"]),
            row["op"],
            at["precision"],
            number(units.scaled(row["flops"], "FLOP"), row["flops"]),
            number(units.size(at["bytes"]), at["bytes"]),
            number(units.significant(row["flops"] / max(1, at["bytes"])), row["intensity"]),
            at["bound"],
            number(units.duration(at["ms"]), at["ms"]),
            number(units.share(at["ms"] / total), at["ms"] / total),
        ]
        for row, at in found[:_LISTED]
    ]
    columns = ["Layer", "Operator", "Type", "#Compute", "#Memory traffic", "#FLOP/byte"]
    whole = table("Cost of every layer", [*columns, "Roof", "#Predicted", "#Share"], rows, level=0)
    said = f"Cost of all {len(rows):,} layers, the longest first"
    if len(found) > _LISTED:
        share = sum(at["ms"] for _, at in found[:_LISTED]) / total
        part = f"{units.share(share)} of the time"
        said = f"Cost of the {_LISTED} longest of {len(found):,} layers, {part}"
    return folded(said, whole)
