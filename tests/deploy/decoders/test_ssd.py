"""SSD's offsets from priors, its background, and priors that don't fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoder_cases import BOXES, CASES, SCORES, SIZE, centred
from task_cases import spec

from deploy.decoders.ssd import Ssd
from deploy.detection.boxes import likely, relative
from deploy.errors import CalibrationError, RecipeError

CASE = CASES["ssd"]()
NAMES = {"boxes": "boxes", "scores": "scores"}


def decoded(options: dict[str, object], **outputs: np.ndarray):  # type: ignore[no-untyped-def]
    decoder = Ssd.of(CASE.specs, {**NAMES, **options})
    return likely(decoder.decode({**CASE.outputs, **outputs}, SIZE), 0.01)


def test_offsets_from_priors(tmp_path: Path) -> None:
    priors = np.tile([0.4, 0.5, 0.2, 0.3], (9, 1))
    np.save(tmp_path / "priors.npy", priors)
    wanted = centred(relative(BOXES, SIZE))
    offsets = np.zeros((1, 9, 4), "f4")
    for row, (x, y, width, height) in zip((2, 7), wanted, strict=True):
        offsets[0, row, :2] = (x - 0.4) / 0.2 / 0.1, (y - 0.5) / 0.3 / 0.1
        offsets[0, row, 2:] = np.log(width / 0.2) / 0.2, np.log(height / 0.3) / 0.2
    found = decoded({"priors": str(tmp_path / "priors.npy")}, boxes=offsets)
    assert found.corners == pytest.approx(relative(BOXES, SIZE), abs=1e-6)
    other = Ssd.of(CASE.specs, {**NAMES, "priors": str(tmp_path / "priors.npy")})
    np.save(tmp_path / "priors.npy", priors + 0.1)
    assert repr(Ssd.of(CASE.specs, other.options.model_dump())) != repr(other)


def test_priors_of_another_model(tmp_path: Path) -> None:
    np.save(tmp_path / "few.npy", np.zeros((3, 4)))
    with pytest.raises(CalibrationError, match=r"few\.npy: 3 priors, output 'boxes' has 9 boxes"):
        decoded({"priors": str(tmp_path / "few.npy")})
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(RecipeError, match=r"flat.npy: no array of shape \[priors, 4\]"):
        decoded({"priors": str(tmp_path / "flat.npy")})
    with pytest.raises(RecipeError, match=r"none.npy: unreadable"):
        decoded({"priors": str(tmp_path / "none.npy")})


def test_without_a_background_every_class_counts() -> None:
    scores = np.delete(CASE.outputs["scores"], 0, axis=2)
    found = decoded({"background": -1}, scores=scores)
    assert found.scores == pytest.approx(np.array(SCORES), rel=1e-5)


def test_the_only_boxes_are_found_without_a_name() -> None:
    specs = [spec("a", 9, 21), spec("b", 9, 4)]
    assert (Ssd.of(specs, {}).boxes, Ssd.of(specs, {}).scores) == ("b", "a")
