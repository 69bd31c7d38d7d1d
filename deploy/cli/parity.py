"""`deploy parity`: does this engine compute what that model computes?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli import options
from deploy.cli.terminal import Terminal, print_json

if TYPE_CHECKING:
    from deploy.artifacts.ladder import Ladder
    from deploy.artifacts.parity import ParityReport
    from deploy.recipe import Recipe


@click.command("parity", short_help="Compare a model or engine with the float32 model.")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@options.target_option
@options.precision_options
@options.data_options
@options.eval_options
@options.gate_options
@options.preprocess_options
@options.shape_option
@options.recipe_option
@click.option("--url", default="", help="A server that runs the bundle: the last rung.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the figures as JSON.")
@options.json_option
def command(
    reference: Path,
    candidate: Path | None,
    recipe: str | None,
    output: Path | None,
    url: str,
    as_json: bool,
    **flags: Any,
) -> None:
    """Compare CANDIDATE (an engine folder, a bundle or an .onnx) with the model REFERENCE.

    With a bundle its parity ladder is shown too: every stage from the model on (from the fused
    graph, where the bundle is the only argument), its engine, and with --url a server that runs
    it. Exit 3 when a threshold is missed or a stage lost more than it may.
    """
    from deploy.compare import compare, recheck
    from deploy.errors import ParityError
    from deploy.recipe import Recipe

    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    terminal = Terminal()
    terminal.start("parity")
    if candidate is None:
        report = recheck(reference, chosen)
    else:
        report = compare(reference, candidate, chosen, terminal.advance)
    terminal.done("parity", report.verdict(), reused=False)
    _print(report)
    stands_for = _stands_for(candidate or reference)
    if stands_for:
        click.echo(f"simulated: ONNX Runtime ran the graph here; its engine is for {stands_for}")
    climbed = _ladder(reference, candidate, chosen, url)
    if output:
        report.save(output)
    if as_json:
        said = {"simulated": stands_for} if stands_for else {}
        print_json(report.to_json() | said | ({"ladder": climbed.to_json()} if climbed else {}))
    if not report.passed:
        raise ParityError(report.verdict())
    if climbed is not None and climbed.broken:
        raise ParityError(climbed.verdict())


def _stands_for(path: Path) -> str:
    """The device an engine is for, where what runs here only simulates it; "" elsewhere."""
    from deploy.compare import engine_folder, simulated_target

    folder = engine_folder(path)
    return "" if folder is None else simulated_target(folder)


def _ladder(reference: Path, candidate: Path | None, chosen: Recipe, url: str) -> Ladder | None:
    """The ladder of a bundle, printed; None where no bundle was given."""
    from deploy.artifacts.bundle import MANIFEST
    from deploy.cli.ladder import print_ladder
    from deploy.errors import RecipeError
    from deploy.ladder.of_bundle import bundle_ladder

    bundle = candidate or reference
    if not (bundle / MANIFEST).is_file():
        if url:
            raise RecipeError(f"--url {url} needs a bundle: its engine is compared with the server")
        return None
    model = reference if candidate is not None else None
    found = bundle_ladder(bundle, chosen, model=model, url=url)
    print_ladder(found)
    return found


def _print(report: ParityReport) -> None:
    for out in report.outputs:
        agreement = ""
        if out.top1_agreement_pct is not None:
            agreement = f", top-1 agreement {out.top1_agreement_pct:.2f} %"
        click.echo(
            f"{out.name}: {out.sqnr_db:.1f} dB, cosine {out.cosine:.6f}, "
            f"max abs {out.max_abs:.3g}{agreement}"
        )
    if report.predictions and report.predictions.kind != "classify":
        click.echo(report.predictions.line())
    if report.task:
        click.echo(report.task.line())
    for gate in report.gates:
        state = "ok" if gate.passed else "MISSED"
        click.echo(f"{state:<7}{gate.name}: {gate.observed:.4g}, limit {gate.limit:g}")
