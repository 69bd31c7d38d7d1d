"""`deploy build`: the whole line, from a model to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli import options
from deploy.cli.terminal import Terminal, print_json

if TYPE_CHECKING:
    from deploy.artifacts.bundle import Bundle
    from deploy.artifacts.precision import PrecisionChoice


@click.command("build", short_help="The whole line: model in, proven engine and report out.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.precision_options
@options.data_options
@options.eval_options
@options.calibrator_options
@click.option("--ranges", metavar="FILE", help="Reuse a ranges.json; refused if it doesn't match.")
@options.shape_option
@options.batch_option
@options.plugin_path_option
@options.fusion_path_option
@options.gate_options
@options.int8_options
@options.workers_option
@options.preprocess_options
@options.recipe_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the bundle.")
@click.option("--fresh", is_flag=True, help="Ignore what an earlier, interrupted build finished.")
@options.json_option
def command(
    model: Path, recipe: str | None, output: Path | None, fresh: bool, as_json: bool, **flags: Any
) -> None:
    """Build MODEL for a target: simplify, fuse, calibrate, quantize, compile, prove, package."""
    from deploy.artifacts.bundle import Bundle
    from deploy.errors import ParityError
    from deploy.pipeline import Job, deploy_model, precision_of
    from deploy.recipe import Recipe
    from deploy.target import Target

    chosen = Recipe.read(recipe, options.recipe_flags(flags))
    target = Target.load(chosen.target)
    precision = precision_of(chosen, target)
    folder = output or Path(f"{model.stem}-{target.name}-{precision}")
    words = ["deploy", *(click.get_current_context().obj or ())]
    job = Job(model, chosen, folder, words, fresh, Terminal())
    click.echo(f"{model} -> {target.name} ({target.title}), {precision}", err=True)
    try:
        _print(deploy_model(job), as_json)
    except ParityError as error:
        # the figures are wanted most where they miss a gate
        if error.evidence is not None:
            _print(Bundle.load(error.evidence), as_json)
        raise


def _print(bundle: Bundle, as_json: bool) -> None:
    for line in summary(bundle):
        click.echo(line)
    if as_json:
        print_json({"bundle": str(bundle.folder), **bundle.manifest["results"]})


def summary(bundle: Bundle) -> list[str]:
    """The bundle's results in a few lines."""
    results = bundle.manifest["results"]
    lines = []
    device = results.get("device")
    absent = device is not None and bool(device["absent"])
    what = "simulated" if absent else "engine"
    task = results["accuracy"]
    if task and task.get("kind", "classify") == "classify":
        lines.append(
            f"accuracy   fp32 {task['reference_pct']:.2f} %, {what} {task['engine_pct']:.2f} %, "
            f"drop {task['drop']:.2f} ± {task['drop_error']:.2f} points "
            f"on {task['samples']} samples"
        )
    lines += _task(bundle)
    lines.append(f"parity     {results['verdict']}{', simulated' if absent else ''}")
    measured = results["latency"]
    if absent:
        return [*lines, *_chosen(bundle), *_remains(bundle, device)]
    latency = ", ".join(f"{name} {row['median_ms']:.3f} ms" for name, row in measured.items())
    where = "" if results["on_target"] else f", on this machine, not on {bundle.manifest['target']}"
    if any(row.get("of_device") for row in measured.values()):
        where = f", GPU time{where}"
    lines.append(f"latency    {latency} (median, interleaved{where})")
    slower = _slower(bundle, measured, results["precision"])
    if slower and results["on_target"]:
        lines.append(slower)
    lines += _chosen(bundle)
    lines.append(f"report     {bundle.folder / 'report.html'}")
    return lines


def _task(bundle: Bundle) -> list[str]:
    """The figures of a task other than classes; nothing where there is none."""
    from deploy.artifacts.parity import ParityReport

    path = bundle.folder / "parity" / "parity.json"
    report = ParityReport.load(path) if path.is_file() else None
    if report is None or report.predictions is None or report.predictions.kind == "classify":
        return []
    accuracy = [f"accuracy   {report.task.line()}"] if report.task else []
    return [*accuracy, f"agreement  {report.predictions.line()}"]


def _remains(bundle: Bundle, device: dict[str, Any]) -> list[str]:
    """What is left to do where the device isn't this machine."""
    title = bundle.manifest["results"]["target_title"]
    remains = (
        f"remains    copy {bundle.folder / 'device'} to the device ({title}), run `python3 "
        f"finish.py` in it, then `deploy import {bundle.folder} FOLDER` here"
    )
    return [
        f"proven     {device['proven']}; judged here by simulation: {device['absent']}",
        remains,
        f"report     {bundle.folder / 'report.html'}",
    ]


def _chosen(bundle: Bundle) -> list[str]:
    """Which engine an INT8 build ships, and why; nothing where there was nothing to choose."""
    choice = _choice(bundle)
    return [] if choice is None else [f"precision  {choice.chosen}: {choice.reason}"]


def _choice(bundle: Bundle) -> PrecisionChoice | None:
    from deploy.artifacts.precision import PrecisionChoice

    path = bundle.folder / "precision.json"
    return PrecisionChoice.load(path) if path.is_file() else None


def _slower(bundle: Bundle, measured: dict[str, Any], precision: str) -> str | None:
    """Say so when a float engine is as fast as the one that was built."""
    from deploy.artifacts.precision import missed_gate
    from deploy.bench import compared

    found = compared({name: row["median_ms"] for name, row in measured.items()}, precision)
    text = found.words(precision) if found else ""
    if not found or not text or (found.tie and precision not in ("int8", "fp8")):
        return None
    choice = _choice(bundle)
    outcomes = {row.name: row.outcome for row in choice.tried} if choice is not None else {}
    missed = missed_gate(found.other, outcomes)
    return f"note       {text}{f', which {missed}' if missed else f'; consider --{found.other}'}"
