"""What is special about folders of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibrators.datasets import images
from calibrators.preprocess import Preprocess
from calibrators.samples import DatasetSpec, InputSpec
from calibrators.truths import LabelMap, Text


def save(path: Path, color: tuple[int, int, int] = (10, 20, 30), size: Any = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def model(*shape: int | None, dtype: str = "float32", **fields: Any) -> DatasetSpec:
    return DatasetSpec((InputSpec("x", shape, np.dtype(dtype)),), Preprocess(**fields))


def names(folder: Path, spec: DatasetSpec) -> list[str]:
    data = images.open(str(folder), spec)
    return [sample.name for sample in data.read(range(len(data.splits)))]


def test_sorted_by_relative_path_hidden_and_other_files_left_out(
    tmp_path: Path, spec: DatasetSpec
) -> None:
    for name in ("b.png", "a/z.JPG", "a.bmp", "c/d/e.webp", "f.jpeg", ".hidden.png", ".x/y.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert names(tmp_path, spec) == ["a.bmp", "a/z.JPG", "b.png", "c/d/e.webp", "f.jpeg"]


def test_pixels(tmp_path: Path) -> None:
    save(tmp_path / "a.png", (10, 20, 30))
    spec = model(None, 3, 4, 6, color="BGR", scale=1, mean=(1, 2, 3), std=(2, 2, 2))
    (sample,) = images.open(str(tmp_path), spec).read([0])
    x = sample.feeds["x"]
    assert x.shape == (1, 3, 4, 6) and x[0, :, 3, 5].tolist() == [29 / 2, 18 / 2, 7 / 2]


def test_labels_csv_lists_labels_splits_and_the_only_files(
    tmp_path: Path, spec: DatasetSpec
) -> None:
    for name in ("b.png", "images/a.png", "unlisted.png"):
        save(tmp_path / name)
    # a byte order mark and a column nobody asked for
    (tmp_path / "labels.csv").write_text(
        "file,name,label,split\nb.png,bee,7,test\na.png,ant,0,\n", encoding="utf-8-sig"
    )
    data = images.open(str(tmp_path), spec)
    assert list(data.splits) == [None, "test"]
    assert [(s.name, s.label, s.split) for s in data.read([0, 1])] == [
        ("a.png", 0, None),
        ("b.png", 7, "test"),
    ]


def test_without_resize_and_crop_images_take_the_models_size(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(9, 7))
    (sample,) = images.open(str(tmp_path), model(1, 3, 4, 6)).read([0])
    assert sample.feeds["x"].shape == (1, 3, 4, 6)
    (sample,) = images.open(str(tmp_path), model(1, 4, 6, 3, layout="NHWC")).read([0])
    assert sample.feeds["x"].shape == (1, 4, 6, 3)


def test_without_resize_a_free_size_leaves_images_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(9, 7))
    (sample,) = images.open(str(tmp_path), model(None, 3, None, None)).read([0])
    assert sample.feeds["x"].shape == (1, 3, 7, 9)


def test_float16_models_get_float16(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (sample,) = images.open(str(tmp_path), model(1, 3, 4, 6, dtype="float16")).read([0])
    assert sample.feeds["x"].dtype == np.float16


def test_reading_opens_one_image_at_a_time(tmp_path: Path, spec: DatasetSpec) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"broken")
    reading = images.open(str(tmp_path), spec).read([0, 1])
    assert next(reading).name == "a.png"
    with pytest.raises(ValueError, match=r"unreadable image .*b\.png"):
        next(reading)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_truncated_images_are_named(tmp_path: Path, spec: DatasetSpec, suffix: str) -> None:
    rng = np.random.default_rng(1)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"unreadable image .*a\.{suffix} \(.+\); replace it"):
        list(images.open(str(tmp_path), spec).read([0]))


def test_16_bit_images_are_named(tmp_path: Path, spec: DatasetSpec) -> None:
    Image.fromarray(np.full((4, 6), 60000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"mode I;16 has over 8 bits .*at .*deep\.png"):
        list(images.open(str(tmp_path), spec).read([0]))


def test_an_empty_folder_is_ours_to_refuse(tmp_path: Path, spec: DatasetSpec) -> None:
    assert images.accepts(str(tmp_path))
    with pytest.raises(ValueError, match=r"0 images in .*; put in files named \.bmp, \.jpeg"):
        images.open(str(tmp_path), spec)


def test_a_folder_with_images_and_npz_files_is_ours(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    assert not images.accepts(str(tmp_path))
    save(tmp_path / "sub" / "a.png")
    assert images.accepts(str(tmp_path))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("file,label\n", r"0 images in .*labels\.csv"),
        ("file,words,split\na.png,x,test\n", r"columns file, words, split in .*; label missing"),
        ("a.png,3\n", r"columns a\.png, 3 in .*; file and label missing"),
        ("", r"columns \(none\) in .*; file and label missing"),
        ("file,label\na.png,cat\n", r"label 'cat' at .*labels\.csv line 2; allowed: an integer"),
        ("file,label\na.png,-1\n", r"label '-1' at .*line 2"),
        ("file,label\na.png,1.0\n", r"label '1\.0' at .*line 2"),
        ("file,label\na.png\n", r"label '' at .*line 2"),
        ("file,label\nb.png,1\n", r"'b\.png' at .*line 2 is no file; looked for .* and .*images"),
        ("file,label\n,1\n", r"'' at .*line 2 is no file"),
        ("file,label\na.png,1\n./a.png,2\n", r"'a\.png' twice in .*, again at line 3"),
        ("file,label\n../a.png,1\n", r"'\.\./a\.png' at .*line 2 leaves the folder"),
        ("file,label\nsub/../../a.png,1\n", r"'sub/\.\./\.\./a\.png' at .* leaves the folder"),
        ("file,label\n/etc/passwd,1\n", r"'/etc/passwd' at .* leaves the folder"),
        ("file,label\né.png,1\n".encode("latin-1"), r"unreadable .*labels\.csv .*UTF-8"),
    ],
)
def test_labels_csv_mistakes(
    tmp_path: Path, spec: DatasetSpec, table: str | bytes, reason: str
) -> None:
    save(tmp_path / "inner" / "a.png")
    save(tmp_path / "a.png")  # what ../a.png would reach
    data = table if isinstance(table, bytes) else table.encode()
    (tmp_path / "inner" / "labels.csv").write_bytes(data)
    with pytest.raises(ValueError, match=reason) as caught:
        images.open(str(tmp_path / "inner"), spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (model(1, 1, 4, 6), r"3 channels of color RGB .* takes 1 .* pass --color GRAY"),
        (model(1, 3, 4, 6, color="GRAY"), r"1 channels of color GRAY .* pass --color RGB"),
        (model(1, 4, 6, 3), r"3 channels .* takes 4 in \[1, 4, 6, 3\]: pass --layout NHWC"),
        (model(1, 3, 4, 6, layout="NHWC"), r"takes 6 in \[1, 3, 4, 6\]: pass --layout NCHW"),
        (model(1, 9, 4, 6), r"takes 9 in \[1, 9, 4, 6\]: store them in a \.npz"),
        (model(1, 3, 4), r"float32 \[1, 3, 4\] for input 'x'; images feed a float input"),
        (model(1, 3, 4, 6, dtype="uint8"), r"uint8 \[1, 3, 4, 6\] for input 'x'; images feed"),
    ],
)
def test_models_that_images_do_not_fit(tmp_path: Path, spec: DatasetSpec, reason: str) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=reason):
        images.open(str(tmp_path), spec)


def test_models_with_two_inputs_are_refused(tmp_path: Path, spec: DatasetSpec) -> None:
    save(tmp_path / "a.png")
    two = replace(spec, inputs=(*spec.inputs, replace(spec.inputs[0], name="mask")))
    with pytest.raises(ValueError, match=r"2 model inputs \(x, mask\); .* exactly one"):
        images.open(str(tmp_path), two)


@pytest.mark.parametrize("fields", [{"resize": (5,)}, {"crop": (5, 7)}])
def test_a_size_that_differs_after_preprocessing_is_refused(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    save(tmp_path / "a.png", size=(7, 5))
    reason = r"5x7 after preprocessing .*a\.png; input 'x' takes 4x6: .* --resize or --crop"
    with pytest.raises(ValueError, match=reason):
        list(images.open(str(tmp_path), model(1, 3, 4, 6, **fields)).read([0]))


def test_a_crop_larger_than_an_image_names_the_image(tmp_path: Path) -> None:
    save(tmp_path / "a.png", size=(6, 4))
    reason = r"crop 5x6 is larger than the image, 4x6 after resize.*at .*a\.png"
    with pytest.raises(ValueError, match=reason):
        list(images.open(str(tmp_path), model(1, 3, 5, 6, crop=(5, 6))).read([0]))


def test_labels_csv_may_hold_texts(tmp_path: Path, spec: DatasetSpec) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    table = 'file,text,split\na.png,"1, TOTAL",test\nb.png,,\n'
    (tmp_path / "labels.csv").write_text(table)
    data = images.open(str(tmp_path), spec)
    assert [(s.label, s.truth, s.split) for s in data.read([0, 1])] == [
        (None, Text("1, TOTAL"), "test"),
        (None, Text(""), None),
    ]


def test_labels_csv_may_hold_label_maps(tmp_path: Path, spec: DatasetSpec) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    classes = np.array([[0, 3, 255], [7, 7, 1]], np.uint8)
    (tmp_path / "maps").mkdir()
    Image.fromarray(classes).save(tmp_path / "maps" / "a.png")
    (tmp_path / "labels.csv").write_text("file,label,map\na.png,4,maps/a.png\nb.png,5,\n")
    first, second = images.open(str(tmp_path), spec).read([0, 1])
    assert isinstance(first.truth, LabelMap)
    assert (first.label, first.truth.classes.tolist()) == (4, classes.tolist())
    assert (second.label, second.truth) == (5, None)


def test_label_maps_that_are_refused(tmp_path: Path, spec: DatasetSpec) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,map\na.png,a.png\n")
    with pytest.raises(ValueError, match=r"3 channels in label map .*a\.png; save the class"):
        list(images.open(str(tmp_path), spec).read([0]))
    with pytest.raises(ValueError, match=r"label maps in .*labels\.csv and a crop"):
        images.open(str(tmp_path), model(None, 3, 2, 2, crop=(2, 2)))
    with pytest.raises(ValueError, match=r"label maps in .*labels\.csv and resize_mode letterbox"):
        images.open(str(tmp_path), replace(spec, preprocess=Preprocess(resize_mode="letterbox")))
    (tmp_path / "labels.csv").write_text("file,map\na.png,../a.png\n")
    with pytest.raises(ValueError, match=r"'\.\./a\.png' at .* leaves the folder"):
        images.open(str(tmp_path), spec)
