"""`deploy plugins`: the custom operators there are, their kernels compiled, and checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploy.cli import options
from deploy.cli.terminal import print_json

if TYPE_CHECKING:
    from deploy.target import Target

_names_argument = click.argument("names", nargs=-1, metavar="[NAME]...")


@click.group(
    "plugins",
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Custom operators: list them, compile or check their kernels.",
)
def command() -> None:
    """The custom operators of `plugins/` and of your own folders."""


@command.command("list")
@options.plugin_path_option
@options.json_option
def list_plugins(plugin_path: tuple[str, ...], as_json: bool) -> None:
    """List every plugin, what it has, and which targets use it."""
    from deploy.errors import RecipeError
    from deploy.plugin.listing import rows

    _add(plugin_path)
    found = rows()
    for row in found:
        click.echo(f"{row.name:<18} {row.op:<18} {row.folder}")
        click.echo(f"{'':<18} has: {', '.join(row.parts) or 'nothing that loads'}")
        click.echo(f"{'':<18} used by: {', '.join(row.targets) or 'no built-in target'}")
    if as_json:
        print_json({"plugins": [row.as_json() for row in found]})
    broken = [row.problem for row in found if row.problem]
    if broken:
        raise RecipeError("; ".join(broken))


@command.command("build")
@_names_argument
@click.option(
    "--for",
    "library",
    required=True,
    type=click.Choice(["openvino", "tensorrt"]),
    help="What is to load the kernels.",
)
@options.target_option
@options.plugin_path_option
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@options.json_option
def build_plugins(
    names: tuple[str, ...],
    library: str,
    target: str | None,
    plugin_path: tuple[str, ...],
    output: Path,
    as_json: bool,
) -> None:
    """Compile the kernels of the plugins NAME (all that have some) into a folder."""
    from deploy.errors import RecipeError
    from deploy.plugin.build import OPENVINO_SOURCE, build_openvino, build_tensorrt, tensorrt_source

    _add(plugin_path)
    nvidia = None if target is None else _device(target).engine.nvidia
    if library == "tensorrt" and nvidia is None:
        given = "without --target" if target is None else f"but {target} is no NVIDIA device"
        raise RecipeError(f"--for tensorrt {given}; give the NVIDIA device: --target orin")
    source = OPENVINO_SOURCE if nvidia is None else tensorrt_source(nvidia)
    chosen = list(names) or _all_with(OPENVINO_SOURCE if library == "openvino" else source)
    output.mkdir(parents=True, exist_ok=True)
    if library == "openvino":
        made = [build_openvino(name, output) for name in chosen]
    else:
        assert nvidia is not None
        made = [build_tensorrt(chosen, nvidia, output)]
    for path in made:
        click.echo(f"{path}: {path.stat().st_size} bytes")
    if as_json:
        print_json({"output": [str(path) for path in made], "plugins": chosen})


@command.command("check")
@_names_argument
@options.target_option
@options.plugin_path_option
@options.json_option
def check_plugins(
    names: tuple[str, ...], target: str | None, plugin_path: tuple[str, ...], as_json: bool
) -> None:
    """Check the plugins NAME (all of them): every kernel that can run here against the truth.

    With --target, CUDA and TensorRT parts are compiled for that device. Exit 1 when a check fails.
    """
    from dataclasses import asdict

    from deploy import registry
    from deploy.errors import BuildError
    from deploy.plugin.check import check

    _add(plugin_path)
    device = None if target is None else _device(target)
    found = [row for name in names or registry.names("plugin") for row in check(name, device)]
    for row in found:
        click.echo(f"{row.plugin:<18} {row.what:<16} {row.outcome:<12} {row.detail}")
    if as_json:
        print_json({"findings": [asdict(row) for row in found]})
    failed = [row for row in found if row.outcome == "failed"]
    if failed:
        raise BuildError(
            f"{len(failed)} of {len(found)} checks failed, the first: {failed[0].plugin}, "
            f"{failed[0].what}: {failed[0].detail}"
        )


def _add(folders: tuple[str, ...]) -> None:
    from deploy.registry import add_plugin_path

    for folder in folders:
        add_plugin_path(Path(folder))


def _device(name: str) -> Target:
    from deploy.target import Target

    return Target.load(name)


def _all_with(source: str) -> list[str]:
    """The plugins that have that source; RecipeError when none has."""
    from deploy import registry
    from deploy.errors import RecipeError

    found = [
        n
        for n in registry.names("plugin")
        if (registry.path("plugin", n).parent / source).is_file()
    ]
    if not found:
        raise RecipeError(f"no plugin has a {source}; plugins/README.md says what goes into it")
    return found
