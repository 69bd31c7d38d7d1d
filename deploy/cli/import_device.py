"""`deploy import`: what finish.py found on the device, into the bundle."""

from __future__ import annotations

from pathlib import Path

import click

from deploy.cli import options
from deploy.cli.terminal import print_json


@click.command("import", short_help="Take what finish.py found on the device into its bundle.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@options.json_option
def command(bundle: Path, folder: Path, as_json: bool) -> None:
    """Check FOLDER, BUNDLE's device/ folder as it came back, and merge it into BUNDLE's report.

    Refused when a version, a compute capability or any file differs from what was sent. Exit 3
    when the device missed a gate.
    """
    import json

    from deploy.nvidia.import_device import import_device

    made = import_device(bundle, folder)
    found = json.loads((made.folder / "device_report.json").read_text(encoding="utf-8"))
    device, latency = found["device"], found.get("latency") or {}
    weakest = min(row["sqnr_db"] for row in found["parity"]["outputs"])
    click.echo(
        f"proven     ran on the device: {device.get('name')}, {device.get('library')} "
        f"{device.get('version')}"
    )
    click.echo(f"parity     {weakest:.1f} dB on {found['parity']['samples']} samples there")
    if latency:
        click.echo(f"latency    {latency['median_ms']:.3f} ms (median, on the device)")
    click.echo(f"report     {made.folder / 'report.html'}")
    if as_json:
        results = made.manifest["results"]
        print_json({"bundle": str(made.folder), "results": results, "device": found})
