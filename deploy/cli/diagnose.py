"""`deploy diagnose`: the usual suspects, in words."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from deploy.cli import options
from deploy.cli.terminal import Terminal, print_json

_WIDTH = 100
_FOUND = 3


@click.command("diagnose", short_help="Look for the usual reasons why results are wrong.")
@click.argument("subject", type=click.Path(path_type=Path))
@options.target_option
@options.data_options
@options.eval_options
@options.preprocess_options
@options.shape_option
@options.recipe_option
@options.json_option
def command(subject: Path, recipe: str | None, as_json: bool, **flags: Any) -> int:
    """Look at SUBJECT, a model or a bundle, on samples that it fails on.

    Preprocessing, layout, dead and saturated tensors, NaN, constant outputs, labels off by one,
    ranges of other data, shapes, shorter floats, overflow without VNNI. Exit 3 when one is likely,
    0 when none is.
    """
    from dataclasses import asdict

    from deploy.diagnose import diagnose
    from deploy.recipe import Recipe

    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    terminal = Terminal()
    terminal.start("diagnose")
    found = diagnose(subject, chosen, terminal.advance)
    terminal.done("diagnose", f"{found.samples} samples looked at, {found.data}", reused=False)
    for each in found.findings:
        title = "likely" if each.severity == "warn" else "to know"
        text = f"{title}: {each.kind}. {_sentence(each.observed)} {_sentence(each.why)} "
        click.echo(textwrap.fill(f"{text}{_sentence(each.advice)}", _WIDTH, subsequent_indent="  "))
    if found.healthy:
        click.echo(f"none of the usual suspects: {', '.join(found.looked_for)}")
    for line in found.not_told:
        click.echo(textwrap.fill(f"unknown: {line}", _WIDTH, subsequent_indent="  "))
    if as_json:
        print_json(asdict(found) | {"healthy": found.healthy})
    return 0 if found.healthy else _FOUND


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
