"""`deploy analyze`: what a model computes and moves, which roof binds, and what fusion changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json

_WIDTH = 44
_Row = Mapping[str, Any]


@click.command("analyze", short_help="FLOPs, traffic and the roof that binds, layer by layer.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "names",
    multiple=True,
    metavar="NAME|FILE",
    help="Device, also of hardware alone (jetson-nano); repeat it to compare. [cpu]",
)
@options.precision_options
@options.shape_option
@options.fusion_path_option
@click.option("--probe", is_flag=True, help="Measure this machine for target cpu, about 2 s.")
@click.option("--top", type=click.IntRange(min=1), default=10, show_default=True)
@options.json_option
def command(
    model: Path, names: tuple[str, ...], probe: bool, top: int, as_json: bool, **flags: Any
) -> None:
    """Predict MODEL on one or several devices, before and after the first one's fusions.

    Traffic is input + weights + output of every operator, caches ignored; the time of a layer is
    max(FLOPs / peak, bytes / bandwidth). Without --precision the layers are counted as they are.
    """
    from deploy.analyze import analyze
    from deploy.recipe import Recipe

    recipe = Recipe.read(None, options.recipe_flags(flags))
    found = analyze(model, names, shapes=recipe.shape, precision=recipe.precision, probed=probe)
    for line in (*_totals(found), *_devices(found), *_layers(found, top)):
        click.echo(line.rstrip())
    if as_json:
        print_json(found)


def _totals(found: _Row) -> list[str]:
    before, after = found["original"]["total"], found["total"]
    rules = [
        f"{row['rule']} {row['applied']}" for row in found["fusions"]["rules"] if row["applied"]
    ]
    fired = f"fusions of {found['fusions']['target']}: {', '.join(rules) or 'none fired'}"
    lines = [
        f"{found['model']}, {after['precision']}, per sample; {fired}",
        f"{'':<12} {'original':>14} {'fused':>14}",
        f"{'layers':<12} {before['layers']:>14,} {after['layers']:>14,}",
        f"{'compute':<12} {_si(before['flops'], 'FLOP'):>14} {_si(after['flops'], 'FLOP'):>14}",
        f"{'traffic':<12} {_si(before['bytes'], 'B'):>14} {_si(after['bytes'], 'B'):>14}",
        f"{'FLOP/byte':<12} {before['intensity']:>14.2f} {after['intensity']:>14.2f}",
    ]
    for graph, total in (("original", before), ("fused", after)):
        if not total["unknown"]:
            continue
        named = ", ".join(total["unknown"][:3])
        lines.append(
            f"note: {graph}: {len(total['unknown'])} layers of unknown shape or arithmetic, or "
            f"with a body, count for too little ({named}), so no gain is said; fix the inputs with "
            "--shape, where a shape is what isn't known"
        )
    return lines


def _devices(found: _Row) -> list[str]:
    lines = []
    for row in found["probe"]:
        peaks = ", ".join(f"{p} {_si(v, 'FLOP/s')}" for p, v in row["peak_flops"].items())
        copied = _si(row["bandwidth_bytes_per_s"], "B/s")
        count = f"{row['threads']} thread{'s' if row['threads'] > 1 else ''}"
        lines.append(f"measured on {row['machine']}, {count}: {peaks}, {copied}")
    for name, device in found["targets"].items():
        measured = f", measured on {device['measured_on']}" if device["measured_on"] else ""
        copied, held = device["bandwidth_bytes_per_s"], device["on_chip_bytes"]
        lines += ["", f"{name}: {device['title']}{measured}"]
        lines += [f"  {_si(copied, 'B/s')}, {_si(held, 'B')} on chip"]
        if not device["precisions"]:
            lines.append(f"  {found['total']['precision']} is not offered")
            continue
        lines.append(f"  {'':<5} {'peak':>13} {'original':>11} {'fused':>11} {'gain':>7}  bound by")
        before = found["original"]["targets"][name]["precisions"]
        if found["original"]["total"]["unknown"] or found["total"]["unknown"]:
            # what counts for too little is no base of a ratio
            before = {}
        for precision, after in device["precisions"].items():
            lines.append(f"  {_device_row(device, precision, before.get(precision), after)}")
    return lines


def _device_row(device: _Row, precision: str, before: _Row | None, after: _Row) -> str:
    peak = device["peak_flops"].get(precision)
    gain = f"{before['ms'] / after['ms']:.2f}x" if before and after["ms"] else ""
    return (
        f"{precision:<5} {_si(peak, 'FLOP/s') if peak else '':>13} "
        f"{_ms(before['ms']) if before else '':>11} {_ms(after['ms']):>11} {gain:>7}  "
        f"{after['bound']} ({after['memory_bound']} of "
        f"{after['memory_bound'] + after['compute_bound']} layers by memory, "
        f"{100 * after['memory_share']:.0f} % of the time)"
    )


def _layers(found: _Row, top: int) -> list[str]:
    """The layers that take longest on the first device that says anything."""
    shown = [name for name, device in found["targets"].items() if device["layers_at"]]
    rows = found["layers"]
    if not shown or not rows:
        return []
    order = sorted(rows, key=lambda row: -row["targets"][shown[0]]["ms"])[:top]
    width = min(_WIDTH, max(len(row["name"]) for row in order))
    heads = "".join(
        f"  {name + ', ' + found['targets'][name]['layers_at']:>17}  roof   " for name in shown
    )
    lines = [
        "",
        f"the {len(order)} of {len(rows)} layers that take longest on {shown[0]}",
        f"{'':<{width}}  {'':<10} {'compute':>11} {'traffic':>9} {'FLOP/byte':>9}{heads}",
    ]
    for row in order:
        times = "".join(
            f"  {_ms(row['targets'][name]['ms']):>17}  {row['targets'][name]['bound']:<7}"
            for name in shown
        )
        lines.append(
            f"{_short(row['name'], width):<{width}}  {row['op'][:10]:<10} "
            f"{_si(row['flops'], 'FLOP'):>11} {_si(row['bytes'], 'B'):>9} "
            f"{row['intensity']:>9.2f}{times}"
        )
    return lines + _unlisted(rows, order, shown)


def _unlisted(rows: Sequence[_Row], order: Sequence[_Row], shown: Sequence[str]) -> list[str]:
    """The share of the first device's time that the listed layers have."""
    total = sum(row["targets"][shown[0]]["ms"] for row in rows)
    listed = sum(row["targets"][shown[0]]["ms"] for row in order)
    if len(order) == len(rows) or not total:
        return []
    return [f"together {100 * listed / total:.0f} % of the time predicted there"]


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _si(value: float, unit: str) -> str:
    from deploy.report.units import scaled

    return scaled(value, unit).replace("\N{NO-BREAK SPACE}", " ")


def _ms(value: float) -> str:
    from deploy.report.units import duration

    return duration(value).replace("\N{NO-BREAK SPACE}", " ")
