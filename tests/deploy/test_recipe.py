"""The recipe: TOML and flags in, one validated value out; and the words for what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.errors import RecipeError
from deploy.recipe import Recipe
from deploy.validation import explain


def read(tmp_path: Path, text: str, **flags: Any) -> Recipe:
    file = tmp_path / "recipe.toml"
    file.write_text(text, encoding="utf-8")
    return Recipe.read(str(file), flags)


def test_nothing_given_is_every_default() -> None:
    recipe = Recipe.read(None, {})
    assert recipe == Recipe()
    assert (recipe.target, recipe.precision, recipe.samples) == ("cpu", None, 300)


def test_flags_override_the_file_and_none_is_not_given(tmp_path: Path) -> None:
    recipe = read(tmp_path, 'target = "rpi3"\nsamples = 7\n', samples=9, target=None)
    assert (recipe.target, recipe.samples) == ("rpi3", 9)


def test_every_kind_of_value(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        """
        precision = "int8"
        batch = "dynamic"
        resize = [40, 30]
        mean = 0.5
        std = [0.2, 0.3, 0.4]
        [shape]
        x = [-1, 3, "?", 480]
        ids = [2]
        [data_key]
        x = "images"
        """,
    )
    assert (recipe.precision, recipe.batch) == ("int8", "dynamic")
    assert recipe.shape == {"x": (None, 3, None, 480), "ids": (2,)}
    assert (recipe.resize, recipe.mean, recipe.std) == ((40, 30), (0.5,), (0.2, 0.3, 0.4))
    assert recipe.data_key == {"x": "images"}


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Recipe().samples = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "sampels = 3",
            r"unknown key 'sampels' \(did you mean 'samples'\?\); allowed: approximate, ",
        ),
        ("samples = 0", "samples = 0: should be greater than or equal to 1"),
        ('samples = "ten"', "samples = 'ten': should be a valid integer"),
        ("samples = 1.5", "samples = 1.5: should be a valid integer"),
        ("eval_samples = -1", "eval_samples = -1: should be greater"),
        ("batch_size = 0", "batch_size = 0: should be greater"),
        ("batch = 0", "batch = 0: should be greater than or equal to 1 or should be 'dynamic'"),
        ("batch = -3", "batch = -3: should be greater than or equal to 1"),
        ('batch = "free"', "batch = 'free': should be a valid integer.* or should be 'dynamic'"),
        (
            'precision = "int4"',
            "precision = 'int4': should be 'fp32', 'fp16', 'bf16', 'int8' or 'fp8'",
        ),
        ('task = "detct"', "task = 'detct': should be one of auto, none, classify, detect, "),
        ('layout = "CHW"', "layout = 'CHW': should be 'NCHW' or 'NHWC'"),
        ('color = "rgb"', "color = 'rgb': should be 'RGB', 'BGR' or 'GRAY'"),
        ("max_drop = 101", "max_drop = 101: should be less than or equal to 100"),
        ("max_drop = nan", "max_drop = nan: should be"),
        ("max_drop = -0.1", "max_drop = -0.1: should be greater than or equal to 0"),
        ('mean = "half"', "mean = 'half': should be a valid tuple"),
        ("data_key = 3", "data_key = 3: should be a valid dictionary"),
        ("shape = 3", "shape = 3: should be a valid dictionary"),
        ("[shape]\nx = 3", "shape.x = 3: should be a valid tuple"),
        ('[shape]\nx = "1,3"', "shape.x = '1,3': should be a valid tuple"),
        ('[shape]\nx = [1, "big"]', "shape.x = 'big': should be a valid integer"),
        ("samples = ", "not valid TOML: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=f"^.*recipe.toml: {reason}"):
        read(tmp_path, text)


def test_an_impossible_combination_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe.toml: "):
        read(tmp_path, "std = [0.0, 1.0, 1.0]")


def test_a_wrong_flag_is_blamed_on_the_flags() -> None:
    with pytest.raises(RecipeError, match=r"^flags: samples = 0: "):
        Recipe.read(None, {"samples": 0})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"none.toml: No such file or directory; give an existing"
    ):
        Recipe.read(str(tmp_path / "none.toml"), {})
    with pytest.raises(RecipeError, match="Is a directory; give an existing recipe file"):
        Recipe.read(str(tmp_path), {})


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not valid TOML: 'utf-8' codec"):
        Recipe.read(str(tmp_path / "r.toml"), {})


# ---- the words, on a model with nested tables


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int
    kind: int | str = 0


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner | None = None
    table: Inner = Inner(size=1)
    many: dict[str, Inner] = {}
    plain: dict[str, float] = {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"table": {}}, "table.size is missing"),
        ({"table": {"size": "x"}}, "table.size = 'x': should be a valid integer"),
        (
            {"table": {"size": 1, "sise": 2}},
            "unknown key 'table.sise' (did you mean 'size'?); allowed: kind, size",
        ),
        ({"many": {"a": {}}}, "many.a.size is missing"),
        (
            {"many": {"a": {"size": 1, "zzz": 2}}},
            "unknown key 'many.a.zzz'; allowed: kind, size",
        ),
        ({"plain": {"a": "x"}}, "plain.a = 'x': should be a valid number"),
        ({"table": {"size": 1, "kind": []}}, "table.kind = []: should be a valid integer or"),
    ],
)
def test_words_for_nested_tables(value: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(value)
    assert explain(caught.value, Outer).startswith(words)
