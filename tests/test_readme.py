"""The commands of the README and of the examples' READMEs run as they stand."""

from __future__ import annotations

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest

from deploy.cli import cli, run
from deploy.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent
# a folder outside the repository holds the real models; these lines only show the form
_PLACEHOLDERS = ("model.onnx", "samples/")


def commands(readme: Path) -> list[str]:
    """Every line that starts with `deploy`, or with `$ deploy` in a transcript."""
    text = readme.read_text(encoding="utf-8")
    found = re.findall(
        r"^\s*(?:\$ )?(deploy (?:build|verify|analyze|doctor) .*)$", text, flags=re.MULTILINE
    )
    return [line for line in found if not any(word in line for word in _PLACEHOLDERS)]


def test_the_readmes_have_commands() -> None:
    assert len(commands(ROOT / "README.md")) == 5
    assert len(commands(ROOT / "examples/digits/README.md")) == 1


@pytest.mark.parametrize("readme", ["README.md", "examples/digits/README.md"])
def test_commands_run(
    readme: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    for line in commands(ROOT / readme):
        assert run(shlex.split(line)[1:]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "accuracy   fp32 99.26 %" in out
    assert "report     digits-cpu-int8/report.html" in out
    assert (tmp_path / "digits-cpu-int8/report.html").stat().st_size > 1_000_000


def test_every_command_is_in_the_table() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `deploy (\w+)", text, flags=re.MULTILINE))
    assert listed == set(cli.commands)


def test_every_flag_named_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(--[a-z][a-z0-9-]*)", text))
    known = {o for c in cli.commands.values() for p in c.params for o in p.opts} | {"--help"}
    assert len(named) > 10
    assert named <= known


def test_the_recipe_shown_is_valid() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = tomllib.loads(re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)[0])
    recipe = Recipe.read(None, table)
    assert recipe.crop == (224, 224)
    assert recipe.max_drop == 0.5


def test_links_lead_somewhere() -> None:
    for readme in ("README.md", "CONTRIBUTING.md", "plugins/README.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / readme).parent / link).exists(), f"{readme}: {link}"
