"""`deploy equalize`: an equal float graph that loses less to INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.stage import finish_graph_stage, refuse_in_place


@click.command("equalize", short_help="Rescale channels, so that INT8 loses less; stays float.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.data_options
@options.preprocess_options
@options.shape_option
@options.recipe_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, recipe: str | None, output: Path, as_json: bool, **flags: Any) -> None:
    """Equalize MODEL (as it comes out of `deploy fuse`) on real samples."""
    from deploy.data import open_samples
    from deploy.equalize import equalize
    from deploy.errors import RecipeError
    from deploy.load import load, read
    from deploy.recipe import Recipe
    from deploy.target import Target

    refuse_in_place(model, output)
    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    if chosen.data is None:
        raise RecipeError("no --data: what channels reach is measured on real samples")
    target = Target.load(chosen.target)
    loaded = load(read(model), chosen.shape)
    samples = open_samples(chosen.data, chosen, loaded)
    symmetric = target.quantization.activation_symmetric
    made = equalize(loaded, samples, target.equalizations, symmetric=symmetric)
    finish_graph_stage(made, loaded, output, as_json)
