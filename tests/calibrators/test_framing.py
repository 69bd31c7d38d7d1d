"""Letterbox and padding against pictures put together by hand with Pillow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from calibrators.framing import MODES, Framed, framed
from calibrators.preprocess import Preprocess


def picture(height: int, width: int) -> Image.Image:
    x = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(x)


def by_hand(img: Image.Image, inside: tuple[int, int], at: tuple[int, int], **pad: int) -> Any:
    """float32[H, W, C]: the picture of a size pasted into a 64 x 96 frame."""
    frame = Image.new("RGB", (96, 64), (pad["value"],) * 3)
    small = img.resize((inside[1], inside[0]), Image.Resampling.BILINEAR)
    frame.paste(small, (at[1], at[0]))
    return np.asarray(frame, np.float32)


@pytest.mark.parametrize(
    ("mode", "size", "inside", "at"),
    [
        # 64 / 50 = 1.28: 33 columns become 42.24
        ("letterbox", (50, 33), (64, 42), (0, 27)),
        # 96 / 70 = 1.371: 20 rows become 27.43; 37 rows of padding, the odd one at the bottom
        ("letterbox", (20, 70), (27, 96), (18, 0)),
        # 96 / 200 = 0.48: 99 rows become 47.52, rounded up here and down in the corner
        ("letterbox", (99, 200), (48, 96), (8, 0)),
        ("top-left", (99, 200), (47, 96), (0, 0)),
        ("letterbox", (64, 96), (64, 96), (0, 0)),
        ("letterbox", (1, 500), (1, 96), (31, 0)),
        # 30 * 64 / 50 = 38.4 columns, rounded up
        ("pad-right", (50, 30), (64, 39), (0, 0)),
        # too long a line is squeezed
        ("pad-right", (10, 500), (64, 96), (0, 0)),
    ],
)
def test_is_the_picture_pasted_into_the_frame(
    mode: str, size: tuple[int, int], inside: tuple[int, int], at: tuple[int, int]
) -> None:
    assert framed(size, (64, 96), mode) == Framed((64, 96), *inside, *at)
    img = picture(*size)
    pre = Preprocess(resize=(64, 96), resize_mode=mode, pad_value=114, scale=1, layout="NHWC")
    assert np.array_equal(pre.image(img), by_hand(img, inside, at, value=114))


def test_a_side_that_fits_exactly_keeps_every_pixel() -> None:
    # 640 / 427 * 427 is 639.9999 in floats: rounding down would lose a row
    for side in range(1, 700):
        assert framed((side, 1), (640, 640), "top-left").height == 640


def test_padding_is_normalized_like_the_picture() -> None:
    pre = Preprocess(
        resize=(8, 8), resize_mode="pad-right", pad_value=127.5, mean=(0.5,), std=(0.5,)
    )
    x = pre.image(picture(8, 5))
    assert x.shape == (3, 8, 8)
    assert np.abs(x[:, :, 5:]).max() == 0
    assert np.abs(x[:, :, :5]).max() > 0.5


def test_raw_images_are_padded_in_their_own_type() -> None:
    pre = Preprocess(resize=(8, 8), resize_mode="letterbox", pad_value=114, raw=True)
    x = pre.image(picture(4, 8))
    assert x.dtype == np.uint8
    assert (x[:2] == 114).all() and (x[6:] == 114).all()


def test_gray_is_padded_too() -> None:
    pre = Preprocess(resize=(8, 8), resize_mode="letterbox", pad_value=20, scale=1, color="GRAY")
    x = pre.image(picture(4, 8))
    assert x.shape == (1, 8, 8)
    assert (x[:, :2] == 20).all()


def test_boxes_move_with_the_picture() -> None:
    inside = framed((50, 100), (100, 100), "letterbox")
    assert (inside.top, inside.height) == (25, 50)
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.75, 1.0]])
    expected = [[0, 0.25, 1, 0.75], [0.5, 0.5, 0.75, 0.75]]
    assert inside.placed(boxes).tolist() == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize_mode": "fit"}, "'fit' is no resize_mode; allowed: stretch, letterbox"),
        ({"pad_value": 114}, "pad_value 114 with resize_mode stretch, which pads nothing"),
        ({"pad_value": 256}, "256 for pad_value; allowed: 0 to 255"),
        ({"resize_mode": "letterbox", "resize": (9,)}, "9 for resize with resize_mode letterbox"),
        (
            {"resize_mode": "letterbox", "resize": (9, 9), "crop": (8,)},
            "resize_mode letterbox and a crop",
        ),
        (
            {"resize_mode": "pad-right", "pad_value": 127.5, "raw": True},
            "127.5 for pad_value; raw images are uint8",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preprocess(**fields)


def test_a_frame_of_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="no resize for resize_mode letterbox"):
        Preprocess(resize_mode="letterbox").image(picture(4, 8))


def test_every_mode_fills_the_frame() -> None:
    for mode in MODES:
        pre = Preprocess(resize=(30, 20), resize_mode=mode)
        assert pre.image(picture(7, 9)).shape == (3, 30, 20)
