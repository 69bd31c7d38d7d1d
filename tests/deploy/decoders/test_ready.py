"""Detections in three outputs, and outputs that don't belong together."""

from __future__ import annotations

import numpy as np
import pytest
from decoder_cases import BOXES, CLASSES, SCORES, SIZE
from task_cases import spec

from deploy.decoders.ready import Ready
from deploy.detection.boxes import relative
from deploy.errors import CalibrationError

SPECS = [spec("boxes", 4), spec("scores"), spec("labels", kind="i8")]
OUTPUTS = {
    "boxes": BOXES.astype("f4"),
    "scores": np.array(SCORES, "f4"),
    "labels": np.array(CLASSES, "i8"),
}
NAMES = {"scores": "scores", "classes": "labels"}


def test_three_outputs() -> None:
    found = Ready.of(SPECS, NAMES).decode(OUTPUTS, SIZE)
    assert found.classes.tolist() == list(CLASSES)
    assert found.corners == pytest.approx(relative(BOXES, SIZE))


def test_other_numbers_and_orders() -> None:
    turned = {
        **OUTPUTS,
        "boxes": OUTPUTS["boxes"][:, [1, 0, 3, 2]],
        "labels": OUTPUTS["labels"] + 1,
    }
    found = Ready.of(SPECS, {**NAMES, "first_class": 1, "order": "yxyx"}).decode(turned, SIZE)
    assert found.classes.tolist() == list(CLASSES)
    assert found.corners == pytest.approx(relative(BOXES, SIZE))


def test_outputs_of_other_lengths() -> None:
    with pytest.raises(CalibrationError, match="2 boxes, 1 scores and 2 classes in boxes, scores"):
        Ready.of(SPECS, NAMES).decode({**OUTPUTS, "scores": np.ones(1, "f4")}, SIZE)
