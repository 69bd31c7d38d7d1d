"""`deploy doctor`: can this target take this model, and what would the build do to it?"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.cli import options
from deploy.cli.terminal import print_json

if TYPE_CHECKING:
    from deploy.doctor.case import Finding
    from deploy.doctor.diagnosis import Diagnosis, Rewritten
    from deploy.doctor.dla_segments import Segments
    from deploy.doctor.forecast import Forecast

_WIDTH = 100
_TITLES = {"stop": "in the way", "warning": "to look at", "note": "to know"}
_MOST_REASONS = 5


@click.command("doctor", short_help="What a target can't take, before anything is calibrated.")
@click.argument("model", type=click.Path(path_type=Path))
@options.target_option
@options.precision_options
@options.shape_option
@options.batch_option
@options.preprocess_options
@options.plugin_path_option
@options.fusion_path_option
@options.json_option
def command(model: Path, as_json: bool, **flags: Any) -> int:
    """Say whether a target takes MODEL, and what the build would do to it; exit 1 for no.

    Nothing is calibrated or built for the device: operators, types, opset and shapes are compared
    with what the target's software is known to read, a DLA's layers with its limits. Give the flags
    that `deploy build` will get.
    """
    from deploy.doctor.diagnosis import doctor
    from deploy.recipe import Recipe
    from deploy.target import Target, with_batch

    recipe = Recipe.read(None, options.recipe_flags(flags))
    target = with_batch(Target.load(recipe.target), recipe.batch)
    images = recipe.preprocess() if recipe.fold_input else None
    found = doctor(model, target, shapes=recipe.shape, precision=recipe.precision, images=images)
    for line in _lines(found):
        click.echo(line)
    if as_json:
        print_json(found.as_json())
    return 0 if found.go else 1


def _lines(found: Diagnosis) -> Iterable[str]:
    from deploy.nvidia.settings import RUNGS
    from deploy.precisions import in_words
    from deploy.target_page import proven, remains

    verdict = "go" if found.go else "no-go"
    yield f"{found.model} on {found.target.name}, {found.precision}: {verdict}"
    for level, title in _TITLES.items():
        yield from _findings(title, [f for f in found.findings if f.level == level])
    if found.rewrites:
        yield from _block("the build rewrites", [_rewritten(found.rewrites)])
    if found.segments is not None:
        yield from _block("DLA, predicted", _segments(found.segments))
    if found.forecast is not None:
        kind = in_words(found.precision)
        yield from _block(f"{kind}, predicted", _forecast(found.forecast, kind))
    rung, done = proven(found.target)
    words = RUNGS[rung]
    yield from _block("target", [f"{words[0].upper()}{words[1:]}. {done}"])
    if found.go:
        yield from _block("remains after the build", [remains(found.target)])


def _findings(title: str, found: list[Finding]) -> Iterable[str]:
    return _block(title, [finding.text for finding in found])


def _block(title: str, texts: Iterable[str]) -> Iterable[str]:
    """A heading, and every text wrapped below it."""
    listed = list(texts)
    if not listed:
        return
    yield ""
    yield title
    for text in listed:
        yield from textwrap.wrap(
            text,
            _WIDTH,
            initial_indent="  - ",
            subsequent_indent="    ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _rewritten(rewrites: Iterable[Rewritten]) -> str:
    return ", ".join(f"{row.rule} {row.count}" for row in rewrites)


def _segments(found: Segments) -> list[str]:
    layers = sum(len(part.layers) for part in found.parts)
    parts = f"{found.loadables} part{'s' if found.loadables != 1 else ''}"
    changes = f"{found.transitions} change{'s' if found.transitions != 1 else ''}"
    said = f"{found.on_dla} of {layers} layers on the DLA in {parts}, {changes} to and from the GPU"
    return [said, *_reasons("on the GPU", found.refused)]


def _forecast(found: Forecast, kind: str) -> list[str]:
    from deploy.report.units import duration

    if found.why_none:
        return [found.why_none]
    said = [f"{found.int8} of {found.int8 + found.other} layers that multiply are placed in {kind}"]
    times = ", ".join(f"{name} {duration(ms)}" for name, ms in found.ms.items())
    if times:
        said.append(f"roofline, a bound without caches and launches: {times}")
    return said + _reasons("stay float", found.reasons)


def _reasons(what: str, reasons: Mapping[str, str]) -> list[str]:
    """The layers of each reason, the most frequent reason first."""
    from deploy.doctor.case import some

    by_reason: dict[str, list[str]] = {}
    for layer, reason in reasons.items():
        by_reason.setdefault(reason, []).append(layer)
    ordered = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    said = [f"{what}, {len(names)}: {why} ({some(names)})" for why, names in ordered]
    if len(said) > _MOST_REASONS:
        rest = sum(len(names) for _, names in ordered[_MOST_REASONS:])
        said = [*said[:_MOST_REASONS], f"{what} for other reasons, {rest}; --json lists them"]
    return said
