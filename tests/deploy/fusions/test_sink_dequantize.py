"""sink_dequantize: below which operators a dequantizer sinks, bit for bit, and why it stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops
from movers import MOVERS, integers

from deploy.artifacts.model import Model
from deploy.fuse import fuse

SINK = "sink_dequantize"
SCALE = {"sc": np.float32(0.03)}
FORMS = {"uint8": np.uint8(2), "int8": np.int8(-3)}
SPREAD = np.array([0, 2, 1])


def moving(op: str, form: str = "uint8", *, opset: int = 17) -> Model:
    dims_in, dims_out, call, constants = MOVERS[op]
    zero = FORMS.get(form, np.dtype(form).type(2))
    left = "y, unread" if op == "Split" else "y"
    body = f"x = DequantizeLinear(q, sc, zp) {left} = {call}"
    text = f"g ({form}[{dims_in}] q) => (float[{dims_out}] y) {{ {body} }}"
    return model_from(text, {**integers(constants), **SCALE, "zp": zero}, opset=opset, ir=10)


def sunk(body: str, ends: str, *, inputs: str = "", **values: object) -> Model:
    """q: uint8[N,4,6] becomes x, read by `body`."""
    text = f"g (uint8[N,4,6] q{inputs}) => ({ends}) {{ x = DequantizeLinear(q, sc, zp) {body} }}"
    given = {name: np.asarray(value) for name, value in values.items()}
    return model_from(text, {**SCALE, "zp": np.uint8(2), **given})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("op", MOVERS)
def test_sinks_below_every_op(op: str, form: str) -> None:
    reason = f"DequantizeLinear to float32 moved below {op}"
    fused = assert_fuses(moving(op, form), SINK, [op, "DequantizeLinear"], reason=reason, rtol=0)
    assert fused.proto.graph.node[0].input[0] == "q"


def test_a_split_all_of_whose_parts_are_read() -> None:
    model = sunk("y, z = Split<axis=1>(x, s)", "float[N,1,6] y, float[N,3,6] z", s=[1, 3])
    fused = assert_fuses(model, SINK, ["Split", "DequantizeLinear", "DequantizeLinear"], rtol=0)
    # 24 dequantized either way; 24 read and 24 written in one byte, not four
    assert [d.bytes_saved for d in fused.decisions] == [2 * 24 * 3]


def test_several_movers_at_once() -> None:
    """One at a time, the dequantizer of the other would still have to stay."""
    body = "y = Transpose<perm=[0,2,1]>(x)  z = Slice(x, a, b, s)"
    values = integers({"a": [0], "b": [3], "s": [1]})
    model = sunk(body, "float[N,6,4] y, float[N,3,6] z", **values)
    expected = ["Transpose", "Slice", "DequantizeLinear", "DequantizeLinear"]
    fused = assert_fuses(model, SINK, expected, reason="below Slice|Transpose", rtol=0)
    moved = (24 + 24 + 18 + 18) * 3
    assert [d.bytes_saved for d in fused.decisions] == [moved + 24 * 5 - (24 + 18) * 5]


def test_down_a_whole_shuffle() -> None:
    body = """
    a = Reshape(x, s)  b = Transpose<perm=[0,2,1,3]>(a)  c = Reshape(b, u)  y = Relu(c)
    """
    model = sunk(body, "float[N,4,6] y", **integers({"s": [0, 2, 2, 6], "u": [0, 4, 6]}))
    chain = ["Reshape", "Transpose", "Reshape", "DequantizeLinear", "Relu"]
    fused = assert_fuses(model, SINK, chain, rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [0, 2 * 24 * 3, 0]


def concat(scale: float = 0.03, zero: int = 2, other: str = "float[N,3,6] w") -> Model:
    body = """
    v = DequantizeLinear(p, sd, zq)  y = Concat<axis=1>(x, v)
    """
    values = {"sd": np.float32(scale), "zq": np.uint8(zero)}
    return sunk(body, "float[N,7,6] y", inputs=", uint8[N,3,6] p", **values)


def test_a_concat_whose_inputs_have_one_form() -> None:
    fused = assert_fuses(concat(), SINK, ["Concat", "DequantizeLinear"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [2 * 42 * 3]


@pytest.mark.parametrize(("scale", "zero"), [(0.04, 2), (0.03, 3)])
def test_skips_a_concat_of_other_forms(scale: float, zero: int) -> None:
    reason = "Concat also reads 'v', which doesn't come from the same DequantizeLinear"
    assert_skips(concat(scale, zero), SINK, reason)


def test_skips_a_concat_with_a_float() -> None:
    model = sunk("y = Concat<axis=1>(x, w)", "float[N,7,6] y", inputs=", float[N,3,6] w")
    assert_skips(model, SINK, "Concat also reads 'w', which doesn't come from the same")


def test_what_cannot_go_along_keeps_the_dequantizer_in_front() -> None:
    """MaxPool and its map are worth a second dequantizer; Add still needs the first."""
    body = "y = MaxPool<kernel_shape=[2], strides=[3]>(x)  z = Add(x, x)"
    model = sunk(body, "float[N,4,2] y, float[N,4,6] z")
    expected = ["DequantizeLinear", "MaxPool", "Add", "DequantizeLinear"]
    fused = assert_fuses(model, SINK, expected, rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [(24 + 8) * 3 - 8 * 5]


def test_skips_a_second_dequantizer_that_moves_more() -> None:
    body = "y = Expand(x, s)  z = Neg(x)"
    model = sunk(body, "float[5,4,6] y, float[N,4,6] z", **integers({"s": [5, 1, 1]}))
    more = 120 * 5 - (24 + 120) * 3
    assert_skips(model, SINK, f"dequantizing below Expand would move {more} bytes more")


def test_skips_a_relabel_beside_another_reader() -> None:
    body = "y = Flatten(x)  z = Neg(x)"
    model = sunk(body, "float[N,24] y, float[N,4,6] z")
    assert_skips(model, SINK, "dequantizing below Flatten would move 120 bytes more")


def test_skips_a_float_output_of_the_model() -> None:
    model = sunk("y = Expand(x, s)", "float[5,4,6] y, float[N,4,6] x", **integers({"s": [5, 1, 1]}))
    assert_skips(model, SINK, "dequantizing below Expand would move")


def test_the_float_as_a_side_input_stays() -> None:
    """A Pad's value is no data that moves."""
    body = "f = Flatten<axis=0>(x)  v = ReduceMax(f)  y = Pad(w, p, v)  z = Neg(x)"
    model = sunk(body, "float[9] y, float[N,4,6] z", inputs=", float[7] w", p=[1, 1])
    assert "DequantizeLinear" in ops(fuse(model, [SINK]))


def test_skips_sizes_nobody_knows() -> None:
    text = """
    g (float[N,6] f, int64[K] s) => (float[A,B] y) {
        u = com.microsoft.Gelu(f)  q = QuantizeLinear(u, sc, zp)
        x = DequantizeLinear(q, sc, zp)  y = Expand(x, s)
    }
    """
    model = model_from(text, {**SCALE, "zp": np.uint8(2)})
    value = onnx.helper.make_tensor_value_info("q", onnx.TensorProto.UINT8, None)
    model.proto.graph.value_info.append(value)
    assert_skips(model, SINK, "the sizes around Expand are unknown, so the gain is too")


def test_pads_with_what_the_value_was() -> None:
    model = sunk("y = Pad(x, p, v)", "float[N,5,6] y", p=[0, 1, 0, 0, 0, 0], v=np.float32(0.15))
    model.proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(0.05), "sc"))
    assert np.float32(0.05) * 3 == np.float32(0.15), "an exact step"
    assert_fuses(model, SINK, ["Pad", "DequantizeLinear"], rtol=0)


def test_skips_a_pad_value_between_the_steps() -> None:
    model = sunk("y = Pad(x, p, v)", "float[N,5,6] y", p=[0, 1, 0, 0, 0, 0], v=np.float32(0.04))
    assert_skips(model, SINK, "Pad's value .* is not representable in uint8")


@pytest.mark.parametrize("op", ["Pad", "DepthToSpace", "SpaceToDepth", "MaxPool"])
def test_skips_a_type_the_reference_could_not_move(op: str) -> None:
    reason = f"no int16 kernel for {op} in ONNX Runtime on the CPU"
    assert_skips(moving(op, "int16", opset=21), SINK, reason)


def test_skips_the_indices_of_max_pool() -> None:
    ends = "float[N,4,5] y, int64[N,4,5] i"
    model = sunk("y, i = MaxPool<kernel_shape=[2]>(x)", ends)
    assert_skips(model, SINK, "the indices of MaxPool depend on which of two equal values")


def test_skips_one_scale_per_channel() -> None:
    values = {"sc": np.float32([0.1, 0.2, 0.3, 0.4]), "zp": np.uint8([1, 2, 3, 4])}
    model = sunk("y = Transpose<perm=[0,2,1]>(x)", "float[N,6,4] y", **values)
    assert_skips(model, SINK, "DequantizeLinear has 4 scales, each for a part of the tensor")


def test_weights_stay_next_to_their_layer() -> None:
    text = """
    g (float[N,6] f) => (float[N,4] y) {
        x = DequantizeLinear(q, sc, zp)  t = Transpose<perm=[1,0]>(x)  y = MatMul(f, t)
    }
    """
    values = {"q": np.arange(24, dtype=np.int8).reshape(4, 6), "zp": np.int8(0), **SCALE}
    fused = fuse(model_from(text, values), [SINK])
    assert (ops(fused), fused.decisions) == (["DequantizeLinear", "Transpose", "MatMul"], ())


def test_a_table_is_dequantized_where_it_is_read() -> None:
    text = """
    g (int64[N,5] i) => (float[N,5,6] y) { x = DequantizeLinear(q, sc, zp)  y = Gather(x, i) }
    """
    values = {"q": np.arange(24, dtype=np.int8).reshape(4, 6), "zp": np.int8(0), **SCALE}
    assert_fuses(model_from(text, values), SINK, ["Gather", "DequantizeLinear"], rtol=0)


def test_a_mover_inside_a_branch_stays() -> None:
    text = """
    g (uint8[N,4,6] q, bool k) => (float[N,6,4] y) {
        x = DequantizeLinear(q, sc, zp)
        y = If (k) <
            then_branch = t () => (float[N,6,4] u) { u = Transpose<perm=[0,2,1]>(x) },
            else_branch = e () => (float[N,6,4] v) { w = Neg(x) v = Transpose<perm=[0,2,1]>(w) }
        >
    }
    """
    model = model_from(text, {**SCALE, "zp": np.uint8(2)})
    assert_skips(model, SINK, "lies in the body of another node|would move")


@pytest.mark.parametrize("body", ["y = Neg(x)", "y = MatMul(x, x)"])
def test_a_dequantizer_in_front_of_arithmetic_is_none(body: str) -> None:
    text = f"g (uint8[4,4] q) => (float[4,4] y) {{ x = DequantizeLinear(q, sc, zp) {body} }}"
    fused = fuse(model_from(text, {**SCALE, "zp": np.uint8(2)}), [SINK])
    assert fused.decisions == ()


def test_an_int32_is_no_narrower_than_a_float() -> None:
    text = """
    g (int32[N,4,6] q) => (float[N,6,4] y) {
        x = DequantizeLinear(q, sc)  y = Transpose<perm=[0,2,1]>(x)
    }
    """
    fused = fuse(model_from(text, SCALE), [SINK])
    assert (ops(fused), fused.decisions) == (["DequantizeLinear", "Transpose"], ())
