"""`deploy calibrate`: ranges of every activation, from real samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.terminal import Terminal, print_json


@click.command("calibrate", short_help="Find the range of every activation on real samples.")
@click.argument("model", type=click.Path(path_type=Path))
@options.data_options
@options.calibrator_options
@options.workers_option
@options.preprocess_options
@options.shape_option
@options.recipe_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--fresh", is_flag=True, help="Overwrite a ranges file made from something else.")
@options.json_option
def command(
    model: Path, recipe: str | None, output: Path, fresh: bool, as_json: bool, **flags: Any
) -> None:
    """Calibrate MODEL (as it comes out of `deploy fuse`) and write ranges.json.

    A ranges file made from the same model, samples and settings is reused; any other is refused.
    """
    from deploy.artifacts.ranges import Ranges
    from deploy.calibrate import calibrate, source_of
    from deploy.cluster.calibrate import calibrate_on
    from deploy.cluster.workers import Workers
    from deploy.data import open_samples
    from deploy.errors import CalibrationError, RecipeError
    from deploy.load import load, read
    from deploy.recipe import Recipe

    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    if chosen.data is None:
        raise RecipeError("no --data: ranges come from real samples, never from random numbers")
    loaded = load(read(model), chosen.shape)
    samples = open_samples(chosen.data, chosen, loaded)
    reused = False
    if output.exists() and not fresh:
        ranges = Ranges.load(output)
        reason = ranges.why_not(source_of(loaded, samples, chosen.calibrator))
        if reason is not None:
            raise CalibrationError(f"{output}: {reason}; give another -o, or --fresh to replace it")
        reused = True
    else:
        terminal = Terminal()
        terminal.start("calibrate", len(samples))
        size, advance = chosen.batch_size, terminal.advance
        if chosen.workers is None:
            ranges = calibrate(loaded, samples, chosen.calibrator, batch_size=size, advance=advance)
        else:
            with Workers.parse(chosen.workers) as workers:
                ranges = calibrate_on(
                    workers, loaded, samples, chosen.calibrator, batch_size=size, advance=advance
                )
        terminal.done("calibrate", f"{len(samples)} samples", reused=False)
        ranges.save(output)
    click.echo(f"{len(ranges.tensors)} tensors, {output}{' (reused)' if reused else ''}")
    if as_json:
        row = {"output": str(output), "tensors": len(ranges.tensors), "reused": reused}
        print_json({**row, "samples": len(samples)})
