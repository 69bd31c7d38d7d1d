"""precision.json: saved, loaded, and refused when it is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.artifacts.precision import (
    LayerNoise,
    PrecisionChoice,
    Tried,
    load_noise,
    save_noise,
)
from deploy.errors import BuildError

NOISE = LayerNoise("conv1", "Conv", "x", -31.5, -28.0, 32)
CHOICE = PrecisionChoice(
    "all",
    "measured",
    True,
    (Tried("all", "everything", 3, 0, 0.5, None, 100, True, 31.0, 0.25, "passed"),),
    (NOISE,),
    {"conv9": "asked for"},
)


def test_round_trip(tmp_path: Path) -> None:
    CHOICE.save(tmp_path / "precision.json")
    assert PrecisionChoice.load(tmp_path / "precision.json") == CHOICE
    save_noise([NOISE], tmp_path / "noise.json")
    assert load_noise(tmp_path / "noise.json") == (NOISE,)


@pytest.mark.parametrize("text", ["", "{}", '{"chosen": "all"}', "[1]"])
def test_damage_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "precision.json"
    file.write_text(text)
    with pytest.raises(BuildError, match=r"precision.json: damaged .*--fresh"):
        PrecisionChoice.load(file)
    file.write_text("{" if text == "{}" else text or "[[]]")
    if text != "{}":
        return
    with pytest.raises(BuildError, match="damaged"):
        load_noise(file)


def test_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="No such file"):
        PrecisionChoice.load(tmp_path / "precision.json")
