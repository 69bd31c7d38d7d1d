"""interleave_rows: every stride, padding and kernel width, and what keeps reading the image."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops, weight
from images import image_model

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "interleave_rows"
ROWS = ["Transpose", "Reshape", "Transpose", "Conv"]


def first_conv(
    attrs: str = "strides=[2,2], pads=[1,1,1,1]",
    *,
    image: str = "N,3,9,8",
    kernel: tuple[int, int] = (3, 3),
    channels: int = 3,
    body: str = "y = Conv<{attrs}>(x, w, b)",
) -> Model:
    text = f"g (float[{image}] x) => (float[N,5,P,Q] y) {{ {body.format(attrs=attrs)} }}"
    values = {"w": weight(5, channels, *kernel), "b": weight(5, seed=1)}
    return image_model(text, values)


GEOMETRIES = {
    "3x3": ((3, 3), "strides=[2,2], pads=[1,1,1,1]", "N,3,9,8"),
    "7x7": ((7, 7), "strides=[2,2], pads=[3,3,3,3]", "N,3,11,14"),
    "no padding": ((3, 3), "strides=[2,2]", "N,3,7,10"),
    "padded on one side": ((3, 3), "strides=[2,2], pads=[0,0,1,1]", "N,3,8,6"),
    "padded by more than the kernel": ((2, 2), "strides=[2,2], pads=[3,4,1,5]", "N,3,5,6"),
    "other steps down": ((3, 3), "strides=[1,2], pads=[1,1,1,1]", "N,3,5,8"),
    "steps of three": ((5, 4), "strides=[2,3], pads=[2,1,2,0]", "N,3,9,12"),
    "patches": ((4, 4), "strides=[4,4]", "N,3,8,12"),
    "one column of two": ((1, 1), "strides=[2,2]", "N,3,5,8"),
    "last column unread": ((5, 5), "strides=[4,4]", "N,3,9,8"),
}


@pytest.mark.parametrize("kernel, attrs, image", GEOMETRIES.values(), ids=GEOMETRIES)
def test_any_geometry(kernel: tuple[int, int], attrs: str, image: str) -> None:
    assert_fuses(first_conv(attrs, image=image, kernel=kernel), NAME, ROWS, rtol=1e-6)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_few_channels(channels: int) -> None:
    made = first_conv(image=f"N,{channels},9,8", channels=channels)
    assert_fuses(made, NAME, ROWS, reason=f"rows of {channels} channels", rtol=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_seeded_geometries(seed: int) -> None:
    random = np.random.default_rng(seed)
    kernel = tuple(int(n) for n in random.integers(1, 8, 2))
    steps = [int(random.integers(1, 4)), int(random.integers(2, 5))]
    pads = [int(n) for n in random.integers(0, 4, 4)]
    height, groups = int(random.integers(8, 12)), int(random.integers(4, 7))
    made = first_conv(
        f"strides={steps}, pads={pads}", image=f"N,3,{height},{groups * steps[1]}", kernel=kernel
    )
    assert_fuses(made, NAME, ROWS, rtol=1e-6)


def test_a_free_batch_stays_free() -> None:
    fused = fuse(first_conv(image="N,3,10,8"), [NAME])
    assert [i.shape[0] for i in fused.inputs] == [None]


def test_valid_padding_is_none() -> None:
    made = first_conv('auto_pad="VALID", strides=[2,2]')
    assert_fuses(made, NAME, ROWS)


def test_the_image_keeps_its_other_readers() -> None:
    body = "r = Relu(x) c = Conv<{attrs}>(x, w, b) p = MaxPool<kernel_shape=[2,2]>(r) "
    body += "m = GlobalMaxPool(p) s = ReduceMax<keepdims=0>(m) y = Add(c, s)"
    fused = fuse(first_conv(body=body), [NAME])
    assert "Transpose" in ops(fused)
    assert_same_numbers(first_conv(body=body), fused)


REFUSALS = {
    "single columns": (first_conv("strides=[2,1]"), "steps by single columns"),
    "dilated": (first_conv("strides=[2,2], dilations=[2,1]"), "is dilated"),
    "pads by itself": (first_conv('auto_pad="SAME_UPPER", strides=[2,2]'), "SAME_UPPER"),
    "odd width": (first_conv(image="N,3,8,9"), "9 wide doesn't divide into groups of 2"),
    "free width": (first_conv(image="N,3,8,W"), "image W wide doesn't divide"),
    "free height": (first_conv(image="N,3,H,8"), "an image H high: where a size is free"),
    "computed weights": (
        first_conv(body="v = Neg(w) y = Conv<{attrs}>(x, v, b)"),
        "quantized or computed at run time",
    ),
}


@pytest.mark.parametrize("model, reason", REFUSALS.values(), ids=REFUSALS)
def test_what_keeps_reading_the_image(model: Model, reason: str) -> None:
    assert_skips(model, NAME, reason)


def test_groups_are_refused() -> None:
    text = "g (float[N,4,8,6] x) => (float[N,6,4,3] y) "
    text += "{ y = Conv<group=2, strides=[2,2], pads=[1,1,1,1]>(x, w) }"
    assert_skips(model_from(text, {"w": weight(6, 2, 3, 3)}), NAME, "it has groups")


OTHERS = {
    "many channels": first_conv(image="N,5,9,8", channels=5),
    "one channel": first_conv(image="N,1,9,8", channels=1),
    "not the first": first_conv(body="r = Relu(x) y = Conv<{attrs}>(r, w, b)"),
}


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_other_convolutions_are_not_looked_at(model: Model) -> None:
    assert fuse(model, [NAME]).decisions == ()


def test_a_signal_is_no_image() -> None:
    text = "g (float[N,3,8] x) => (float[N,5,4] y) { y = Conv<strides=[2], pads=[1,1]>(x, w) }"
    assert fuse(model_from(text, {"w": weight(5, 3, 3)}), [NAME]).decisions == ()
