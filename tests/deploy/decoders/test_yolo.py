"""The two forms of YOLO's table, and what the options change."""

from __future__ import annotations

import numpy as np
import pytest
from decoder_cases import BOXES, CASES, SCORES, SIZE
from task_cases import spec

from deploy.decoders.yolo import Yolo
from deploy.detection.boxes import likely, relative

TABLE = CASES["yolo"]().outputs["table"]


def test_without_objectness_boxes_are_columns() -> None:
    columns = np.concatenate([TABLE[..., :4], TABLE[..., 5:] * 0.9], axis=2).transpose(0, 2, 1)
    found = Yolo.of([spec("table", 7, 20)], {}).decode({"table": columns}, SIZE)
    assert likely(found, 0.01).scores == pytest.approx(np.array(SCORES), rel=1e-5)


def test_objectness_can_be_denied() -> None:
    rows = np.concatenate([TABLE[..., :4], TABLE[..., 5:] * 0.9], axis=2)
    told = Yolo.of([spec("table", 20, 7)], {"objectness": "false"}).decode({"table": rows}, SIZE)
    assert likely(told, 0.01).scores == pytest.approx(np.array(SCORES), rel=1e-5)


def test_boxes_may_be_parts_of_the_picture_and_corners() -> None:
    table = TABLE.copy()
    table[0, [3, 9], :4] = relative(BOXES, SIZE)
    options = {"pixels": "false", "order": "xyxy"}
    found = likely(Yolo.of([spec("table", 20, 8)], options).decode({"table": table}, SIZE), 0.01)
    assert found.corners == pytest.approx(relative(BOXES, SIZE), abs=1e-6)
