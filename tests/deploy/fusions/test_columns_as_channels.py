"""columns_as_channels: the same bits for every geometry, and what keeps reading a copied image."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers import (
    assert_fuses,
    assert_same_numbers,
    assert_skips,
    feeds_for,
    ops,
)
from images import image_model

from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.fuse import fuse
from deploy.target import Target

NAME = "columns_as_channels"
READ_IMAGE = "d = DequantizeLinear(q, xs, xz)"
CHAIN = "r = Relu(c) rq = QuantizeLinear(r, rs, rz) rd = DequantizeLinear(rq, rs, rz)"
READ = "y = Conv(rd, u)"
ADDED = [
    *("QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear", "Reshape"),
    *("Transpose", "Conv", "Relu", "QuantizeLinear", "DequantizeLinear"),
    *("Transpose", "Reshape", "Transpose", "Conv"),
]


def first_conv(
    attrs: str = "strides=[2,2], pads=[1,1,1,1]",
    *,
    image: str = "N,3,9,8",
    kernel: tuple[int, int] = (3, 3),
    channels: int = 3,
    out: int = 5,
    read: str = READ_IMAGE,
    weights: str = "k = DequantizeLinear<axis=0>(w, ws, wz)",
    reader: str = "u = DequantizeLinear(v, w0, z0)",
    conv: str = "c = Conv<{attrs}>(d, k, b)",
    chain: str = CHAIN,
    end: str = READ,
) -> Model:
    """Scales are powers of two, so that float32 computes with their multiples exactly."""
    body = f"q = QuantizeLinear(x, xs, xz) {weights} {reader} {read} {conv} {chain} {end}"
    text = f"g (float[{image}] x) => (float[N,R,P,Q] y) {{ {body.replace('{attrs}', attrs)} }}"
    random = np.random.default_rng(5)
    values = {
        "xs": np.float32(2**-5),
        "xz": np.uint8(117),
        "w": random.integers(-127, 128, (out, channels, *kernel)).astype(np.int8),
        "ws": np.asarray(2.0 ** random.integers(-9, -5, out), np.float32),
        "wz": np.zeros(out, np.int8),
        "w0": np.float32(2**-7),
        "z0": np.int8(0),
        "z3": np.full(out, 3, np.int8),
        "b": np.asarray(random.integers(-64, 64, out) / 32, np.float32),
        "rs": np.float32(2**-4),
        "rz": np.uint8(0),
        "v": random.integers(-127, 128, (2, out, 1, 1)).astype(np.int8),
    }
    return image_model(text, values)


GEOMETRIES = {
    "3x3": ((3, 3), "strides=[2,2], pads=[1,1,1,1]", "N,3,9,8"),
    "no padding": ((2, 2), "strides=[2,2]", "N,3,6,12"),
    "padded on one side": ((3, 3), "strides=[2,2], pads=[0,0,1,1]", "N,3,8,12"),
    "other steps down": ((3, 3), "strides=[3,2], pads=[1,1,1,1]", "N,3,7,8"),
    "patches of four": ((4, 4), "strides=[4,4]", "N,3,8,12"),
    "patches of eight": ((8, 8), "strides=[8,8]", "N,3,16,24"),
    "columns of two neighbours": ((3, 5), "strides=[2,2], pads=[1,2,1,2]", "N,3,7,8"),
    "padded by a whole group": ((3, 4), "strides=[4,4], pads=[1,4,1,4]", "N,3,9,8"),
}


@pytest.mark.parametrize("kernel, attrs, image", GEOMETRIES.values(), ids=GEOMETRIES)
def test_any_geometry(kernel: tuple[int, int], attrs: str, image: str) -> None:
    assert_fuses(first_conv(attrs, image=image, kernel=kernel), NAME, ADDED, rtol=0)


SEEDS = range(60)


def seeded(seed: int) -> Model:
    random = np.random.default_rng(seed)
    kernel = tuple(int(n) for n in random.integers(1, 6, 2))
    steps = [int(random.integers(1, 5)), int(random.integers(2, 5))]
    pads = [int(n) for n in random.integers(0, 4, 4)]
    groups = int(random.integers(2, 5)) * int(np.lcm(steps[1], 4))
    return first_conv(f"strides={steps}, pads={pads}", image=f"N,3,11,{groups}", kernel=kernel)


@pytest.mark.parametrize("seed", SEEDS)
def test_seeded_geometries(seed: int) -> None:
    """What pays is regrouped with the same bits; of the rest it is said why not."""
    made = seeded(seed)
    fused = fuse(made, [NAME])
    (decision,) = fused.decisions
    if decision.outcome == "skipped":
        assert re.search("more products|don't divide", decision.reason)
    else:
        assert_same_numbers(made, fused, rtol=0)


def test_many_of_them_are_regrouped() -> None:
    outcomes = [fuse(seeded(seed), [NAME]).decisions[0].outcome for seed in SEEDS]
    assert outcomes.count("applied") > 15


def test_openvino_gives_the_same_bits() -> None:
    """Of the product's own engine: integers are summed, whatever their order."""
    settings = Target.load("cpu").engine.model_copy(update={"threads": 1, "batch": 2})
    made = first_conv(out=24, image="2,3,18,16")
    feeds = feeds_for(made)
    regrouped = fuse(made, [NAME])
    assert ops(regrouped) == ADDED
    with (
        ov.build(made, settings, "int8") as copied,
        ov.build(regrouped, settings, "int8") as in_place,
    ):
        np.testing.assert_array_equal(in_place.run(feeds)["y"], copied.run(feeds)["y"])


def test_the_name_of_the_convolution_stays_readable() -> None:
    fused = fuse(first_conv(), [NAME])
    outputs = [node.output[0] for node in fused.proto.graph.node]
    assert {f"c/{NAME}", f"c/{NAME}/kernel"} <= set(outputs)


def test_a_free_batch_stays_free() -> None:
    fused = fuse(first_conv(image="N,3,9,8"), [NAME])
    assert ops(fused) == ADDED
    assert [i.shape[0] for i in fused.inputs] == [None]


def test_without_a_bias() -> None:
    assert_fuses(first_conv(conv="c = Conv<{attrs}>(d, k)"), NAME, ADDED, rtol=0)


def test_one_scale_for_all_weights() -> None:
    made = first_conv(weights="k = DequantizeLinear(w, w0, z0)")
    assert_fuses(made, NAME, ADDED, rtol=0)


CHAINS = {
    "clip": "r = Clip(c, rs, xs) rq = QuantizeLinear(r, rs, rz) rd = DequantizeLinear(rq, rs, rz)",
    "nothing": "rq = QuantizeLinear(c, rs, rz) rd = DequantizeLinear(rq, rs, rz)",
    "float": "rd = Relu(c)",
    "bare": "rd = Identity(c)",
    "pool of 8 bits": "r = Relu(c) rq = QuantizeLinear(r, rs, rz) "
    "p = MaxPool<kernel_shape=[2,2]>(rq) rd = DequantizeLinear(p, rs, rz)",
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_what_follows_moves_along(chain: str) -> None:
    """Up to the rounding, nothing stands between the convolution and what works on its values."""
    made = first_conv(chain=chain.replace("rd = Identity(c)", ""))
    if "Identity" in chain:
        made = first_conv(chain="", end="y = Conv(c, u)")
    fused = fuse(made, [NAME])
    assert [d.outcome for d in fused.decisions] == ["applied"]
    found = ops(fused)
    behind = found[found.index("Conv") + 1 : len(found) - 1]
    assert behind[: behind.index("Transpose")] == [
        op for op in re.findall(r"= (\w+)", chain.split(" p =")[0]) if op != "Identity"
    ]
    assert_same_numbers(made, fused, rtol=0)


def test_several_readers_of_8_bits_share_it() -> None:
    made = first_conv(end="s = Conv(rd, u) t = Conv(rd, u) y = Add(s, t)")
    fused = fuse(made, [NAME])
    assert ops(fused).count("Transpose") == 3
    assert_same_numbers(made, fused, rtol=0)


REFUSALS = {
    "single columns": (first_conv("strides=[2,1]"), "steps by single columns"),
    "dilated": (first_conv("strides=[2,2], dilations=[2,1]"), "is dilated"),
    "pads by itself": (first_conv('auto_pad="SAME_UPPER", strides=[2,2]'), "SAME_UPPER"),
    "odd groups": (first_conv(image="N,3,8,10"), "10 wide doesn't divide into groups of 4"),
    "free width": (first_conv(image="N,3,8,W"), "image W wide doesn't divide"),
    "free height": (first_conv(image="N,3,H,8"), "an image H high: where a size is free"),
    "odd result": (first_conv("strides=[2,2]"), "its 3 columns don't divide into groups of 2"),
    "many outputs": (first_conv(out=32), "18 more products a column would cost more than 12"),
    "wide kernel": (
        first_conv("strides=[2,2], pads=[3,3,3,3]", kernel=(7, 7), out=64, image="N,3,8,8"),
        "56 more products a column would cost more than 12 bytes copied",
    ),
    "zero point": (first_conv(weights="k = DequantizeLinear<axis=0>(w, ws, z3)"), "around zero"),
    "float weights": (first_conv(weights="k = Cast<to=1>(w)"), "around"),
    "computed bias": (
        first_conv(
            reader="u = DequantizeLinear(v, w0, z0) n = Neg(b)", conv="c = Conv<{attrs}>(d, k, n)"
        ),
        "with a constant bias",
    ),
    "read by a float convolution": (
        first_conv(reader="u = Cast<to=1>(v)"),
        "read by Conv in float",
    ),
    "read in float": (
        first_conv(chain="rd = Relu(c)", reader="", end="y = GlobalMaxPool(rd)"),
        "by Global",
    ),
    "read by two in float": (
        first_conv(chain="rd = Relu(c)", end="s = Conv(rd, u) t = Conv(rd, u) y = Add(s, t)"),
        "read by Conv in float",
    ),
    "read in 8 bits by others": (
        first_conv(reader="", end="y = GlobalMaxPool(rd)"),
        "by GlobalMaxPool",
    ),
    "an Elu rounds by place": (first_conv(chain="rd = Elu(c)"), "read by Elu in float"),
    "clipped to what is computed": (
        first_conv(
            reader="u = DequantizeLinear(v, w0, z0) m = ReduceMax<keepdims=0>(x)",
            chain="rd = Clip(c, m)",
        ),
        "read by Clip in float",
    ),
    "given out": (first_conv(chain="", reader="", end="y = Relu(c)"), "an output of the model"),
}


@pytest.mark.parametrize("model, reason", REFUSALS.values(), ids=REFUSALS)
def test_what_keeps_reading_a_copy(model: Model, reason: str) -> None:
    assert_skips(model, NAME, reason)


def test_groups_are_refused() -> None:
    made = first_conv("strides=[2,2], group=2", image="N,4,8,8", channels=2, out=6)
    assert_skips(made, NAME, "it has groups")


OTHERS = {
    "many channels": first_conv(image="N,5,9,8", channels=5),
    "one channel": first_conv(image="N,1,9,8", channels=1),
    "float image": first_conv(read="d = Relu(x)"),
    "not the first": first_conv(read="e = DequantizeLinear(q, xs, xz) d = Relu(e)"),
    "one that was worked on": first_conv(
        read="a = Relu(x) e = QuantizeLinear(a, xs, xz) d = DequantizeLinear(e, xs, xz)"
    ),
}


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_other_convolutions_are_not_looked_at(model: Model) -> None:
    assert fuse(model, [NAME]).decisions == ()


def test_a_value_read_elsewhere_stays() -> None:
    """The chain ends where a value has a second reader."""
    made = first_conv(chain="m = GlobalMaxPool(c) r = Relu(c)", reader="", end="y = Mul(r, m)")
    assert_skips(made, NAME, "read by GlobalMaxPool, Relu in float")
