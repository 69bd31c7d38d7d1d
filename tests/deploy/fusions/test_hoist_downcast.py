"""hoist_downcast: every op that only moves data, bit for bit, and why a Cast stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops
from movers import MOVERS, integers

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.fuse import fuse
from deploy.surgery import movement

HOIST = "hoist_downcast"
TYPES = {"float": ("float16", 10), "int64": ("int32", 6)}

MOVES = {op: mover for op, mover in MOVERS.items() if op in movement.MOVES}


def moving(op: str, wide: str = "float") -> Model:
    dims_in, dims_out, call, constants = MOVES[op]
    narrow, to = TYPES[wide]
    left = "t, unread" if op == "Split" else "t"
    body = f"{left} = {call} y = Cast<to={to}>(t)"
    text = f"g ({wide}[{dims_in}] x) => ({narrow}[{dims_out}] y) {{ {body} }}"
    return model_from(text, integers(constants))


def test_the_table_has_every_op() -> None:
    assert set(MOVES) == set(movement.MOVES)


# ONNX Runtime has no kernels of these for the narrow types here
UNMOVED = ("DepthToSpace", "SpaceToDepth")


@pytest.mark.parametrize(
    ("op", "wide"),
    [(op, wide) for op in MOVES for wide in TYPES if op not in UNMOVED],
)
def test_climbs_above_every_op(op: str, wide: str) -> None:
    casts = ["Cast", "Cast"] if op == "Concat" else ["Cast"]
    reason = f"Cast to {TYPES[wide][0]} moved above {op}"
    fused = assert_fuses(moving(op, wide), HOIST, [*casts, op], reason=reason, rtol=0)
    assert fused.proto.graph.node[0].input == ["x"]


@pytest.mark.parametrize("op", UNMOVED)
@pytest.mark.parametrize("wide", TYPES)
def test_skips_a_type_the_reference_could_not_move(op: str, wide: str) -> None:
    reason = f"no {TYPES[wide][0]} kernel for {op} in ONNX Runtime on the CPU"
    assert_skips(moving(op, wide), HOIST, reason)


def test_an_operator_of_another_domain_is_not_known_to_move_data() -> None:
    text = """
    g (float[N,6] x, int64[4] s) => (float16[A,B] y) {
        t = com.microsoft.Pad(x, s)  y = Cast<to=10>(t)
    }
    """
    model = model_from(text)
    value = onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, [None, 6])
    model.proto.graph.value_info.append(value)
    fused = fuse(model, [HOIST])
    assert (ops(fused), fused.decisions) == (["Pad", "Cast"], ())


def test_a_cast_that_is_there_already_serves_both() -> None:
    text = """
    g (float[N,3,8] x) => (float16[N,8,3] y, float16[N,3,8] z) {
        z = Cast<to=10>(x)  t = Transpose<perm=[0,2,1]>(x)  y = Cast<to=10>(t)
    }
    """
    fused = assert_fuses(model_from(text), HOIST, ["Cast", "Transpose"], rtol=0)
    # no second cast of x, and the one of t is gone: (4 + 2) bytes more than the Transpose saves
    assert [d.bytes_saved for d in fused.decisions] == [24 * (4 + 2) + 2 * 24 * (4 - 2)]


def test_a_split_all_of_whose_parts_are_cast() -> None:
    text = """
    g (float[N,7,6] x) => (float16[N,2,6] y, float16[N,5,6] z) {
        a, b = Split<axis=1>(x, s)  y = Cast<to=10>(a)  z = Cast<to=10>(b)
    }
    """
    model = model_from(text, {"s": np.array([2, 5])})
    fused = assert_fuses(model, HOIST, ["Cast", "Split"], rtol=0)
    assert list(fused.proto.graph.node[1].output) == ["y", "z"]


def test_skips_a_split_with_a_part_read_wide() -> None:
    text = """
    g (float[N,7,6] x) => (float16[N,2,6] y, float[N,5,6] z) {
        a, b = Split<axis=1>(x, s)  y = Cast<to=10>(a)  z = Neg(b)
    }
    """
    model = model_from(text, {"s": np.array([2, 5])})
    assert_skips(model, HOIST, "'Neg -> z' needs the wide value of 'b'")


def test_skips_a_split_with_a_part_that_leaves_the_model_wide() -> None:
    text = """
    g (float[N,7,6] x) => (float16[N,2,6] y, float[N,5,6] b) {
        a, b = Split<axis=1>(x, s)  y = Cast<to=10>(a)
    }
    """
    assert_skips(model_from(text, {"s": np.array([2, 5])}), HOIST, "'b' is an output of the model")


def test_skips_parts_cast_to_different_types() -> None:
    text = """
    g (float[N,7,6] x) => (float16[N,2,6] y, int8[N,5,6] z) {
        a, b = Split<axis=1>(x, s)  y = Cast<to=10>(a)  z = Cast<to=3>(b)
    }
    """
    assert_skips(model_from(text, {"s": np.array([2, 5])}), HOIST, "needs the wide value of 'b'")


def test_skips_parts_cast_in_different_ways() -> None:
    text = """
    g (float[N,7,6] x) => (float8e4m3fn[N,2,6] y, float8e4m3fn[N,5,6] z) {
        a, b = Split<axis=1>(x, s)  y = Cast<to=17, saturate=0>(a)  z = Cast<to=17>(b)
    }
    """
    model = model_from(text, {"s": np.array([2, 5])}, opset=19, ir=9)
    assert_skips(model, HOIST, "needs the wide value of 'b'")


def test_skips_another_wide_reader() -> None:
    text = """
    g (float[N,3,8,6] x) => (float16[N,8,6,3] y, float[N,8,6,3] z) {
        t = Transpose<perm=[0,2,3,1]>(x)  y = Cast<to=10>(t)  z = Neg(t)
    }
    """
    assert_skips(model_from(text), HOIST, "'Neg -> z' needs the wide value of 't'")


def test_skips_two_casts_of_one_value() -> None:
    text = """
    g (float[N,3,8,6] x) => (float16[N,8,6,3] y, float16[N,8,6,3] z) {
        t = Transpose<perm=[0,2,3,1]>(x)  y = Cast<to=10>(t)  z = Cast<to=10>(t)
    }
    """
    assert_skips(model_from(text), HOIST, "2 casts read 't'; simplify first")


def test_skips_a_wide_output_of_the_model() -> None:
    text = """
    g (float[N,3,8,6] x) => (float16[N,8,6,3] y, float[N,8,6,3] t) {
        t = Transpose<perm=[0,2,3,1]>(x)  y = Cast<to=10>(t)
    }
    """
    assert_skips(model_from(text), HOIST, "'t' is an output of the model")


def test_skips_a_cast_inside_a_branch() -> None:
    text = """
    g (float[N,7,6] x, float16[N,5,6] h, bool q) => (float16[N,2,6] y, float16[N,5,6] z) {
        a, b = Split<axis=1>(x, s)
        y = Cast<to=10>(a)
        z = If (q) <
            then_branch = t () => (float16[N,5,6] u) { u = Cast<to=10>(b) },
            else_branch = e () => (float16[N,5,6] v) { v = Identity(h) }
        >
    }
    """
    model = model_from(text, {"s": np.array([2, 5])})
    assert_skips(model, HOIST, "'Cast -> u' lies in the body of another node")


def test_a_pad_value_that_is_representable() -> None:
    model = moving("Pad")
    model.proto.graph.node[0].input.append("v")
    model.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(-1.5), "v"))
    assert_fuses(model, HOIST, ["Cast", "Pad"], rtol=0)


@pytest.mark.parametrize("value", [0.1, 1e6, np.nan])
def test_skips_a_pad_value_that_is_not_representable(value: float) -> None:
    model = moving("Pad")
    model.proto.graph.node[0].input.append("v")
    model.proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), "v"))
    assert_skips(model, HOIST, "Pad's value .* is not representable in float16")


def test_skips_a_pad_value_computed_at_run_time() -> None:
    model = moving("Pad")
    model.proto.graph.node[0].input.append("v")
    model.proto.graph.input.append(onnx.helper.make_tensor_value_info("v", 1, []))
    assert_skips(model, HOIST, "the value of Pad is computed at run time")


def test_a_pad_that_repeats_the_edge_has_no_value() -> None:
    model = moving("Pad")
    model.proto.graph.node[0].attribute.append(onnx.helper.make_attribute("mode", "edge"))
    assert_fuses(model, HOIST, ["Cast", "Pad"], rtol=0)


@pytest.mark.parametrize("axes", [False, True])
def test_the_value_of_a_pad_that_repeats_the_edge_is_left_out(axes: bool) -> None:
    """Exporters give one all the same, and it would have to be of the data's type."""
    model = moving("Pad")
    pad = model.proto.graph.node[0]
    pad.input.append("v")
    pad.attribute.append(onnx.helper.make_attribute("mode", "edge"))
    weights = {"v": np.float32(0.1)}
    if axes:
        pad.input.append("axes")
        weights["axes"] = np.arange(4)
    for name, value in weights.items():
        model.proto.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    model.proto.opset_import[0].version = 18
    fused = assert_fuses(model, HOIST, ["Cast", "Pad"], rtol=0)
    assert list(fused.proto.graph.node[1].input)[2:] == (["", "axes"] if axes else [])


@pytest.mark.parametrize("end", [1, 2])
def test_skips_a_slice_of_little_from_much(end: int) -> None:
    # before: 48e*4 read and written, 48e*(4+2) cast; after: 384*(4+2) cast, 48e*2 read and written
    text = "g (float[N,8,48] x) => (float16[N,E,48] y) { t = Slice(x, a, b, s) y = Cast<to=10>(t) }"
    values = {"a": np.array([0]), "b": np.array([end]), "s": np.array([1])}
    model = model_from(text.replace("E", str(end)), values)
    more = 384 * 6 + 2 * 48 * end * 2 - 2 * 48 * end * 4 - 48 * end * 6
    assert_skips(model, HOIST, f"casting above Slice would move {more} bytes more")


def test_a_slice_of_nearly_all_saves_traffic() -> None:
    fused = assert_fuses(moving("Slice"), HOIST, ["Cast", "Slice"], rtol=0)
    # 120 of 144 values: (120 + 120) * 4 + 120 * 6 before, 144 * 6 + (120 + 120) * 2 after
    assert [d.bytes_saved for d in fused.decisions] == [336]


def test_a_transpose_saves_half_of_its_traffic() -> None:
    fused = assert_fuses(moving("Transpose"), HOIST, ["Cast", "Transpose"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [2 * 144 * (4 - 2)]


def test_a_reshape_saves_nothing_by_itself_even_across_the_batch() -> None:
    text = "g (float[N,3,8] x) => (float16[M,8] y) { t = Reshape(x, s) y = Cast<to=10>(t) }"
    model = model_from(text, {"s": np.array([-1, 8])})
    fused = assert_fuses(model, HOIST, ["Cast", "Reshape"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [0]


def test_skips_sizes_nobody_knows() -> None:
    text = """
    g (float[N,6] x) => (float16[A,B] y) {
        u = com.microsoft.Gelu(x)  t = Transpose<perm=[1,0]>(u)  y = Cast<to=10>(t)
    }
    """
    model = model_from(text)
    # onnx has no shape rule for another domain's operator; its type is all that is known
    value = onnx.helper.make_tensor_value_info("t", onnx.TensorProto.FLOAT, None)
    model.proto.graph.value_info.append(value)
    assert_skips(model, HOIST, "the sizes around Transpose are unknown, so the gain is too")


def test_climbs_to_the_top_of_a_chain() -> None:
    text = """
    g (float[N,3,8,6] x) => (float16[N,48,3] y) {
        a = Transpose<perm=[0,2,3,1]>(x)  b = Reshape(a, s)  c = Identity(b)  y = Cast<to=10>(c)
    }
    """
    model = model_from(text, {"s": np.array([0, 48, 3])})
    fused = assert_fuses(model, HOIST, ["Cast", "Transpose", "Reshape", "Identity"], rtol=0)
    assert [d.reason.split()[-1] for d in fused.decisions] == ["Identity", "Reshape", "Transpose"]
    assert fused.outputs[0].name == "y"


def test_climbs_above_both_sides_of_a_concat() -> None:
    text = """
    g (float[N,3,8,6] x, float[N,5,8,6] z) => (float16[N,8,6,8] y) {
        b = Identity(z)
        a = Concat<axis=1>(x, b)
        t = Transpose<perm=[0,2,3,1]>(a)
        y = Cast<to=10>(t)
    }
    """
    assert_fuses(
        model_from(text), HOIST, ["Cast", "Cast", "Identity", "Concat", "Transpose"], rtol=0
    )


def transposed(
    wide: str, narrow: str, to: int, *, batch: str = "N", extra: str = "", opset: int = 17
) -> Model:
    text = f"""
    g ({wide}[{batch},3,8] x) => ({narrow}[{batch},8,3] y) {{
        t = Transpose<perm=[0,2,1]>(x)  y = Cast<to={to}{extra}>(t)
    }}
    """
    return model_from(text, opset=opset, ir=9)


@pytest.mark.parametrize("batch", ["1", "N"])
def test_a_symbolic_batch_counts_as_one_sample(batch: str) -> None:
    fused = fuse(transposed("float", "float16", 10, batch=batch), [HOIST])
    assert [d.bytes_saved for d in fused.decisions] == [2 * 24 * (4 - 2)]


@pytest.mark.parametrize(
    ("wide", "to", "out"),
    [
        ("float16", 1, "float"),
        ("float", 6, "int32"),
        ("int32", 7, "int64"),
        ("double", 8, "string"),
    ],
)
def test_a_cast_that_is_not_narrower_is_not_a_downcast(wide: str, to: int, out: str) -> None:
    fused = fuse(transposed(wide, out, to), [HOIST])
    assert (ops(fused), fused.decisions) == (["Transpose", "Cast"], ())


def test_a_cast_above_arithmetic_is_none() -> None:
    text = "g (float[N,3] x) => (float16[N,3] y) { t = Neg(x) y = Cast<to=10>(t) }"
    fused = fuse(model_from(text), [HOIST])
    assert (ops(fused), fused.decisions) == (["Neg", "Cast"], ())


def test_a_cast_keeps_its_other_attributes() -> None:
    fused = fuse(transposed("float", "float8e4m3fn", 17, extra=", saturate=0", opset=19), [HOIST])
    assert ops(fused) == ["Cast", "Transpose"]
    assert {a.name: a.i for a in fused.proto.graph.node[0].attribute} == {"to": 17, "saturate": 0}


@pytest.mark.parametrize(
    ("wide", "between", "rounds"),
    [("float", "float16", 10), ("int64", "float", 1), ("uint8", "float", None)],
)
def test_skips_a_place_behind_a_cast_that_rounds(
    wide: str, between: str, rounds: int | None
) -> None:
    """ONNX Runtime casts 2.99999 to 2 at once, and to 3 by way of float16."""
    text = f"""
    g ({wide}[N,7,6] x) => (int8[N,6,7] y) {{
        c = Cast<to={rounds or 1}>(x)  t = Transpose<perm=[0,2,1]>(c)  y = Cast<to=3>(t)
    }}
    """
    model = model_from(text)
    if rounds is None:
        assert_fuses(model, HOIST, ["Cast", "Cast", "Transpose"], rtol=0)
    else:
        assert_skips(model, HOIST, f"what the one to {between}.* rounds would be lost")


def test_float8_is_transposed_from_opset_21_on() -> None:
    fused = fuse(transposed("float", "float8e4m3fn", 17, opset=19), [HOIST])
    assert (ops(fused), fused.opset) == (["Cast", "Transpose"], 21)
    reference.build(fused).close()


@pytest.mark.parametrize(
    ("wide", "narrow", "to"), [("float", "bfloat16", 16), ("bfloat16", "float8e4m3fn", 17)]
)
def test_types_that_numpy_lacks(wide: str, narrow: str, to: int) -> None:
    fused = fuse(transposed(wide, narrow, to, opset=19), [HOIST])
    assert ops(fused) == ["Cast", "Transpose"]
    assert fused.proto.graph.node[0].attribute[0].i == to
