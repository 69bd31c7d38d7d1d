"""`deploy debug`: which node goes wrong first?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli import options
from deploy.cli.terminal import Terminal, print_json

if TYPE_CHECKING:
    from deploy.debug import Found
    from deploy.ladder.case import Replayed

_FOUND = 3


@click.command("debug", short_help="Find the first node that goes wrong, and keep it as a case.")
@click.argument("model", type=click.Path(path_type=Path), required=False)
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@options.target_option
@options.data_options
@options.eval_options
@options.preprocess_options
@options.shape_option
@options.recipe_option
@click.option("--least-db", type=float, help="What float graphs have to reach. [60]")
@click.option("--replay", type=click.Path(path_type=Path), help="Run a case again.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("debug-case"),
    help="Folder of the case. [debug-case]",
)
@options.json_option
def command(
    model: Path | None,
    candidate: Path | None,
    recipe: str | None,
    least_db: float | None,
    replay: Path | None,
    output: Path,
    as_json: bool,
    **flags: Any,
) -> int:
    """Find the first node of CANDIDATE that doesn't do what MODEL does.

    CANDIDATE is an .onnx, a bundle, or an engine's folder compiled from MODEL. What fails is
    written as an ONNX file of its own with its inputs; --replay shows it again. Exit 3 when
    something was found, 0 when not.
    """
    from deploy.debug import debug
    from deploy.errors import RecipeError
    from deploy.ladder import case
    from deploy.recipe import Recipe

    if replay is not None:
        if model is not None:
            raise RecipeError(f"--replay {replay} takes no model: the case holds all it needs")
        return _shown(case.replay(replay), as_json)
    if model is None or candidate is None:
        raise RecipeError("two graphs are compared: deploy debug MODEL CANDIDATE --data URI")
    if output.exists():
        raise RecipeError(f"{output}: exists; give another -o, or remove it")
    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    terminal = Terminal()
    terminal.start("debug")
    found = debug(model, candidate, chosen, output, least_db)
    terminal.done("debug", found.told, reused=False)
    return _told(found, as_json)


def _told(found: Found, as_json: bool) -> int:
    from dataclasses import asdict

    culprit = found.culprit
    if culprit is None:
        broken = f"{found.stage} went wrong, no single node did" if found.stage_broken else ""
        click.echo(broken or "nothing found: every node does what it should")
    else:
        click.echo(f"first at  {culprit.node} ({culprit.operator}), by {found.stage}")
        click.echo(f"because   {culprit.why}")
        click.echo(f"part      {len(culprit.nodes)} node{'s' if len(culprit.nodes) > 1 else ''}")
    if found.case is not None:
        click.echo(f"case      {found.case}")
        click.echo(f"again     deploy debug --replay {found.case}")
    if as_json:
        row = asdict(found) | {"case": str(found.case) if found.case else None}
        print_json(row)
    return _FOUND if culprit is not None or found.stage_broken else 0


def _shown(found: Replayed, as_json: bool) -> int:
    from dataclasses import asdict

    culprit = found.case.culprit
    state = "fails" if found.fails else "is right now"
    click.echo(
        f"{culprit.node}: {culprit.tensor!r} {state}: {found.observed_db:.1f} dB, needs "
        f"{culprit.expected_db:.1f}"
    )
    if as_json:
        print_json({**asdict(found), "fails": found.fails})
    return _FOUND if found.fails else 0
