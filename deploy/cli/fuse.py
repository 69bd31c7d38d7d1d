"""`deploy fuse`: the target's graph rewrites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.stage import finish_graph_stage, refuse_in_place


@click.command("fuse", short_help="Rewrite the graph so that it moves less and computes the same.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.shape_option
@options.fusion_path_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Apply the target's fusions to MODEL, and say for each what was done or why not."""
    from deploy.fuse import fuse
    from deploy.load import load, read
    from deploy.no_effect import unnamed_fusions
    from deploy.recipe import Recipe
    from deploy.target import Target

    refuse_in_place(model, output)
    recipe = Recipe.read(None, options.recipe_flags(flags))
    loaded = load(read(model), recipe.shape)
    target = Target.load(recipe.target)
    for line in unnamed_fusions(recipe, target):
        click.echo(f"warning  {line}", err=True)
    finish_graph_stage(fuse(loaded, target.fusions), loaded, output, as_json)
