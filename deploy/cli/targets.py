"""`deploy targets`: the devices there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from deploy.cli import options
from deploy.cli.terminal import print_json

if TYPE_CHECKING:
    from deploy.target import Target


@click.command("targets", short_help="List the devices, or show one of them.")
@click.argument("name", required=False)
@options.json_option
def command(name: str | None, as_json: bool) -> None:
    """List all targets, or print everything about NAME (also a path to a .toml of yours)."""
    from deploy import registry
    from deploy.nvidia.settings import RUNGS
    from deploy.target import Target
    from deploy.target_page import proven, remains

    found = [Target.load(n) for n in ([name] if name else registry.names("target"))]
    for target in found:
        if name:
            _print_one(target.model_dump(mode="json"))
            rung, done = proven(target)
            click.echo(f"proven: {RUNGS[rung]}. {done}")
            click.echo(f"remains: {remains(target)}")
        else:
            precisions = " ".join(target.precisions)
            click.echo(f"{target.name:<12} {precisions:<22} {target.title}")
    if as_json:
        print_json({"targets": [_json(target) for target in found]})


def _json(target: Target) -> dict[str, object]:
    from deploy.target_page import proven

    return {**target.model_dump(mode="json"), "proven": proven(target)[0]}


def _print_one(table: dict[str, object], indent: str = "") -> None:
    for key, value in table.items():
        if isinstance(value, dict):
            click.echo(f"{indent}{key}:")
            _print_one(value, indent + "  ")
        elif isinstance(value, list) and any(" " in str(item) for item in value):
            click.echo(f"{indent}{key}:")
            for item in value:
                click.echo(f"{indent}  - {item}")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            click.echo(f"{indent}{key}: {shown}")
