"""`deploy diff`: what differs between two bundles, and which of it matters."""

from __future__ import annotations

from pathlib import Path

import click

from deploy.cli import options
from deploy.cli.terminal import print_json


@click.command("diff", short_help="Explain how two bundles differ, the weightiest first.")
@click.argument("before", metavar="A", type=click.Path(path_type=Path))
@click.argument("after", metavar="B", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the same as one HTML page, in the form of a report.",
)
@options.json_option
def command(before: Path, after: Path, output: Path | None, as_json: bool) -> None:
    """Compare the bundles A and B: what went in, what was decided, what came out.

    Differences that noise explains are not listed. Exit 0 whether they differ or not.
    """
    from deploy.diff.bundles import diff
    from deploy.errors import RecipeError
    from deploy.files import write_aside

    if output is not None and output.is_dir():
        raise RecipeError(f"{output}: is a folder; -o takes the name of an HTML file")
    found = diff(before, after)
    click.echo(f"{before} -> {after}")
    for row in found["first"]:
        looks = {"good": "better", "bad": "worse"}.get(row["looks"], "")
        click.echo(f"{looks:<7} {row['text']}")
    if output is not None:
        from deploy.report.diff import render

        write_aside(output, render(found).encode())
        click.echo(f"report  {output}")
    if as_json:
        print_json(found)
