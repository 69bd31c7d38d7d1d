"""Fusions of the user's own: found like the built-in ones, never in their place."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import assert_fuses, assert_skips, model_from

from deploy import registry
from deploy.errors import RecipeError
from deploy.fuse import fuse
from deploy.no_effect import unnamed_fusions
from deploy.recipe import Recipe
from deploy.target import Target
from deploy.work import tool_versions

RULE = Path(__file__).resolve().parents[2] / "examples" / "03_add_a_fusion" / "drop_relu.py"


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_fusions", {})


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / f"{name}.py"
    file.write_text(text, encoding="utf-8")
    return file


def test_it_fuses_like_one_of_ours() -> None:
    registry.add_fusion_path(RULE)
    text = "g (float[N,3] x) => (float[N,3] y) <float a = {%s}> { r = Relu(x) y = Clip(r, a) }"
    assert_fuses(model_from(text % 0), "drop_relu", ["Clip"], rtol=0)
    assert_skips(model_from(text % -1), "drop_relu", "down to -1")


def test_a_target_of_ones_own_names_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('extends = "cpu"\nfusions = ["drop_relu"]\n')
    mine = str(tmp_path / "mine.toml")
    with pytest.raises(RecipeError, match=r"mine\.toml: unknown fusion .*--fusion-path takes"):
        Target.load(mine)
    Recipe.read(None, {"fusion_path": (str(RULE),)})
    assert Target.load(mine).fusions == ("drop_relu",)


def test_given_twice_is_given_once() -> None:
    registry.add_fusion_path(RULE)
    registry.add_fusion_path(RULE.parent / "." / RULE.name)
    assert registry.added_fusions() == [RULE]


def test_changing_it_redoes_what_was_built(tmp_path: Path) -> None:
    before = tool_versions()["code"]
    file = written(tmp_path, "nothing", "def nothing(node): return None\n")
    registry.add_fusion_path(file)
    added = tool_versions()["code"]
    file.write_text("def nothing(node): ...\n", encoding="utf-8")
    assert len({before, added, tool_versions()["code"]}) == 3


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("fold_pad", "def fold_pad(node): ...\n", r"there is a fusion 'fold_pad' already, /"),
        ("mine", "def other(node): ...\n", r"mine\.py: has no function mine\(node\); name the two"),
        ("mine", "import nowhere_at_all\n", r"mine\.py:1: ModuleNotFoundError: .*has to import"),
    ],
)
def test_refused(name: str, text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=reason):
        registry.add_fusion_path(written(tmp_path, name, text))
    assert registry.added_fusions() == []


@pytest.mark.parametrize("given", ["", "none.py", "notes.txt"])
def test_no_python_file(given: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RecipeError, match=r"no such Python file; --fusion-path takes <name>\.py"):
        registry.add_fusion_path(tmp_path / given)


INVALID = """
from deploy.surgery.rewrite import New, Replace
def bad(node):
    if node.op == 'Relu':
        new = New('Nonsense', tuple(node.inputs), tuple(node.outputs))
        return Replace((node,), (new,), 'why')
"""
MODEL = "g (float[1,3] x) => (float[1,3] y) { r = Relu(x) y = Identity(r) }"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def bad(node):\n    return 1 / 0\n", r"bad\.py:2: .*ZeroDivisionError: division by zero"),
        (
            "def bad():\n    return None\n",
            r"bad\.py: fusion 'bad' failed: TypeError: bad\(\) takes 0",
        ),
        ("def bad(node):\n    return 42\n", "it gave 42 for node .*give Replace, Skip"),
        ("import sys\ndef bad(node):\n    sys.exit(3)\n", r"bad\.py:3: .*SystemExit: 3"),
        (
            "from deploy.surgery.rewrite import Skip\ndef bad(node): return Skip(None)\n",
            r"it gave Skip\(reason=None\)",
        ),
        (
            INVALID,
            "fusion 'bad' failed: ModelError: .*Nonsense",
        ),
    ],
)
def test_its_mistakes_are_its_own(tmp_path: Path, text: str, reason: str) -> None:
    registry.add_fusion_path(written(tmp_path, "bad", text))
    with pytest.raises(RecipeError, match=reason) as raised:
        fuse(model_from(MODEL), ["bad"])
    assert "mend it, or take it out of the target's fusions" in str(raised.value)


def test_a_target_that_does_not_name_it_is_said() -> None:
    recipe = Recipe.read(None, {"fusion_path": (str(RULE),)})
    (line,) = unnamed_fusions(recipe, Target.load("cpu"))
    assert line.startswith("--fusion-path: target cpu doesn't name 'drop_relu', so it never ran")
    named = Target.load("cpu").model_copy(update={"fusions": ("drop_relu",)})
    assert list(unnamed_fusions(recipe, named)) == []
