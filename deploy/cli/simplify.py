"""`deploy simplify`: constants folded, dead and duplicate nodes gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.stage import finish_graph_stage, refuse_in_place


@click.command("simplify", short_help="Fold constants, remove dead and duplicate nodes.")
@click.argument("model", type=click.Path(path_type=Path))
@options.shape_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Simplify MODEL; the numbers are checked after it."""
    from deploy.load import load, read
    from deploy.recipe import Recipe
    from deploy.simplify import simplify

    refuse_in_place(model, output)
    recipe = Recipe.read(None, options.recipe_flags(flags))
    loaded = load(read(model), recipe.shape)
    finish_graph_stage(simplify(loaded), loaded, output, as_json)
