"""Every step of Preprocess by its numbers, and one refusal per guard."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibrators.preprocess import Preprocess

# H=2, W=3, so that a swap of the two is seen
RGB = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10


def picture(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(7)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))


def test_default_is_the_image_over_255_in_nchw() -> None:
    x = Preprocess().image(Image.fromarray(RGB))
    assert x.dtype == np.float32 and x.shape == (3, 2, 3) and x.flags.c_contiguous
    np.testing.assert_array_equal(x, RGB.transpose(2, 0, 1).astype(np.float32) / np.float32(255))


def test_mean_and_std_come_after_scale_in_float32() -> None:
    pre = Preprocess(scale=0.5, mean=(1, 2, 3), std=(2, 4, 8))
    x = pre.array(RGB)
    # pixel (1, 2) is 150, 160, 170
    assert x[:, 1, 2].tolist() == [(75 - 1) / 2, (80 - 2) / 4, (85 - 3) / 8]
    assert x.dtype == np.float32


def test_imagenet_numbers() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    x = Preprocess(mean=mean, std=std).image(Image.new("RGB", (3, 2), (255, 128, 0)))
    expected = [(1 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (0 - 0.406) / 0.225]
    np.testing.assert_allclose(x[:, 1, 2], expected, rtol=1e-6)


def test_one_mean_serves_all_channels() -> None:
    x = Preprocess(scale=1, mean=(10,), std=(10,)).array(RGB)
    assert x[:, 1, 2].tolist() == [14, 15, 16]


def test_nhwc_keeps_the_channels_last() -> None:
    assert Preprocess(layout="NHWC", scale=1).array(RGB).tolist() == RGB.tolist()


def test_bgr_reverses_the_channels_and_mean_follows_that_order() -> None:
    x = Preprocess(color="BGR", scale=1, mean=(1, 2, 3)).array(RGB)
    assert x[:, 1, 2].tolist() == [170 - 1, 160 - 2, 150 - 3]


def test_gray_is_one_channel_of_luma() -> None:
    x = Preprocess(color="GRAY", scale=1).image(Image.new("RGB", (3, 2), (255, 0, 0)))
    assert x.shape == (1, 2, 3) and np.unique(x).tolist() == [76]  # round(0.299 * 255)


def test_gray_files_feed_rgb_models_with_three_equal_channels() -> None:
    x = Preprocess(scale=1).image(Image.new("L", (3, 2), 77))
    assert x.shape == (3, 2, 3) and np.unique(x).tolist() == [77]


def test_an_array_without_channel_axis_is_gray_and_stays_so() -> None:
    x = Preprocess(scale=1).array(RGB[..., 1])
    assert x.shape == (1, 2, 3) and x[0].tolist() == RGB[..., 1].tolist()
    assert Preprocess(color="GRAY", scale=1).array(RGB[..., 1]).shape == (1, 2, 3)


def test_float_arrays_are_cropped_and_normalized_too() -> None:
    x = Preprocess(crop=(1, 2), scale=1, std=(2,)).array(RGB.astype(np.float64))
    assert x.dtype == np.float32 and x[0].tolist() == [[0, 15]]


def test_resize_exactly_is_pillows_bilinear() -> None:
    img = picture(20, 31)
    expected = np.asarray(img.resize((11, 7), Image.Resampling.BILINEAR))
    pre = Preprocess(resize=(7, 11), scale=1, layout="NHWC")
    np.testing.assert_array_equal(pre.image(img), expected)
    np.testing.assert_array_equal(pre.array(np.asarray(img)), expected)


@pytest.mark.parametrize(("size", "expected"), [((20, 31), (9, 13)), ((31, 20), (13, 9))])
def test_one_number_resizes_the_shorter_side(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    # 9 * 31 / 20 = 13.95, cut as torchvision cuts it
    assert Preprocess(resize=(9,)).image(picture(*size)).shape == (3, *expected)


def test_resize_keeps_gray_arrays_gray() -> None:
    assert Preprocess(resize=(4, 5)).array(RGB[..., :1]).shape == (1, 4, 5)


def test_an_array_of_the_right_size_is_not_resized() -> None:
    x = Preprocess(resize=(2, 3), scale=1).array(RGB * 0.5)
    assert x[:, 1, 2].tolist() == [75, 80, 85]


def test_crop_is_central_with_the_odd_row_and_column_cut_last() -> None:
    x = np.arange(5 * 8, dtype=np.uint8).reshape(5, 8)
    got = Preprocess(crop=(2, 5), scale=1).array(x)
    assert got[0].tolist() == x[1:3, 1:6].tolist()


def test_one_number_crops_a_square() -> None:
    assert Preprocess(crop=(2,)).array(np.zeros((5, 8, 3), np.uint8)).shape == (3, 2, 2)


def test_crop_comes_after_resize() -> None:
    assert Preprocess(resize=(9,), crop=(8, 10)).image(picture(20, 31)).shape == (3, 8, 10)


def test_given_tells_any_change_from_the_default() -> None:
    assert not Preprocess().given
    for changed in (
        Preprocess(resize=(3,)),
        Preprocess(scale=1.0),
        Preprocess(layout="NHWC"),
        Preprocess(color="BGR"),
        Preprocess(mean=(0.0,)),
    ):
        assert changed.given


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"layout": "CHW"}, r"'CHW' is no layout; allowed: NCHW, NHWC"),
        ({"color": "rgb"}, r"'rgb' is no color; allowed: RGB, BGR, GRAY"),
        ({"mean": (1, 2)}, r"1, 2 for mean; color RGB takes 1 or 3 numbers"),
        ({"std": (1, 2, 3), "color": "GRAY"}, r"1, 2, 3 for std; color GRAY takes 1 number"),
        ({"std": (1, 0, 1)}, r"1, 0, 1 for std has a 0"),
        ({"mean": (float("nan"),)}, r"nan for mean; allowed: finite numbers"),
        ({"scale": 0}, r"0 for scale; allowed: a finite number other than 0"),
        ({"scale": float("inf")}, r"inf for scale"),
        ({"resize": (0, 5)}, r"0, 5 for resize; allowed: one or two positive"),
        ({"crop": (-1,)}, r"-1 for crop; allowed: one or two positive"),
        ({"resize": (1, 2, 3)}, r"1, 2, 3 for resize; allowed: one or two"),
        ({"crop": ()}, r"nothing for crop; allowed: one or two"),
        ({"resize": (9, 9), "crop": (8, 10)}, r"crop 8x10 is larger than the image, 9x9"),
    ],
)
def test_fields_that_make_no_sense_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Preprocess(**fields)


@pytest.mark.parametrize(
    ("fields", "x", "reason"),
    [
        ({"crop": (3, 2)}, RGB, r"crop 3x2 is larger than the image, 2x3 after resize"),
        ({"crop": (2, 4)}, RGB, r"crop 2x4 is larger than the image, 2x3 after resize"),
        ({}, np.zeros(4), r"shape \[4\] is no image"),
        ({"color": "BGR"}, RGB[..., :1], r"1 channels in the array; color BGR takes 3"),
        ({"mean": (1, 2, 3)}, RGB[..., 0], r"1, 2, 3 for mean; the array takes 1 number"),
        ({"resize": (4, 4)}, RGB * 1.0, r"float64 array with 3 channels; resize takes uint8"),
        ({"resize": (4, 4)}, RGB[..., :2], r"uint8 array with 2 channels; resize takes uint8"),
        ({"color": "GRAY"}, RGB * 1.0, r"float64 array with 3 channels; color GRAY takes uint8"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    fields: dict[str, Any], x: np.ndarray, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Preprocess(**fields).array(x)


def test_16_bit_images_are_refused_rather_than_clipped() -> None:
    img = Image.fromarray(np.full((2, 3), 60000, np.uint16))
    with pytest.raises(ValueError, match="mode I;16 has over 8 bits a channel"):
        Preprocess().image(img)


def test_raw_stops_before_any_arithmetic() -> None:
    x = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    pre = Preprocess(crop=(4, 6), mean=(0.1, 0.2, 0.3), std=(0.5,), color="BGR", raw=True)
    pixels = pre.array(x)
    assert (pixels.dtype, pixels.shape) == (np.uint8, (4, 6, 3))
    np.testing.assert_array_equal(pixels, x[1:5, 1:7])
    ready = dataclasses.replace(pre, raw=False).array(x)
    np.testing.assert_array_equal(pre.normalized(pixels), ready)


def test_raw_takes_only_bytes() -> None:
    with pytest.raises(ValueError, match="float32 array; an engine that takes raw images"):
        Preprocess(raw=True).array(np.zeros((4, 5, 3), np.float32))
