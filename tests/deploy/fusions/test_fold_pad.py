"""fold_pad: which layers take over a Pad, exactly, and why the others don't."""

from __future__ import annotations

import re

import numpy as np
import onnx.shape_inference
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

FOLD = "fold_pad"
ONE_SIDED = [0, 0, 1, 0, 0, 0, 2, 1]


def sized(made: Model) -> Model:
    """The model, with the sizes of its outputs inferred in place of the letters in its text."""
    for output in made.proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    return Model(onnx.shape_inference.infer_shapes(made.proto), made.name)


def padded(
    layer: str,
    pads: list[int] | None = None,
    value: float | None = None,
    *,
    front: str = "r = Relu(x)",
    outputs: int = 3,
) -> Model:
    side = ", pads" if value is None else ", pads, value"
    text = (
        f"g (float[N,3,8,6] x) => (float[N,{outputs},P,Q] y) "
        f"{{ {front} p = Pad(r{side}) y = {layer} }}"
    )
    values = {
        "pads": np.array(ONE_SIDED if pads is None else pads),
        "w": weight(4, 3, 3, 3),
        "value": np.float32(0 if value is None else value),
        "zero": np.float32(0),
        "low": np.float32(-0.5),
        "high": np.float32(6),
    }
    used = {n: v for n, v in values.items() if re.search(rf"[(,] ?{n}[,)]", text)}
    return sized(model_from(text, used))


CONVS = {
    "plain": "Conv(p, w)",
    "padded itself": "Conv<pads=[1,0,2,1]>(p, w)",
    "strided, dilated": "Conv<strides=[2,1], dilations=[1,2]>(p, w)",
    "valid": 'Conv<auto_pad="VALID">(p, w)',
}


@pytest.mark.parametrize("layer", CONVS.values(), ids=CONVS)
@pytest.mark.parametrize("value", [None, 0.0])
def test_a_conv_pads(layer: str, value: float | None) -> None:
    made = padded(layer, value=value, front="r = Tanh(x)", outputs=4)
    assert_fuses(made, FOLD, ["Tanh", "Conv"], reason="Pad folded into Conv")


def test_a_conv_pads_by_more_than_its_kernel() -> None:
    made = padded("Conv(p, w)", [0, 0, 5, 4, 0, 0, 0, 7], front="r = Tanh(x)", outputs=4)
    assert_fuses(made, FOLD, ["Tanh", "Conv"])


def test_a_conv_over_one_axis_pads() -> None:
    text = "g (float[N,3,9] x) => (float[N,4,9] y) { p = Pad(x, pads) y = Conv(p, w) }"
    values = {"pads": np.array([0, 0, 2, 0, 0, 1]), "w": weight(4, 3, 4)}
    assert_fuses(model_from(text, values), FOLD, ["Conv"])


def test_weights_at_run_time_pad_as_well() -> None:
    text = (
        "g (float[N,3,8,6] x, float[4,3,3,3] w) => (float[N,4,9,5] y) "
        "{ p = Pad(x, pads) y = Conv(p, w) }"
    )
    assert_fuses(model_from(text, {"pads": np.array(ONE_SIDED)}), FOLD, ["Conv"])


@pytest.mark.parametrize("axes", [[2, 3], [-2, -1], [3, 2]])
def test_amounts_on_named_axes(axes: list[int]) -> None:
    text = (
        'g (float[N,3,8,6] x) => (float[N,4,P,Q] y) { p = Pad(x, pads, "", axes) y = Conv(p, w) }'
    )
    values = {"pads": np.array([1, 0, 2, 1]), "axes": np.array(axes), "w": weight(4, 3, 3, 3)}
    assert_fuses(sized(model_from(text, values, opset=18)), FOLD, ["Conv"])


def test_axes_left_out_by_name() -> None:
    text = 'g (float[N,3,8,6] x) => (float[N,4,9,5] y) { p = Pad(x, pads, "", "") y = Conv(p, w) }'
    values = {"pads": np.array(ONE_SIDED), "w": weight(4, 3, 3, 3)}
    assert_fuses(model_from(text, values, opset=18), FOLD, ["Conv"])


def test_unknown_sizes_save_an_unknown_number_of_bytes() -> None:
    text = """
    g (float[N,3,8,6] x, int64[R] s) => (float[N,4,P,Q] y) {
        r = Reshape(x, s)  p = Pad(r, pads)  y = Conv(p, w)
    }
    """
    values = {"pads": np.array(ONE_SIDED), "w": weight(4, 3, 3, 3)}
    fused = fuse(model_from(text, values), [FOLD])
    assert ops(fused) == ["Reshape", "Conv"]
    assert [d.bytes_saved for d in fused.decisions] == [0]


def test_skips_axes_of_an_unknown_rank() -> None:
    text = """
    g (float[N,3,8,6] x, int64[R] s) => (float[N,4,P,Q] y) {
        r = Reshape(x, s)  p = Pad(r, pads, "", axes)  y = Conv(p, w)
    }
    """
    values = {"pads": np.array([1, 0, 2, 1]), "axes": np.array([2, 3]), "w": weight(4, 3, 3, 3)}
    assert_skips(model_from(text, values, opset=18), FOLD, "the axes of Pad are unknown")


AVERAGES = {
    "excluding": "AveragePool<kernel_shape=[3,2]>(p)",
    "strided": "AveragePool<kernel_shape=[3,3], strides=[2,2]>(p)",
    "including": "AveragePool<kernel_shape=[3,3], count_include_pad=1>(p)",
    "padded, including": (
        "AveragePool<kernel_shape=[4,4], pads=[1,1,1,1], count_include_pad=1>(p)"
    ),
}


@pytest.mark.parametrize("layer", AVERAGES.values(), ids=AVERAGES)
def test_an_average_counts_the_zeros(layer: str) -> None:
    made = padded(layer, front="r = Tanh(x)")
    fused = assert_fuses(made, FOLD, ["Tanh", "AveragePool"])
    node = fused.proto.graph.node[1]
    assert {a.name: a.i for a in node.attribute}["count_include_pad"] == 1


FRONTS = {
    "Relu": "r = Relu(x)",
    "Sigmoid": "r = Sigmoid(x)",
    "HardSigmoid": "r = HardSigmoid(x)",
    "Abs": "r = Abs(x)",
    "Exp": "r = Exp(x)",
    "Softplus": "r = Softplus(x)",
    "Softmax": "r = Softmax(x)",
    "Relu, pooled": "e = Relu(x) r = MaxPool<kernel_shape=[1,1]>(e)",
    "Sqrt": "e = Abs(x) r = Sqrt(e)",
    "Clip": "r = Clip(x, zero)",
}


@pytest.mark.parametrize("front", FRONTS.values(), ids=FRONTS)
def test_zeros_are_the_least_of_what_is_never_negative(front: str) -> None:
    made = padded("MaxPool<kernel_shape=[3,3], strides=[2,1]>(p)", front=front)
    assert_fuses(made, FOLD, [op for op in ops(made) if op != "Pad"], rtol=0)


@pytest.mark.parametrize("layer", ["MaxPool<kernel_shape=[4,3], pads=[1,0,0,1]>(p)"])
def test_a_max_pool_that_pads_itself(layer: str) -> None:
    assert_fuses(padded(layer), FOLD, ["Relu", "MaxPool"], rtol=0)


def test_minus_infinity_is_what_max_pool_pads_with() -> None:
    made = padded("MaxPool<kernel_shape=[3,3]>(p)", value=-np.inf, front="r = Tanh(x)")
    assert_fuses(made, FOLD, ["Tanh", "MaxPool"], rtol=0)


def test_a_pad_for_two_convs_goes_with_the_second() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,9,5] y, float[N,4,9,5] z) {
        p = Pad(x, pads)  y = Conv(p, w)  z = Conv(p, v)
    }
    """
    values = {"pads": np.array(ONE_SIDED), "w": weight(4, 3, 3, 3), "v": weight(4, 3, 3, 3, seed=1)}
    fused = assert_fuses(model_from(text, values), FOLD, ["Conv", "Conv"])
    x, p = 3 * 8 * 6, 3 * 11 * 7
    assert [d.bytes_saved for d in fused.decisions] == [4 * (p - x), 4 * (2 * p)]


def test_a_pad_that_others_read_stays_for_them() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,4,9,5] y, float[N,3,11,7] p) {
        p = Pad(x, pads)  y = Conv(p, w)
    }
    """
    values = {"pads": np.array(ONE_SIDED), "w": weight(4, 3, 3, 3)}
    assert_fuses(model_from(text, values), FOLD, ["Pad", "Conv"])


def test_other_readers_are_none() -> None:
    text = "g (float[N,3,8,6] x) => (float[N,3,11,7] y) { p = Pad(x, pads) y = Relu(p) }"
    fused = fuse(model_from(text, {"pads": np.array(ONE_SIDED)}), [FOLD])
    assert (ops(fused), fused.decisions) == (["Pad", "Relu"], ())


# ---- what doesn't fold, and why


def test_a_pad_of_another_domain_is_none() -> None:
    text = """
    g (float[N,3,8,6] x) => (float[N,2,P,Q] y) { p = com.microsoft.Pad(x, pads) y = Conv(p, w) }
    """
    model = model_from(text, {"pads": np.array([ONE_SIDED]), "w": weight(2, 3, 3, 3)})
    fused = fuse(model, [FOLD])
    assert (ops(fused), fused.decisions) == (["Pad", "Conv"], ())


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_skips_other_modes(mode: str) -> None:
    text = (
        "g (float[N,3,8,6] x) => (float[N,4,9,5] y) "
        f'{{ p = Pad<mode="{mode}">(x, pads) y = Conv(p, w) }}'
    )
    made = model_from(text, {"pads": np.array(ONE_SIDED), "w": weight(4, 3, 3, 3)})
    assert_skips(made, FOLD, f"Pad is in mode {mode}")


@pytest.mark.parametrize("inputs", ["int64[8] pads", "float value", "int64[2] axes"])
def test_skips_what_is_computed_at_run_time(inputs: str) -> None:
    text = (
        f"g (float[N,3,8,6] x, {inputs}) => (float[N,4,P,Q] y) "
        "{ p = Pad(x, pads, value, axes) y = Conv(p, w) }"
    )
    values = {
        "pads": np.array([1, 0, 2, 1]),
        "value": np.float32(0),
        "axes": np.array([2, 3]),
        "w": weight(4, 3, 3, 3),
    }
    name = inputs.split()[-1]
    made = model_from(text, {n: v for n, v in values.items() if n != name}, opset=18)
    assert_skips(
        made, FOLD, {"pads": "amounts", "value": "value", "axes": "axes"}[name] + " of Pad"
    )


def test_skips_a_crop() -> None:
    made = padded("Conv(p, w)", [0, 0, 1, -1, 0, 0, 1, 1], outputs=4)
    assert_skips(made, FOLD, "Pad also crops")


@pytest.mark.parametrize("pads", [[0, 0, 1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]])
def test_skips_other_axes(pads: list[int]) -> None:
    text = "g (float[1,2,8,6] x) => (float[M,4,P,Q] y) { p = Pad(x, pads) y = Conv(p, w) }"
    channels = 3 if pads[1] else 2
    made = model_from(text, {"pads": np.array(pads), "w": weight(4, channels, 3, 3)})
    assert_skips(made, FOLD, "pads the batch or the channels")


@pytest.mark.parametrize(
    ("layer", "outputs"), [("Conv(p, w)", 4), ("AveragePool<kernel_shape=[3,3]>(p)", 3)]
)
def test_skips_another_value(layer: str, outputs: int) -> None:
    made = padded(layer, value=0.5, outputs=outputs)
    assert_skips(made, FOLD, r"Pad's value is 0.5, and \w+ pads with 0")


@pytest.mark.parametrize(
    ("front", "value"),
    [
        ("r = Tanh(x)", 0.0),
        ("r = HardSwish(x)", 0.0),
        ("r = Relu(x)", 0.25),
        ("r = Sub(x, zero)", 0.0),
        ("r = Clip(x)", 0.0),
        ("r = Clip(x, low)", 0.0),
        ('r = Clip(x, "", high)', 0.0),
    ],
)
def test_skips_zeros_that_may_win(front: str, value: float) -> None:
    made = padded("MaxPool<kernel_shape=[3,3]>(p)", value=value, front=front)
    assert_skips(made, FOLD, "may exceed the data, and MaxPool pads with the lowest")


def test_skips_zeros_on_an_input_of_the_model() -> None:
    text = (
        "g (float[N,3,8,6] x) => (float[N,3,9,5] y) "
        "{ p = Pad(x, pads) y = MaxPool<kernel_shape=[3,3]>(p) }"
    )
    made = model_from(text, {"pads": np.array(ONE_SIDED)})
    assert_skips(made, FOLD, "may exceed the data")


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_skips_a_layer_that_pads_by_itself(mode: str) -> None:
    made = padded(f'Conv<auto_pad="{mode}", strides=[2,2]>(p, w)', outputs=4)
    assert_skips(made, FOLD, f"Conv pads by itself \\({mode}\\)")


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_skips_a_size_rounded_up(op: str) -> None:
    made = padded(f"{op}<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(p)")
    assert_skips(made, FOLD, f"{op} rounds its size up")


def test_skips_a_dilated_pool() -> None:
    made = padded("MaxPool<kernel_shape=[3,3], dilations=[2,1]>(p)")
    assert_skips(made, FOLD, "a dilated MaxPool may see nothing but padding")


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", [[0, 0, 3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 2]])
def test_skips_a_window_of_padding_alone(op: str, pads: list[int]) -> None:
    made = padded(f"{op}<kernel_shape=[3,2]>(p)", pads)
    assert_skips(made, FOLD, rf"{op} over \[3, 2\] can't pad by")


def test_skips_indices() -> None:
    text = (
        "g (float[N,3,8,6] x) => (float[N,3,9,5] y, int64[N,3,9,5] i) "
        "{ r = Relu(x) p = Pad(r, pads) y, i = MaxPool<kernel_shape=[3,3]>(p) }"
    )
    made = model_from(text, {"pads": np.array(ONE_SIDED)})
    assert_skips(made, FOLD, "the indices of MaxPool count the padded map")


def test_skips_an_average_that_leaves_its_own_padding_out() -> None:
    made = padded("AveragePool<kernel_shape=[4,4], pads=[1,1,1,1]>(p)")
    assert_skips(made, FOLD, "counts the zeros of Pad, but not its own")
