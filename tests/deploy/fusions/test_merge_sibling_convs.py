"""merge_sibling_convs: which convs of one input become one, and why the others don't."""

from __future__ import annotations

import numpy as np
import onnx.shape_inference
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

MERGE = "merge_sibling_convs"


def model(first: str, second: str, *, kernel: tuple[int, int] = (1, 1), **more: object) -> Model:
    """Two convs over 13 channels, to 4 and 2; the output sizes are those of y."""
    text = (
        "g (float[N,13,8,6] x) => (float[N,4,A,B] y, float[N,2,A,B] z) "
        f"{{ c = {first} d = {second} y = Relu(c) z = Neg(d) }}"
    )
    values = {
        "w": weight(4, 13, *kernel),
        "b": weight(4, seed=1),
        "v": weight(2, 13, *kernel, seed=2),
        "e": weight(2, seed=3),
        **more,
    }
    used = {n: np.asarray(a) for n, a in values.items() if f" {n})" in text or f" {n}," in text}
    made = model_from(text, used)
    for output in made.proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return Model(onnx.shape_inference.infer_shapes(made.proto), "m")


@pytest.mark.parametrize("first", ["Conv(x, w, b)", "Conv(x, w)"])
@pytest.mark.parametrize("second", ["Conv(x, v, e)", "Conv(x, v)"])
def test_two_become_one(first: str, second: str) -> None:
    made = model(first, second)
    fused = assert_fuses(made, MERGE, ["Conv", "Split", "Relu", "Neg"], reason="2 convs of one")
    assert [d.bytes_saved for d in fused.decisions] == [4 * (13 - 2 * 6) * 8 * 6]


def test_the_same_geometry_in_other_words() -> None:
    spelled = "<kernel_shape=[3,2], pads=[0,0,0,0], strides=[2,1], dilations=[1,1], group=1>"
    made = model(f"Conv{spelled}(x, w)", "Conv<strides=[2,1]>(x, v)", kernel=(3, 2))
    assert_fuses(made, MERGE, ["Conv", "Split", "Relu", "Neg"])


def test_three_become_one_and_another_geometry_stays() -> None:
    text = """
    g (float[N,29,8,6] x) =>
        (float[N,1,8,6] u, float[N,2,8,6] y, float[N,3,8,6] z, float[N,2,8,6] o) {
        u = Conv(x, a)  y = Conv(x, b)  o = Conv<pads=[1,1,1,1]>(x, d)  z = Conv(x, c, s)
    }
    """
    values = {n: weight(i + 1, 29, 1, 1) for i, n in enumerate("abc")}
    made = model_from(text, {**values, "d": weight(2, 29, 3, 3), "s": weight(3)})
    fused = assert_fuses(made, MERGE, ["Conv", "Conv", "Split"])
    assert any("3 convs of one input merged" in d.reason for d in fused.decisions)


@pytest.mark.parametrize(
    "second",
    [
        "Conv<strides=[2,1]>(x, v)",
        "Conv<pads=[1,0,0,0]>(x, v)",
        "Conv<dilations=[1,2]>(x, v)",
        'Conv<auto_pad="SAME_UPPER">(x, v)',
    ],
)
def test_another_geometry_is_none(second: str) -> None:
    made = model("Conv(x, w)", second, kernel=(3, 2))
    fused = fuse(made, [MERGE])
    assert (ops(fused), fused.decisions) == (ops(made), ())


def test_another_kernel_is_none() -> None:
    made = model("Conv(x, w)", "Conv(x, v)", v=weight(2, 13, 3, 3))
    fused = fuse(made, [MERGE])
    assert (ops(fused), fused.decisions) == (ops(made), ())


# ---- what stays, and why


def test_skips_more_output_than_input() -> None:
    made = model("Conv(x, w)", "Conv(x, v)", v=weight(3, 13, 1, 1))
    fused = assert_skips(made, MERGE, "the output would move 48 elements more than it saves")
    assert len(fused.decisions) == 1, "told once, for the first of them"


def test_skips_groups() -> None:
    text = """
    g (float[N,6,8,6] x) => (float[N,6,6,5] y, float[N,6,6,5] z) {
        y = Conv<group=6>(x, w)  z = Conv<group=6>(x, v)
    }
    """
    made = model_from(text, {"w": weight(6, 1, 3, 2), "v": weight(6, 1, 3, 2, seed=1)})
    assert_skips(made, MERGE, "grouped convs read different channels")


@pytest.mark.parametrize("name", ["w", "b"])
def test_skips_what_is_computed_at_run_time(name: str) -> None:
    shape = {"w": "4,13,1,1", "b": "4"}[name]
    text = (
        f"g (float[N,13,8,6] x, float[{shape}] {name}) => (float[N,4,8,6] y, float[N,2,8,6] z) "
        "{ y = Conv(x, w, b) z = Conv(x, v) }"
    )
    values = {"w": weight(4, 13, 1, 1), "b": weight(4), "v": weight(2, 13, 1, 1)}
    made = model_from(text, {n: a for n, a in values.items() if n != name})
    what = {"w": "weights", "b": "bias"}[name]
    assert_skips(made, MERGE, f"the {what} of Conv (are|is) computed at run time")


def test_skips_unknown_sizes() -> None:
    text = """
    g (float[N,13,8,6] x, int64[R] s) => (float[A,4,B,C] y, float[A,2,B,C] z) {
        r = Reshape(x, s)  c = Conv(r, w)  d = Conv(r, v)  y = Relu(c)  z = Neg(d)
    }
    """
    made = model_from(text, {"w": weight(4, 13, 1, 1), "v": weight(2, 13, 1, 1)})
    assert_skips(made, MERGE, "the sizes around the convs are unknown")
