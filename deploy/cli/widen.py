"""`deploy widen`: a model stored in float16 or bfloat16, computing in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.stage import finish_graph_stage, refuse_in_place


@click.command("widen", short_help="Make a float16 model float32, as INT8 needs it.")
@click.argument("model", type=click.Path(path_type=Path))
@options.shape_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Let MODEL, stored in float16 or bfloat16, compute in float32; its inputs and outputs
    keep their types."""
    from deploy.load import load, read
    from deploy.recipe import Recipe
    from deploy.widen import widen

    refuse_in_place(model, output)
    recipe = Recipe.read(None, options.recipe_flags(flags))
    loaded = load(read(model), recipe.shape)
    finish_graph_stage(widen(loaded), loaded, output, as_json)
