"""`deploy compile`: the build stage alone, an ONNX file to a vendor engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json


@click.command("compile", short_help="An ONNX file (float or Q/DQ) to a vendor engine, unproven.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.precision_options
@options.shape_option
@options.batch_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Compile MODEL as it is; `deploy parity` then shows whether the engine is right."""
    from deploy.build import build, load_engine
    from deploy.errors import RecipeError
    from deploy.files import folder_aside
    from deploy.load import load, read
    from deploy.recipe import Recipe
    from deploy.target import Target, with_batch

    recipe = Recipe.read(None, options.recipe_flags(flags))
    target = with_batch(Target.load(recipe.target), recipe.batch)
    precision = recipe.precision or target.default_precision
    if output.exists() and any(output.iterdir()) and not (output / "settings.json").is_file():
        raise RecipeError(f"{output}: holds something that isn't an engine; give another -o")
    loaded = load(read(model), recipe.shape)
    with folder_aside(output) as aside:
        build(loaded, target, precision, aside)
    with load_engine(output, target, precision) as engine:
        rows = {"inputs": engine.inputs, "outputs": engine.outputs}
        described = {key: [str(spec) for spec in specs] for key, specs in rows.items()}
    click.echo(f"{output}: {target.backend} engine, {precision}")
    if as_json:
        print_json({"output": str(output), "precision": precision, **described})
