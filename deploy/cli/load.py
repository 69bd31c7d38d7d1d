"""`deploy load`: is this model usable, and what is in it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json


@click.command("load", short_help="Check a model, infer shapes, convert an old opset.")
@click.argument("model", type=click.Path(path_type=Path))
@options.shape_option
@options.plugin_path_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the checked model.")
@options.json_option
def command(model: Path, output: Path | None, as_json: bool, **flags: Any) -> None:
    """Check MODEL and say what goes in and out."""
    from deploy.load import load, read
    from deploy.loading.default_inputs import default_inputs, kept_default
    from deploy.recipe import Recipe

    recipe = Recipe.read(None, options.recipe_flags(flags))
    source = read(model)
    loaded = load(source, recipe.shape)
    if defaults := default_inputs(source.proto):
        click.echo(f"warning  {kept_default(defaults)}", err=True)
    for spec in loaded.inputs:
        click.echo(f"input   {spec}")
    for spec in loaded.outputs:
        click.echo(f"output  {spec}")
    click.echo(f"opset {loaded.opset}, {len(loaded.proto.graph.node)} nodes")
    if output:
        loaded.save(output)
    if as_json:
        row = {
            "inputs": [str(spec) for spec in loaded.inputs],
            "outputs": [str(spec) for spec in loaded.outputs],
            "opset": loaded.opset,
            "nodes": len(loaded.proto.graph.node),
            "sha256": loaded.sha256,
        }
        print_json(row)
