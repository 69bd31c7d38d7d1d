"""`deploy bench`: latency and throughput of several candidates in one interleaved run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json


@click.command("bench", short_help="Measure latency and throughput, candidates interleaved.")
@click.argument("candidates", type=click.Path(path_type=Path), nargs=-1, required=True)
@options.target_option
@options.precision_options
@options.shape_option
@options.batch_option
@click.option("--rounds", type=click.IntRange(min=20), default=200, show_default=True)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="0: the vendor's choice.")
@options.json_option
def command(
    candidates: tuple[Path, ...], rounds: int, threads: int, as_json: bool, **flags: Any
) -> None:
    """Measure CANDIDATES: bundles, engine folders or .onnx files, in one run.

    Single stream gives the latency, as many streams as the vendor likes the throughput. Compare
    ratios within one run only: a shared machine drifts.
    """
    from deploy.compare import bench
    from deploy.recipe import Recipe

    recipe = Recipe.read(None, options.recipe_flags(flags))
    rows = bench(candidates, recipe, rounds=rounds, threads=threads)
    width = max(len(name) for name in rows)
    first = next(iter(rows.values()))
    click.echo(f"{'':<{width}}  median ms     p90     p99  samples/s  speed-up")
    for name, row in rows.items():
        click.echo(
            f"{name:<{width}}  {row['median_ms']:9.3f} {row['p90_ms']:7.3f} {row['p99_ms']:7.3f}  "
            f"{row['samples_per_s']:9.1f}  {first['median_ms'] / row['median_ms']:7.2f}x"
        )
    if all(row["of_device"] for row in rows.values()):
        click.echo("milliseconds by the GPU's own clock, samples/s by this machine's")
    if as_json:
        print_json({"candidates": rows, "rounds": rounds})
