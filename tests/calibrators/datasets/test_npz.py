"""What is special about .npz and .npy files."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibrators.datasets import npz
from calibrators.preprocess import Preprocess
from calibrators.samples import DatasetSpec, InputSpec, Sample
from calibrators.truths import LabelMap

FLOATS = np.random.default_rng(5).standard_normal((3, 3, 4, 6)).astype(np.float32)
PIXELS = np.arange(3 * 4 * 6 * 3, dtype=np.uint8).reshape(3, 4, 6, 3)
LABELS = np.array([4, 0, 2], np.uint8)


def model(
    *shape: int | None, dtype: str = "float32", keys: dict[str, str] | None = None, **fields: Any
) -> DatasetSpec:
    shape = shape or (None, 3, 4, 6)
    return DatasetSpec((InputSpec("x", shape, np.dtype(dtype)),), Preprocess(**fields), keys or {})


def samples(path: Path, spec: DatasetSpec) -> list[Sample]:
    data = npz.open(str(path), spec)
    return list(data.read(range(len(data.splits))))


def stored(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def fed(folder: Path, x: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    return np.concatenate([s.feeds["x"] for s in samples(stored(folder, x=x), spec)])


def test_floats_arrive_as_they_are_with_names_labels_and_splits(tmp_path: Path) -> None:
    path = stored(tmp_path, x=FLOATS, y=LABELS, split=np.array(["calib", "", "test"]))
    got = samples(path, model())
    assert [(s.name, s.label, s.split) for s in got] == [
        ("data.npz[0]", 4, "calib"),
        ("data.npz[1]", 0, None),
        ("data.npz[2]", 2, "test"),
    ]
    np.testing.assert_array_equal(np.concatenate([s.feeds["x"] for s in got]), FLOATS)


def test_keys_map_inputs_and_labels(tmp_path: Path) -> None:
    path = stored(tmp_path, pictures=FLOATS, x=np.zeros(3), answer=LABELS, y=LABELS + 1)
    got = samples(path, model(keys={"x": "pictures", "labels": "answer"}))
    assert [s.label for s in got] == [4, 0, 2]
    np.testing.assert_array_equal(got[2].feeds["x"][0], FLOATS[2])


def test_a_key_that_is_an_input_or_no_integers_is_not_the_labels(tmp_path: Path) -> None:
    spec = DatasetSpec((InputSpec("label", (None, 2), np.dtype("float32")),))
    got = samples(stored(tmp_path, label=np.ones((3, 2), np.float32), y=LABELS * 0.5), spec)
    assert [s.label for s in got] == [None] * 3


def test_preprocessing_by_its_numbers(tmp_path: Path) -> None:
    spec = model(1, 3, 2, 6, scale=0.5, mean=(1, 2, 3), color="BGR", crop=(2, 6))
    x = fed(tmp_path, PIXELS, spec)
    # row 1 of the crop is row 2 of the image: pixel (2, 5) of sample 1 is 123, 124, 125
    assert PIXELS[1, 2, 5].tolist() == [123, 124, 125]
    assert x[1, :, 1, 5].tolist() == [62.5 - 1, 62 - 2, 61.5 - 3]


def test_gray_pixels_need_no_channel_axis(tmp_path: Path) -> None:
    x = fed(tmp_path, PIXELS[..., 0], model(None, 1, 4, 6, scale=1))
    np.testing.assert_array_equal(x[:, 0], PIXELS[..., 0].astype(np.float32))


def test_a_batch_axis_of_one_is_kept(tmp_path: Path) -> None:
    np.testing.assert_array_equal(fed(tmp_path, FLOATS[:, None], model()), FLOATS)
    x = fed(tmp_path, PIXELS[:, None], model(scale=1))
    np.testing.assert_array_equal(x, PIXELS.transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize(
    ("stored_as", "model_takes"),
    [
        ("float64", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("float32", "float16"),
        ("int32", "int64"),
        ("uint8", "uint8"),
        ("bool", "bool"),
    ],
)
def test_casts_that_keep_the_values(tmp_path: Path, stored_as: str, model_takes: str) -> None:
    x = np.array([[1, 0], [0, 1]]).astype(stored_as)
    got = fed(tmp_path, x, model(None, 2, dtype=model_takes))
    assert got.dtype == model_takes and got.tolist() == [[1, 0], [0, 1]]


def test_two_inputs_and_preprocessing_for_the_image_alone(tmp_path: Path) -> None:
    inputs = (
        InputSpec("ids", (None, None), np.dtype("int64")),
        InputSpec("image", (None, 3, 4, 6), np.dtype("float32")),
    )
    path = stored(tmp_path, ids=np.arange(6).reshape(3, 2), image=PIXELS)
    got = samples(path, DatasetSpec(inputs, Preprocess(scale=1)))
    assert got[2].feeds["ids"].tolist() == [[4, 5]]
    assert got[2].feeds["image"][0, :, 0, 0].tolist() == [144, 145, 146]


def test_fortran_order_and_compression(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.asfortranarray(FLOATS))
    got = samples(tmp_path / "a.npz", model())
    np.testing.assert_array_equal(np.concatenate([s.feeds["x"] for s in got]), FLOATS)


def test_npy_feeds_the_only_input(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FLOATS)
    got = samples(tmp_path / "a.npy", model(keys={"x": "whatever"}))
    assert [s.name for s in got] == ["a.npy[0]", "a.npy[1]", "a.npy[2]"]
    np.testing.assert_array_equal(got[1].feeds["x"], FLOATS[1:2])


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_header_version(tmp_path: Path, version: tuple[int, int]) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, FLOATS, version=version)
    got = samples(tmp_path / "a.npy", model())
    np.testing.assert_array_equal(np.concatenate([s.feeds["x"] for s in got]), FLOATS)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_reading_holds_one_row_not_the_file(tmp_path: Path, suffix: str) -> None:
    x = np.zeros((64, 3, 100, 160), np.float32)  # 12 MB
    path = tmp_path / f"big.{suffix}"
    np.savez(path, x=x) if suffix == "npz" else np.save(path, x)
    data = npz.open(str(path), model(None, 3, 100, 160))
    tracemalloc.start()
    for _ in data.read(range(64)):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * x[0].nbytes  # 1.9 MB


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({}, r"no arrays in .*data\.npz; it must hold 'x'"),
        ({"X1": FLOATS, "y": LABELS}, r"keys X1, y in .*none is 'x'; .* --data-key x=X1"),
        ({f"k{i}": LABELS for i in range(11)}, r"k7, and 3 more in .*none is 'x'"),
        ({"x": FLOATS, "y": LABELS[:2]}, r"different sample counts in .*: x 3, y 2"),
        ({"x": FLOATS, "split": np.array(["a"])}, r"different sample counts in .*: split 1, x 3"),
        ({"x": FLOATS[:0]}, r"0 samples in .*data\.npz"),
        ({"x": np.float32(3)}, r"a single number for key 'x' of .*data\.npz"),
        ({"x": FLOATS, "split": LABELS}, r"uint8 values for key 'split' of .*: strings \(U\)"),
        ({"x": FLOATS, "y": np.array([0, 1, -1])}, r"label .*-1\)? at key 'y' of data\.npz\[2\]"),
        ({"x": np.array([1, "a", None], object)}, r"object array in x\.npy of .*never loaded"),
    ],
)
def test_files_that_do_not_fit_are_refused_when_opened(
    tmp_path: Path, arrays: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        npz.open(str(stored(tmp_path, **arrays)), model())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("x", "spec", "reason"),
    [
        (PIXELS, model(), r"uint8 values at key 'x' of data\.npz\[0\]; .*--scale, --mean or --std"),
        (PIXELS[:, 0, :, 0], model(None, 6), r"uint8 values .*takes float32: store float32"),
        (FLOATS, model(dtype="uint8"), r"float32 values .*takes uint8: store uint8"),
        (np.ones((2, 5)) > 0, model(None, 5), r"bool values .*takes float32"),
        (np.ones((2, 5), "int64"), model(None, 5, dtype="int32"), r"int64 values .*takes int32"),
        (np.array(["a"]), model(None), r"<U1 values at key 'x'"),
        (FLOATS * 1j, model(scale=1), r"complex64 values at key 'x'"),
        (FLOATS, model(mean=(0.5,)), r"float32 values .*no scale; pass --scale 1 if .*0\.00392157"),
        (PIXELS, model(1, 3, 5, 6, scale=1), r"shape \[3, 4, 6\] at .*takes \[1, 3, 5, 6\]"),
        (PIXELS, model(color="GRAY", mean=(1,)), r"shape \[1, 4, 6\] at .*takes \[\?, 3, 4, 6\]"),
        (PIXELS, model(crop=(5, 6)), r"crop 5x6 is larger .*4x6 .*at key 'x' of data\.npz\[0\]"),
        (FLOATS[:, :, :, :5], model(), r"shape \[3, 4, 5\] at .*takes \[\?, 3, 4, 6\]"),
        (FLOATS[:, 0], model(), r"shape \[4, 6\] at .*takes \[\?, 3, 4, 6\]"),
        (FLOATS[None].repeat(2, 0), model(), r"shape \[3, 3, 4, 6\] at .*batch axis or one of"),
        (np.array([[1.0], [1e300]]), model(None, 1), r"inf at key 'x' of data\.npz\[1\]"),
    ],
)
def test_samples_that_do_not_fit_are_refused_when_read(
    tmp_path: Path, x: np.ndarray, spec: DatasetSpec, reason: str
) -> None:
    path = stored(tmp_path, x=x)
    with pytest.raises(ValueError, match=reason) as caught:
        samples(path, spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("fields", [{}, {"scale": 1.0, "layout": "NHWC"}])
def test_values_that_are_not_finite_are_named(
    tmp_path: Path, value: float, fields: dict[str, Any]
) -> None:
    x = FLOATS.copy()
    x[1, 2, 3, 5] = value
    reason = rf"{value} at key 'x' of data\.npz\[1\], element \[0, 2, 3, 5\]; .*finite"
    with pytest.raises(ValueError, match=reason):
        fed(tmp_path, x, model(**fields))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (model(keys={"imput": "x"}), r"'imput' in --data-key is no model input; allowed: x, label"),
        (model(keys={"labels": "lab"}), r"keys x, y in .*none is 'lab'; .*--data-key labels="),
        (model(keys={"labels": "x"}), r"float32 of shape \[3, 3, 4, 6\] for the labels, key 'x'"),
        (model(None, 5, scale=1), r"preprocessing is given, but the model takes x float32 \[\?, 5"),
    ],
)
def test_specs_that_do_not_fit_are_refused(tmp_path: Path, spec: DatasetSpec, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        npz.open(str(stored(tmp_path, x=FLOATS, y=LABELS)), spec)


def test_npy_for_two_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FLOATS)
    inputs = tuple(InputSpec(n, (None, 3, 4, 6), np.dtype("float32")) for n in "ab")
    with pytest.raises(ValueError, match=r"one array in .*a\.npy, but the model has 2 .*\(a, b\)"):
        npz.open(str(tmp_path / "a.npy"), DatasetSpec(inputs))


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
def test_files_that_are_something_else_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("file,label\n")
    reason = rf"(unreadable .*{name} \(File is not a zip|no NumPy array in the file of .*{name})"
    with pytest.raises(ValueError, match=reason):
        npz.open(str(tmp_path / name), model())


@pytest.mark.parametrize(("old", "new"), [(b")", b" "), (b"3, 3", b"03,3"), (b"'", b"\n")])
def test_damaged_headers_are_named(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = tmp_path / "a.npy"
    np.save(path, FLOATS)
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ValueError, match=r"no NumPy array in the file of .*a\.npy; save with"):
        npz.open(str(path), model())


def test_truncated_npz_is_named(tmp_path: Path) -> None:
    path = stored(tmp_path, x=FLOATS)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"unreadable .*data\.npz \(.+\); truncated"):
        npz.open(str(path), model())


def test_truncated_npy_names_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, FLOATS)
    path.write_bytes(path.read_bytes()[:-8])
    reading = npz.open(str(path), model()).read([0, 1, 2])
    assert next(reading).name == "a.npy[0]"
    with pytest.raises(ValueError, match=r"unreadable .*a\.npy \(280 bytes of 288 for sample 2"):
        list(reading)


def test_damaged_bytes_are_found_by_their_checksum(tmp_path: Path) -> None:
    path = stored(tmp_path, x=FLOATS)
    data = bytearray(path.read_bytes())
    at = data.find(FLOATS[1].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"unreadable .*data\.npz \(Bad CRC-32"):
        samples(path, model())


def test_label_maps(tmp_path: Path) -> None:
    maps = np.arange(3 * 2 * 5, dtype=np.uint8).reshape(3, 2, 5)
    got = samples(stored(tmp_path, x=FLOATS, maps=maps), model())
    assert isinstance(got[2].truth, LabelMap)
    assert got[2].truth.classes.tolist() == maps[2].tolist()
    with pytest.raises(ValueError, match=r"different sample counts in .*maps 2"):
        samples(stored(tmp_path, x=FLOATS, maps=maps[:2]), model())
    with pytest.raises(ValueError, match=r"float32 of shape \[3, 2, 5\] for key 'maps' of"):
        samples(stored(tmp_path, x=FLOATS, maps=maps.astype("f4")), model())
