"""merge_pointwise_convs: when two 1x1 convs become one, and why the others stay two."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

MERGE = "merge_pointwise_convs"


def model(first: str, second: str, middle: int = 11, **more: np.ndarray) -> Model:
    text = f"g (float[N,5,8,6] x) => (float[N,4,8,6] y) {{ m = {first} y = {second} }}"
    values = {
        "w": weight(middle, 5, 1, 1),
        "b": weight(middle, seed=1),
        "v": weight(4, middle, 1, 1, seed=2),
        "c": weight(4, seed=3),
        **more,
    }
    used = {n: a for n, a in values.items() if f" {n})" in text or f" {n}," in text}
    return model_from(text, used)


@pytest.mark.parametrize("first", ["Conv(x, w, b)", "Conv(x, w)"])
@pytest.mark.parametrize(
    "second", ["Conv(m, v, c)", "Conv(m, v)", 'Conv<auto_pad="SAME_UPPER">(m, v)']
)
def test_two_become_one(first: str, second: str) -> None:
    fused = assert_fuses(model(first, second), MERGE, ["Conv"], reason="two 1x1 convs merged")
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * 11 * 8 * 6]


def test_spelled_out_attributes() -> None:
    plain = "<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0], dilations=[1,1], group=1>"
    assert_fuses(model(f"Conv{plain}(x, w, b)", f"Conv{plain}(m, v, c)"), MERGE, ["Conv"])


def test_one_axis() -> None:
    text = "g (float[N,5,9] x) => (float[N,4,9] y) { m = Conv(x, w) y = Conv(m, v) }"
    values = {"w": weight(11, 5, 1), "v": weight(4, 11, 1)}
    assert_fuses(model_from(text, values), MERGE, ["Conv"])


def test_a_chain_of_three() -> None:
    chain = "m = Conv(x, w) o = Conv(m, v) y = Conv(o, u)"
    text = f"g (float[N,5,8,6] x) => (float[N,4,8,6] y) {{ {chain} }}"
    values = {"w": weight(9, 5, 1, 1), "v": weight(7, 9, 1, 1), "u": weight(4, 7, 1, 1)}
    assert_fuses(model_from(text, values), MERGE, ["Conv"])


def test_something_between_or_a_larger_kernel_is_none() -> None:
    text = (
        "g (float[N,5,8,6] x) => (float[N,4,8,6] y) { m = Conv(x, w) r = Relu(m) y = Conv(r, v) }"
    )
    made = model_from(text, {"w": weight(11, 5, 1, 1), "v": weight(4, 11, 1, 1)})
    larger = model("Conv<pads=[1,1,1,1]>(x, w)", "Conv(m, v)", w=weight(11, 5, 3, 3))
    for each in (made, larger):
        fused = fuse(each, [MERGE])
        assert (ops(fused), fused.decisions) == (ops(each), ())


# ---- what stays, and why


@pytest.mark.parametrize("middle", [1, 2])
def test_skips_a_bottleneck(middle: int) -> None:
    made = model("Conv(x, w)", "Conv(m, v)", middle)
    assert_skips(made, MERGE, f"would take 20 multiplications per pixel, the two take {9 * middle}")


def test_skips_as_many_multiplications() -> None:
    text = "g (float[N,4,8,6] x) => (float[N,4,8,6] y) { m = Conv(x, w) y = Conv(m, v) }"
    made = model_from(text, {"w": weight(2, 4, 1, 1), "v": weight(4, 2, 1, 1)})
    assert_skips(made, MERGE, "would take 16 multiplications per pixel, the two take 16")


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        ("Conv<strides=[2,1]>(x, w)", "Conv(m, v)", "4,6"),
        ("Conv(x, w)", "Conv<strides=[1,2]>(m, v)", "8,3"),
        ("Conv<pads=[1,0,0,0]>(x, w)", "Conv(m, v)", "9,6"),
        ("Conv(x, w)", "Conv<pads=[0,0,0,1]>(m, v)", "8,7"),
        ("Conv<group=5>(x, u)", "Conv(m, t)", "8,6"),
        ("Conv(x, w)", "Conv<group=2>(m, s)", "8,6"),
    ],
)
def test_skips_what_is_not_pointwise(first: str, second: str, size: str) -> None:
    text = f"g (float[N,5,8,6] x) => (float[N,4,{size}] y) {{ m = {first} y = {second} }}"
    values = {
        "w": weight(12, 5, 1, 1),
        "v": weight(4, 12, 1, 1),
        "u": weight(10, 1, 1, 1),
        "t": weight(4, 10, 1, 1),
        "s": weight(4, 6, 1, 1),
    }
    made = model_from(text, {n: a for n, a in values.items() if f" {n})" in text})
    assert_skips(made, MERGE, "one of two 1x1 convs is strided, padded or grouped")


@pytest.mark.parametrize("name", ["w", "b", "c"])
def test_skips_what_is_computed_at_run_time(name: str) -> None:
    shape = {"w": "11,5,1,1", "b": "11", "c": "4"}[name]
    text = (
        f"g (float[N,5,8,6] x, float[{shape}] {name}) => (float[N,4,8,6] y) "
        "{ m = Conv(x, w, b) y = Conv(m, v, c) }"
    )
    values = {"w": weight(11, 5, 1, 1), "b": weight(11), "v": weight(4, 11, 1, 1), "c": weight(4)}
    made = model_from(text, {n: a for n, a in values.items() if n != name})
    what = "weights" if name == "w" else "bias"
    assert_skips(made, MERGE, f"the {what} of Conv (are|is) computed at run time")


def test_skips_what_would_not_be_finite() -> None:
    made = model("Conv(x, w)", "Conv(m, v)", v=np.full((4, 11, 1, 1), 3e38, np.float32))
    assert_skips(made, MERGE, "the merged weights would not be finite")


def test_skips_a_map_that_others_read() -> None:
    text = (
        "g (float[N,5,8,6] x) => (float[N,4,8,6] y, float[N,11,8,6] z) "
        "{ m = Conv(x, w) y = Conv(m, v) z = Relu(m) }"
    )
    made = model_from(text, {"w": weight(11, 5, 1, 1), "v": weight(4, 11, 1, 1)})
    assert_skips(made, MERGE, "'m' is also read by 'Relu -> z'")


def test_skips_weights_that_float16_cannot_hold() -> None:
    text = "g (float16[N,5,8,6] x) => (float16[N,4,8,6] y) { m = Conv(x, w) y = Conv(m, v) }"
    values = {"w": weight(11, 5, 1, 1), "v": weight(4, 11, 1, 1)}
    for scale, fits in ((0.1, True), (1e-3, False)):
        half = {name: (array * scale).astype(np.float16) for name, array in values.items()}
        if fits:
            assert_fuses(model_from(text, half), MERGE, ["Conv"], rtol=5e-3)
        else:
            assert_skips(model_from(text, half), MERGE, "merged weights are too small for float16")
