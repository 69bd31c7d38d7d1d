"""Images with boxes: COCO's own layout and one record per image, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibrators.datasets import coco
from calibrators.preprocess import Preprocess
from calibrators.samples import DatasetSpec, InputSpec, Sample
from calibrators.truths import Boxes

SPEC = DatasetSpec((InputSpec("x", (None, 3, 4, 6), np.dtype(np.float32)),))
RECORD = {"width": 12, "height": 8, "boxes": [[0, 2, 6, 8]], "labels": [5]}


def picture(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), (value, 0, 0)).save(path)


def written(path: Path, table: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    return str(path)


def samples(uri: str) -> list[Sample]:
    data = coco.open(uri, SPEC)
    return list(data.read(range(len(data.splits))))


def boxes(sample: Sample) -> Boxes:
    assert isinstance(sample.truth, Boxes)
    return sample.truth


def test_records_with_splits_and_crowds(tmp_path: Path) -> None:
    picture(tmp_path / "b.png", 255)
    picture(tmp_path / "a.png")
    rows = [
        {**RECORD, "file": "b.png", "split": "test", "iscrowd": [1]},
        {**RECORD, "file": "a.png", "split": "calib", "boxes": [], "labels": []},
    ]
    first, second = samples(written(tmp_path / "t.json", {"images": rows}))
    assert [(s.name, s.split, s.label) for s in (first, second)] == [
        ("a.png", "calib", None),
        ("b.png", "test", None),
    ]
    assert second.feeds["x"][0, 0].min() == 1.0
    assert boxes(first).corners.shape == (0, 4)
    assert boxes(second).corners.tolist() == [[0, 0.25, 0.5, 1]]
    assert (boxes(second).classes.tolist(), boxes(second).crowd.tolist()) == ([5], [True])


def test_cocos_own_layout(tmp_path: Path) -> None:
    picture(tmp_path / "val2017" / "7.png")
    table = {
        "images": [{"id": 7, "file_name": "7.png", "width": 12, "height": 8}],
        "annotations": [
            {"image_id": 7, "category_id": 90, "bbox": [3, 2, 6, 4], "iscrowd": 0},
            {"image_id": 7, "category_id": 1, "bbox": [0, 0, 12, 8], "iscrowd": 1},
        ],
        # numbered from 1 with gaps: classes count from 0
        "categories": [{"id": 90, "name": "z"}, {"id": 1, "name": "a"}, {"id": 13, "name": "m"}],
    }
    (one,) = samples(written(tmp_path / "annotations" / "instances_val2017.json", table))
    assert boxes(one).classes.tolist() == [2, 0]
    assert boxes(one).corners.tolist() == [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]]
    assert boxes(one).crowd.tolist() == [False, True]


def test_boxes_lie_where_padding_puts_the_picture(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    uri = written(tmp_path / "t.json", {"images": [{**RECORD, "file": "a.png"}]})
    pre = Preprocess(resize_mode="letterbox", pad_value=255)
    square = DatasetSpec((InputSpec("x", (None, 3, 6, 6), np.dtype(np.float32)),), pre)
    (one,) = coco.open(uri, square).read([0])
    # 12 x 8 becomes 6 x 4 with a row above and below
    assert one.feeds["x"][0, 1, :, 0].tolist() == [1, 0, 0, 0, 0, 1]
    assert boxes(one).corners[0] == pytest.approx([0, (1 + 0.25 * 4) / 6, 0.5, 5 / 6])


@pytest.mark.parametrize("folder", [".", "t", "images"])
def test_where_images_are_looked_for(tmp_path: Path, folder: str) -> None:
    picture(tmp_path / folder / "a.png")
    uri = written(tmp_path / "t.json", {"images": [{**RECORD, "file": "a.png"}]})
    assert len(samples(uri)) == 1


def test_boxes_are_part_of_what_a_sample_is(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [{**RECORD, "file": "a.png"}, {**RECORD, "file": "a.png", "labels": [6]}]
    (one,), (other,) = (samples(written(tmp_path / "t.json", {"images": [row]})) for row in rows)
    assert one.sha256() == other.sha256() and one.identity() != other.identity()
    assert one.identity().split()[0] == one.sha256()


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("{", r"unreadable .*t\.json"),
        ([], r"no list 'images' in .*t\.json"),
        ({"images": []}, r"0 images in .*t\.json"),
        ({"images": [{"file": "a.png"}]}, r"KeyError: 'labels', in .*t\.json; each image needs"),
        ({"images": [{**RECORD, "file": "b.png"}]}, r"no 'b\.png' beside .*t\.json; looked in"),
        ({"images": [{**RECORD, "file": "a.png"}] * 2}, r"'a\.png' twice in"),
        ({"images": [{**RECORD, "file": "a.png", "labels": []}]}, "1 boxes and 0 labels"),
        ({"images": [{**RECORD, "file": "a.png", "labels": [-1]}]}, "no number from 0 up"),
        (
            {"images": [{**RECORD, "file": "a.png"}, {**RECORD, "file": "b/../../o.png"}]},
            r"no 'b/\.\./\.\./o\.png' in",
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, table: Any, reason: str) -> None:
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b" / "x.png")
    picture(tmp_path / "o.png")  # what the last one would reach
    with pytest.raises(ValueError, match=reason):
        coco.open(written(tmp_path / "in" / "t.json", table), SPEC)


def test_a_crop_is_refused(tmp_path: Path) -> None:
    uri = written(tmp_path / "t.json", {"images": []})
    cropped = DatasetSpec(SPEC.inputs, Preprocess(crop=(4, 6)))
    with pytest.raises(ValueError, match="boxes aren't cropped: use --resize"):
        coco.open(uri, cropped)
