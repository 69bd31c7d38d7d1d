"""`deploy quantize`: explicit Q/DQ in the target's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.stage import finish_graph_stage, refuse_in_place


@click.command("quantize", short_help="Write Q/DQ into the graph, in the target's form.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--ranges", type=click.Path(path_type=Path), required=True, help="A ranges.json.")
@options.target_option
@options.precision_options
@options.shape_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, ranges: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Quantize MODEL with the ranges that `deploy calibrate` found on it."""
    from deploy.artifacts.ranges import Ranges
    from deploy.errors import RecipeError
    from deploy.load import load, read
    from deploy.precisions import quantized_as
    from deploy.quantize import quantize
    from deploy.recipe import Recipe
    from deploy.target import QUANTIZED, Target, offered

    refuse_in_place(model, output)
    recipe = Recipe.read(None, options.recipe_flags(flags))
    loaded = load(read(model), recipe.shape)
    target = Target.load(recipe.target)
    precision = offered(target, recipe.precision or "int8")
    if precision not in QUANTIZED:
        raise RecipeError(f"--{precision} has no Q/DQ; give --int8 or --fp8")
    made = quantize(loaded, Ranges.load(ranges), quantized_as(target, precision))
    finish_graph_stage(made, loaded, output, as_json)
