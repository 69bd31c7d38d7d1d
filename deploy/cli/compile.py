"""`deploy compile`: the build stage alone, an ONNX file to a vendor engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json

if TYPE_CHECKING:
    from deploy.artifacts.model import Model
    from deploy.recipe import Recipe
    from deploy.target import Precision, Target


@click.command("compile", short_help="An ONNX file (float or Q/DQ) to a vendor engine, unproven.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.precision_options
@options.shape_option
@options.batch_option
@options.plugin_path_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def command(model: Path, output: Path, as_json: bool, **flags: Any) -> None:
    """Compile MODEL as it is; `deploy parity` then shows whether the engine is right."""
    from deploy.build import build, holds_only_an_engine, load_engine
    from deploy.errors import RecipeError
    from deploy.files import folder_aside
    from deploy.load import load, read
    from deploy.recipe import Recipe
    from deploy.target import Target, with_batch

    recipe = Recipe.read(None, options.recipe_flags(flags))
    target = with_batch(Target.load(recipe.target), recipe.batch)
    if output.is_file():
        raise RecipeError(f"{output}: exists and is not a folder; give another -o")
    if output.exists() and any(output.iterdir()) and not holds_only_an_engine(output):
        raise RecipeError(f"{output}: holds something that isn't an engine; give another -o")
    loaded = load(read(model), recipe.shape)
    precision = _precision(recipe, target, loaded)
    with folder_aside(output) as aside:
        build(loaded, target, precision, aside)
    with load_engine(output, target, precision) as engine:
        rows = {"inputs": engine.inputs, "outputs": engine.outputs}
        described = {key: [str(spec) for spec in specs] for key, specs in rows.items()}
    click.echo(f"{output}: {target.backend} engine, {precision}")
    if as_json:
        print_json({"output": str(output), "precision": precision, **described})


def _precision(recipe: Recipe, target: Target, model: Model) -> Precision:
    """The recipe's, or what the graph is: int8 or fp8 where it holds Q/DQ, else float."""
    from deploy.errors import RecipeError
    from deploy.floats.float8 import holds_float8
    from deploy.target import QUANTIZED, offered

    quantized = any(node.op_type == "QuantizeLinear" for node in model.proto.graph.node)
    if recipe.precision in QUANTIZED and not quantized:
        raise RecipeError(
            f"--{recipe.precision}, but {model.name} holds no Q/DQ; `deploy quantize` it first, or "
            "give a float precision such as --fp32"
        )
    floats: list[Precision] = [target.default_precision, "fp32", "fp16"]
    natural = next(p for p in floats if p not in QUANTIZED and p in target.precisions)
    if quantized:
        natural = "fp8" if holds_float8(model) else "int8"
    return offered(target, recipe.precision or natural)
