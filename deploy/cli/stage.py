"""What every graph-to-graph stage command ends with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli.terminal import print_json

if TYPE_CHECKING:
    from deploy.artifacts.model import Model


def refuse_in_place(model: Path, output: Path) -> None:
    """RecipeError when the output would take the place of the input."""
    from deploy.errors import RecipeError

    if output.exists() and model.exists() and output.samefile(model):
        raise RecipeError(f"{output}: is the model itself; give another -o, the input is kept")


def finish_graph_stage(made: Model, before: Model, output: Path, as_json: bool) -> None:
    """Write the model and its decisions, and print them."""
    from deploy.artifacts.model import as_rows, decisions_path

    made.save_with_decisions(output)
    for decision in made.decisions:
        click.echo(f"{decision.outcome:<8} {decision.rule}: {decision.subject}: {decision.reason}")
    nodes = [len(model.proto.graph.node) for model in (before, made)]
    click.echo(f"{nodes[0]} -> {nodes[1]} nodes, {output} and {decisions_path(output).name}")
    if as_json:
        print_json(
            {
                "output": str(output),
                "sha256": made.sha256,
                "nodes_before": nodes[0],
                "nodes_after": nodes[1],
                "decisions": as_rows(made.decisions),
            }
        )
