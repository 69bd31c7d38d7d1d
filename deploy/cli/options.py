"""The flags of a recipe, each written once: flag == TOML key == field of `Recipe`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TypeVar

import click

from deploy.cli.terminal import JSON_STREAM

F = TypeVar("F", bound=Callable[..., Any])
_PRECISIONS = ("int8", "fp8", "fp16", "bf16", "fp32")


class Numbers(click.ParamType[Any]):
    """`0.485,0.456,0.406`, or one number; `x` separates as well: `224x224`."""

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind
        self.name = f"{'INT' if kind is int else 'FLOAT'}[,…]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        parts = str(value).replace("x", ",").split(",")
        try:
            return tuple(self.kind(part) for part in parts)
        except ValueError:
            kind = "whole numbers" if self.kind is int else "numbers"
            self.fail(f"{value!r} is not a list of {kind}, such as 224,224", param, ctx)


class Assignment(click.ParamType[Any]):
    """`name=value`, split at the last `=` (names of inputs may hold one)."""

    def __init__(self, example: str) -> None:
        self.name = example
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        key, sign, right = str(value).rpartition("=")
        if not sign or not key or not right:
            self.fail(f"{value!r} is not of the form {self.example}", param, ctx)
        return key, right


class Shape(Assignment):
    """`name=1,3,224,224`; `?` keeps a dimension dynamic."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        key, right = super().convert(value, param, ctx)
        if isinstance(right, list):
            return key, right
        parts = [part.strip() for part in right.split(",")]
        if not all(part == "?" or part.lstrip("-").isdigit() for part in parts):
            self.fail(f"{value!r} is not of the form {self.example}", param, ctx)
        return key, [part if part == "?" else int(part) for part in parts]


class Batch(click.ParamType[Any]):
    """A batch size or `dynamic`."""

    name = "INT|dynamic"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "dynamic" or isinstance(value, int):
            return value
        if not str(value).isdigit() or int(value) < 1:
            self.fail(f"{value!r} is neither a size from 1 up nor 'dynamic'", param, ctx)
        return int(value)


def _group(*options: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


target_option = click.option("--target", metavar="NAME|FILE", help="Device; see `deploy targets`.")
recipe_option = click.option("--recipe", metavar="FILE", help="TOML with the same keys as flags.")
shape_option = click.option(
    "--shape",
    multiple=True,
    type=Shape("name=1,3,224,224"),
    help="Fix an input's shape; ? keeps a dimension dynamic.",
)
data_options = _group(
    click.option("--data", metavar="URI", help="Samples: image folder, .npz, python:mod:function."),
    click.option("--samples", type=click.IntRange(min=1), help="Calibrate on so many. [300]"),
    click.option(
        "--data-key",
        multiple=True,
        type=Assignment("input=key"),
        help="The key an input (or `labels`) has in the data.",
    ),
)
eval_options = _group(
    click.option("--eval-data", metavar="URI", help="Judge on these instead of unused samples."),
    click.option("--eval-samples", type=click.IntRange(min=1), help="Judge on so many. [1000]"),
)
preprocess_options = _group(
    click.option("--resize", type=Numbers(int), help="Height,width; one number: shorter side."),
    click.option(
        "--resize-mode",
        type=click.Choice(["stretch", "letterbox", "top-left", "pad-right"]),
        help="Others than stretch keep the aspect ratio and pad. [stretch]",
    ),
    click.option("--pad-value", type=float, help="Of the padding, on 0..255. [0]"),
    click.option("--crop", type=Numbers(int), help="Height,width from the centre."),
    click.option("--mean", type=Numbers(float), help="Subtracted, per channel, after --scale."),
    click.option("--std", type=Numbers(float), help="Divided by, per channel."),
    click.option("--scale", type=float, help="Factor on 0..255 values. [1/255]"),
    click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Of the input. [NCHW]"),
    click.option("--color", type=click.Choice(["RGB", "BGR", "GRAY"]), help="[RGB]"),
    click.option(
        "--fold-input/--no-fold-input",
        default=None,
        help="The engine takes raw uint8 images, NHWC in RGB.",
    ),
)
calibrator_options = _group(
    click.option("--calibrator", metavar="NAME", help="auto, mse, minmax, entropy, … [auto]"),
    click.option("--batch-size", type=click.IntRange(min=1), help="Samples read at a time. [8]"),
)
gate_options = _group(
    click.option("--max-drop", type=float, metavar="PCT", help="Accepted loss, in points."),
    click.option("--min-sqnr-db", type=float, metavar="DB", help="Least SQNR of every output."),
    click.option(
        "--outputs",
        multiple=True,
        type=Assignment("boxes=30"),
        help="Least SQNR of one output, in dB.",
    ),
    click.option("--scores", metavar="OUTPUT", help="The output with one score per class."),
    click.option("--task", metavar="NAME", help="auto, classify, detect, segment, text, … [auto]"),
    click.option(
        "--task-option",
        multiple=True,
        type=Assignment("key=value"),
        help="What the task wants to know, such as decoder=yolo.",
    ),
)
int8_options = _group(
    click.option(
        "--effort",
        type=click.Choice(["fast", "default", "best"]),
        help="fast: as it is; best: the noisiest layers stay float. [default]",
    ),
    click.option(
        "--search-s", type=click.FloatRange(min=0), help="Seconds to time placements. [20]"
    ),
    click.option(
        "--keep-float", multiple=True, metavar="LAYER|KIND", help="Not in INT8, such as Add."
    ),
    click.option(
        "--approximate", multiple=True, metavar="NAME", help="Cheaper activation, such as swish."
    ),
    click.option("--int8-weights", is_flag=True, default=None, help="Weights alone as INT8."),
    click.option("--int4-weights", is_flag=True, default=None, help="Weights alone as INT4."),
    click.option("--dynamic", is_flag=True, default=None, help="With those: activations too."),
)
workers_option = click.option(
    "--workers", metavar="URI", help="local:N, dask://host:port or tls://host:port."
)
precision_options = _group(
    click.option("--precision", type=click.Choice(_PRECISIONS), help="Of the engine."),
    *(
        click.option(
            f"--{name}", "chosen", flag_value=name, multiple=True, help=f"--precision {name}"
        )
        for name in _PRECISIONS
    ),
)
batch_option = click.option("--batch", type=Batch(), help="Batch size built into the engine.")
plugin_path_option = click.option(
    "--plugin-path", multiple=True, metavar="DIR", help="A plugin of yours, or a folder of them."
)
fusion_path_option = click.option(
    "--fusion-path", multiple=True, metavar="FILE", help="A fusion of yours that the target names."
)


def _words_aside(context: click.Context, _: click.Parameter, asked: bool) -> bool:
    """With --json, words go to standard error: what reads standard output parses all of it."""
    if asked:
        context.meta[JSON_STREAM] = sys.stdout
        context.with_resource(redirect_stdout(sys.stderr))
    return asked


json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    callback=_words_aside,
    help="Print one JSON object on standard output, and words on standard error.",
)


def recipe_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """The given flags as recipe keys; click.UsageError for two precisions at once."""
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    for key in ("shape", "data_key", "task_option", "outputs"):
        if key in given:
            names = [name for name, _ in given[key]]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise click.UsageError(f"--{key.replace('_', '-')} {twice} is given twice")
            given[key] = dict(given[key])
    if "outputs" in given:
        given["outputs"] = {name: {"min_sqnr_db": db} for name, db in given["outputs"].items()}
    chosen = sorted(
        {*given.pop("chosen", ()), *([given["precision"]] if "precision" in given else [])}
    )
    if len(chosen) > 1:
        raise click.UsageError(f"--{' and --'.join(chosen)} exclude each other; give one precision")
    if chosen:
        given["precision"] = chosen[0]
    return given
