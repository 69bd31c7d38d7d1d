"""`deploy verify`: is a bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path

import click

from deploy.cli import options
from deploy.cli.terminal import print_json


@click.command("verify", short_help="Recheck every hash of a bundle and name what changed.")
@click.argument("bundle", type=click.Path(path_type=Path))
@options.json_option
def command(bundle: Path, as_json: bool) -> None:
    """Recheck every file of BUNDLE against its manifest; exit 1 when anything differs."""
    from deploy.artifacts.bundle import Bundle
    from deploy.errors import BundleError

    loaded = Bundle.load(bundle)
    problems = loaded.problems()
    for problem in problems:
        click.echo(problem)
    status = loaded.manifest["status"]
    if as_json:
        print_json({"bundle": str(bundle), "status": status, "problems": problems})
    if problems:
        count = f"{len(problems)} file{'s' if len(problems) > 1 else ''}"
        raise BundleError(f"{bundle}: {count} not as built; build it again or copy it again")
    if not as_json:
        click.echo(f"{bundle}: {len(loaded.manifest['files'])} files as built, status {status}")
