"""`deploy correct`: what rounding changed in each layer, taken back in its bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.stage import finish_graph_stage, refuse_in_place


@click.command("correct", short_help="Take the mean error of every INT8 layer back.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("exact", type=click.Path(path_type=Path))
@options.target_option
@options.data_options
@options.preprocess_options
@options.shape_option
@options.recipe_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(
    model: Path, exact: Path, recipe: str | None, output: Path, as_json: bool, **flags: Any
) -> None:
    """Correct MODEL (from `deploy quantize`) towards EXACT, the float graph it was made from."""
    from deploy.correct import CORRECT_ON, correct
    from deploy.data import open_samples
    from deploy.errors import RecipeError
    from deploy.load import load, read
    from deploy.recipe import Recipe
    from deploy.target import Target

    refuse_in_place(model, output)
    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    if chosen.data is None:
        raise RecipeError("no --data: the error of a layer is measured on real samples")
    target = Target.load(chosen.target)
    quantized = load(read(model), chosen.shape)
    samples = open_samples(chosen.data, chosen, quantized)
    floats = load(read(exact), chosen.shape)
    made = correct(quantized, floats, list(samples.spread(CORRECT_ON)), target.corrections)
    finish_graph_stage(made, quantized, output, as_json)
