"""hoist_quantize: above which operators a quantizer climbs, bit for bit, and why it stays."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops
from movers import MOVERS, integers

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery import movement

HOIST = "hoist_quantize"
SCALE = {"sc": np.float32(0.03)}
# zero points off the middle, values outside the range: the quantizer saturates on both sides
FORMS = {"uint8": np.uint8(100), "int8": np.int8(-3)}
TRANSPOSE = "t = Transpose<perm=[0,2,3,1]>(x)  y = QuantizeLinear(t, sc, zp)"


def moving(op: str, form: str = "uint8", *, opset: int = 17) -> Model:
    dims_in, dims_out, call, constants = MOVERS[op]
    zero = FORMS.get(form, np.dtype(form).type(5))
    left = "t, unread" if op == "Split" else "t"
    body = f"{left} = {call} y = QuantizeLinear(t, sc, zp)"
    text = f"g (float[{dims_in}] x) => ({form}[{dims_out}] y) {{ {body} }}"
    return model_from(text, {**integers(constants), **SCALE, "zp": zero}, opset=opset, ir=10)


def transposed(
    values: Mapping[str, np.ndarray], body: str = TRANSPOSE, *, out: str = "uint8"
) -> Model:
    text = f"g (float[N,3,8,6] x) => ({out}[N,8,6,3] y) {{ {body} }}"
    return model_from(text, values, opset=19, ir=9)


def test_every_mover_is_tried() -> None:
    assert set(MOVERS) == {*movement.MOVES, *movement.MONOTONE}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("op", MOVERS)
def test_climbs_above_every_op(op: str, form: str) -> None:
    count = 2 if op == "Concat" else 1
    reason = f"QuantizeLinear to {form} moved above {op}"
    fused = assert_fuses(
        moving(op, form), HOIST, ["QuantizeLinear"] * count + [op], reason=reason, rtol=0
    )
    assert fused.proto.graph.node[0].input[0] == "x"


@pytest.mark.parametrize(
    ("attributes", "out"),
    [
        ("kernel_shape=[3,2], strides=[1,2], ceil_mode=1", "7,4"),
        ("kernel_shape=[2,2], dilations=[3,2]", "6,5"),
        ('kernel_shape=[3,2], strides=[2,1], auto_pad="SAME_UPPER"', "5,7"),
    ],
)
def test_every_geometry_of_max_pool(attributes: str, out: str) -> None:
    text = f"""
    g (float[N,3,9,7] x) => (uint8[N,3,{out}] y) {{
        r = Neg(x)  t = MaxPool<{attributes}>(r)  y = QuantizeLinear(t, sc, zp)
    }}
    """
    model = model_from(text, {**SCALE, "zp": np.uint8(100)})
    assert_fuses(model, HOIST, ["Neg", "QuantizeLinear", "MaxPool"], rtol=0)


def test_skips_the_indices_of_max_pool() -> None:
    text = """
    g (float[N,3,8,6] x) => (uint8[N,3,8,6] y, int64[N,3,8,6] i) {
        t, i = MaxPool<kernel_shape=[1,1]>(x)  y = QuantizeLinear(t, sc, zp)
    }
    """
    model = model_from(text, {**SCALE, "zp": np.uint8(3)})
    assert_skips(model, HOIST, "'i' is an output of the model|indices of MaxPool")


def test_a_shuffle_moves_as_integers() -> None:
    text = """
    g (float[N,6,8,5] x) => (uint8[N,6,8,5] y) {
        r = Relu(x)  a = Reshape(r, s)  b = Transpose<perm=[0,2,1,3,4]>(a)  c = Reshape(b, u)
        y = QuantizeLinear(c, sc, zp)
    }
    """
    shapes = integers({"s": [0, 2, 3, 8, 5], "u": [0, 6, 8, 5]})
    model = model_from(text, {**shapes, **SCALE, "zp": np.uint8(100)})
    chain = ["Relu", "QuantizeLinear", "Reshape", "Transpose", "Reshape"]
    fused = assert_fuses(model, HOIST, chain, rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [0, 2 * 240 * (4 - 1), 0]


def parts(second: float = 0.03, zero: int = 100) -> Model:
    text = """
    g (float[N,7,6] x) => (uint8[N,2,6] y, uint8[N,5,6] z) {
        a, b = Split<axis=1>(x, s)  y = QuantizeLinear(a, sc, zp)  z = QuantizeLinear(b, sd, zq)
    }
    """
    values = {**SCALE, "zp": np.uint8(100), "sd": np.float32(second), "zq": np.uint8(zero)}
    return model_from(text, {"s": np.array([2, 5]), **values})


def test_a_split_whose_parts_have_one_form() -> None:
    fused = assert_fuses(parts(), HOIST, ["QuantizeLinear", "Split"], rtol=0)
    assert list(fused.proto.graph.node[1].output) == ["y", "z"]


@pytest.mark.parametrize(("scale", "zero"), [(0.04, 100), (0.03, 101)])
def test_skips_a_split_whose_parts_differ(scale: float, zero: int) -> None:
    assert_skips(parts(scale, zero), HOIST, "'QuantizeLinear -> z' needs the wide value of 'b'")


def test_a_quantizer_that_is_there_already_serves_both() -> None:
    text = """
    g (float[N,3,8] x) => (uint8[N,8,3] y, uint8[N,3,8] z) {
        z = QuantizeLinear(x, sc, zp)
        t = Transpose<perm=[0,2,1]>(x)  y = QuantizeLinear<axis=0>(t, sc, zp)
    }
    """
    model = model_from(text, {**SCALE, "zp": np.uint8(100)})
    fused = assert_fuses(model, HOIST, ["QuantizeLinear", "Transpose"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [24 * 5 + 2 * 24 * 3]


def test_above_both_sides_of_a_concat() -> None:
    text = """
    g (float[N,3,8] x, float[N,5,8] z) => (uint8[N,8,8] y) {
        r = Relu(z)  t = Concat<axis=1>(x, r)  y = QuantizeLinear(t, sc, zp)
    }
    """
    model = model_from(text, {**SCALE, "zp": np.uint8(100)})
    fused = assert_fuses(
        model, HOIST, ["Relu", "QuantizeLinear", "QuantizeLinear", "Concat"], rtol=0
    )
    assert [d.bytes_saved for d in fused.decisions] == [2 * 64 * 3]


def test_a_scale_in_a_list_of_one_and_no_zero_point() -> None:
    model = transposed({"sc": np.float32([0.03])}, TRANSPOSE.replace(", zp", ""))
    fused = assert_fuses(model, HOIST, ["QuantizeLinear", "Transpose"], rtol=0)
    # a list would be one scale per channel elsewhere
    assert [list(i.dims) for i in fused.proto.graph.initializer] == [[]]


def padded(value: np.ndarray | None, mode: str = "constant", zero: int = 100) -> Model:
    names = "x, p" if value is None else "x, p, v"
    body = f't = Pad<mode="{mode}">({names})  y = QuantizeLinear(t, sc, zp)'
    text = f"g (float[N,3,8] x) => (uint8[N,4,11] y) {{ {body} }}"
    values = {"p": np.array([0, 1, 2, 0, 0, 1]), "sc": np.float32(0.25), "zp": np.uint8(zero)}
    return model_from(text, values if value is None else {**values, "v": value})


@pytest.mark.parametrize("value", [None, 0.0, -25.0, 38.75])
def test_pads_with_what_the_value_becomes(value: float | None) -> None:
    model = padded(None if value is None else np.float32(value))
    fused = assert_fuses(model, HOIST, ["QuantizeLinear", "Pad"], rtol=0)
    made = fused.proto.graph.node[1].input[2]
    (found,) = [i for i in fused.proto.graph.initializer if i.name == made]
    assert onnx.numpy_helper.to_array(found) == np.uint8(round((value or 0) * 4 + 100))


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_a_pad_that_repeats_has_no_value(mode: str) -> None:
    fused = assert_fuses(padded(None, mode), HOIST, ["QuantizeLinear", "Pad"], rtol=0)
    assert len(fused.proto.graph.node[1].input) == 2


@pytest.mark.parametrize("value", [0.1, 39.0, -26.0, np.inf, np.nan])
def test_skips_a_pad_value_between_the_steps_or_outside(value: float) -> None:
    reason = "Pad's value .* is not representable in uint8"
    assert_skips(padded(np.float32(value)), HOIST, reason)


@pytest.mark.parametrize("op", ["Pad", "DepthToSpace", "SpaceToDepth", "MaxPool"])
def test_skips_a_type_the_reference_could_not_move(op: str) -> None:
    reason = f"no int16 kernel for {op} in ONNX Runtime on the CPU"
    assert_skips(moving(op, "int16", opset=21), HOIST, reason)


def test_wider_integers_move_where_there_is_a_kernel() -> None:
    model = moving("Transpose", "uint16", opset=21)
    assert_fuses(model, HOIST, ["QuantizeLinear", "Transpose"], rtol=0)


def test_skips_one_scale_per_channel() -> None:
    values = {"sc": np.float32([0.03, 0.04, 0.05]), "zp": np.uint8([1, 2, 3])}
    model = transposed(values, TRANSPOSE.replace("Linear", "Linear<axis=3>"))
    assert_skips(model, HOIST, "QuantizeLinear has 3 scales, each for a part of the tensor")


@pytest.mark.parametrize(("name", "kind"), [("sc", 1), ("zp", 2)])
def test_skips_parameters_computed_at_run_time(name: str, kind: int) -> None:
    values = {k: v for k, v in {**SCALE, "zp": np.uint8(3)}.items() if k != name}
    model = transposed(values)
    model.proto.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, []))
    assert_skips(model, HOIST, "the scale or zero point of QuantizeLinear is computed at run time")


@pytest.mark.parametrize("scale", [0.0, -0.5, np.inf, np.nan])
def test_skips_a_scale_that_turns_the_order_round(scale: float) -> None:
    model = transposed({"sc": np.float32(scale), "zp": np.uint8(3)})
    assert_skips(model, HOIST, "the scale of QuantizeLinear, .*, is not a positive number")


def test_skips_a_quantization_to_float8() -> None:
    model = transposed(SCALE, out="float8e4m3fn")
    zero = onnx.helper.make_tensor("zp", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    model.proto.graph.initializer.append(zero)
    reason = "QuantizeLinear between float32 and float8_e4m3fn is not a quantization to integers"
    assert_skips(model, HOIST, reason)


def test_skips_a_slice_of_little_from_much() -> None:
    text = """
    g (float[N,8,48] x) => (uint8[N,1,48] y) { t = Slice(x, a, b, s) y = QuantizeLinear(t, sc, zp) }
    """
    model = model_from(
        text, {**integers({"a": [0], "b": [1], "s": [1]}), **SCALE, "zp": np.uint8(9)}
    )
    more = 384 * 5 - 48 * 5 - 2 * 48 * 3
    assert_skips(model, HOIST, f"quantizing above Slice would move {more} bytes more")


def test_skips_another_wide_reader() -> None:
    text = (
        f"g (float[N,3,8,6] x) => (uint8[N,8,6,3] y, float[N,8,6,3] z) {{ {TRANSPOSE} z = Neg(t) }}"
    )
    model = model_from(text, {**SCALE, "zp": np.uint8(3)})
    assert_skips(model, HOIST, "'Neg -> z' needs the wide value of 't'")


def test_a_quantizer_above_arithmetic_is_none() -> None:
    text = "g (float[N,3] x) => (uint8[N,3] y) { t = Neg(x) y = QuantizeLinear(t, sc, zp) }"
    fused = fuse(model_from(text, {**SCALE, "zp": np.uint8(3)}), [HOIST])
    assert (ops(fused), fused.decisions) == (["Neg", "QuantizeLinear"], ())


def test_a_quantizer_that_is_not_narrower_is_none() -> None:
    """float16 to uint16: as many bytes either way."""
    text = """
    g (float16[N,3,8] x) => (uint16[N,8,3] y) {
        t = Transpose<perm=[0,2,1]>(x)  y = QuantizeLinear(t, sc, zp)
    }
    """
    model = model_from(text, {"sc": np.float16(0.5), "zp": np.uint16(3)}, opset=21, ir=10)
    fused = fuse(model, [HOIST])
    assert (ops(fused), fused.decisions) == (["Transpose", "QuantizeLinear"], ())
