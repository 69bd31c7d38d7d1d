"""sink_upcast: below which operators an up-cast sinks, bit for bit, and why it stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, run
from movers import MOVERS, integers

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery import movement

SINK = "sink_upcast"
TYPES = {"float16": ("float", 1), "int32": ("int64", 7), "int8": ("float", 1), "bool": ("float", 1)}
MOVES = {op: mover for op, mover in MOVERS.items() if op in movement.MOVES}
# ONNX Runtime has no kernels of these
UNMOVED = [
    (op, narrow)
    for op in ("DepthToSpace", "SpaceToDepth")
    for narrow in ("float16", "int32", "bool")
]


def moving(op: str, narrow: str = "float16") -> Model:
    dims_in, dims_out, call, constants = MOVERS[op]
    wide, to = TYPES[narrow]
    left = "y, unread" if op == "Split" else "y"
    body = f"x = Cast<to={to}>(q) {left} = {call}"
    text = f"g ({narrow}[{dims_in}] q) => ({wide}[{dims_out}] y) {{ {body} }}"
    return model_from(text, integers(constants))


def sunk(body: str, ends: str, *, inputs: str = "", **values: object) -> Model:
    """q: float16[N,4,6] becomes x: float, read by `body`."""
    text = f"g (float16[N,4,6] q{inputs}) => ({ends}) {{ x = Cast<to=1>(q) {body} }}"
    return model_from(text, {name: np.asarray(value) for name, value in values.items()})


@pytest.mark.parametrize(
    ("op", "narrow"), [(o, n) for o in MOVES for n in TYPES if (o, n) not in UNMOVED]
)
def test_sinks_below_every_op(op: str, narrow: str) -> None:
    reason = f"Cast to .* moved below {op}"
    fused = assert_fuses(moving(op, narrow), SINK, [op, "Cast"], reason=reason, rtol=0)
    assert fused.proto.graph.node[0].input[0] == "q"


@pytest.mark.parametrize(("op", "narrow"), UNMOVED)
def test_skips_a_type_the_reference_could_not_move(op: str, narrow: str) -> None:
    assert_skips(moving(op, narrow), SINK, f"no {narrow} kernel for {op} in ONNX Runtime")


def test_a_cast_is_not_carried_past_a_maximum() -> None:
    model = moving("MaxPool")
    fused = fuse(model, [SINK])
    assert (ops(fused), fused.decisions) == (["Cast", "MaxPool"], ())


def test_down_a_whole_fragment_with_branches() -> None:
    body = """
    a = Transpose<perm=[0,2,1]>(x)  b, c = Split<axis=1>(a, s)  d = Concat<axis=1>(c, b)
    y = Neg(d)
    """
    model = sunk(body, "float[N,6,4] y", s=[2, 4])
    fused = assert_fuses(model, SINK, ["Transpose", "Split", "Concat", "Cast", "Neg"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [96, 96, 96]


def test_a_concat_of_several_casts() -> None:
    body = "v = Cast<to=1>(p)  y = Concat<axis=1>(x, v)"
    model = sunk(body, "float[N,7,6] y", inputs=", float16[N,3,6] p")
    assert_fuses(model, SINK, ["Concat", "Cast"], rtol=0)


@pytest.mark.parametrize("made", ["Cast<to=1>(p)", "Neg(w)"])
def test_skips_a_concat_with_another_type(made: str) -> None:
    body = f"v = {made}  y = Concat<axis=1>(x, v)"
    model = sunk(body, "float[N,7,6] y", inputs=", int8[N,3,6] p, float[N,3,6] w")
    assert_skips(model, SINK, "Concat also reads 'v', which doesn't come from the same Cast")


def test_a_table_is_cast_where_it_is_read() -> None:
    text = "g (int64[N,5] i) => (float[N,5,6] y) { x = Cast<to=1>(q)  y = Gather(x, i) }"
    table = np.arange(240, dtype=np.float16).reshape(40, 6)
    fused = assert_fuses(model_from(text, {"q": table}), SINK, ["Gather", "Cast"], rtol=0)
    # 240 cast in front against 30 behind; 30 read and 30 written in two bytes, not four
    assert [d.bytes_saved for d in fused.decisions] == [240 * 6 - 30 * 6 + 2 * 30 * 2]


def test_weights_stay_next_to_their_layer() -> None:
    text = """
    g (float[N,6] f) => (float[N,4] y) {
        x = Cast<to=1>(q)  t = Transpose<perm=[1,0]>(x)  y = MatMul(f, t)
    }
    """
    fused = fuse(model_from(text, {"q": np.ones((4, 6), np.float16)}), [SINK])
    assert (ops(fused), fused.decisions) == (["Cast", "Transpose", "MatMul"], ())


def test_skips_where_another_node_needs_the_wide_value() -> None:
    body = "y = Transpose<perm=[0,2,1]>(x)  z = Neg(x)"
    model = sunk(body, "float[N,6,4] y, float[N,4,6] z")
    more = 24 * 6 - 2 * 24 * 2
    assert_skips(model, SINK, f"casting below Transpose would move {more} bytes more")


def test_skips_a_cast_that_is_an_output_of_the_model() -> None:
    model = sunk("y = Transpose<perm=[0,2,1]>(x)", "float[N,6,4] y, float[N,4,6] x")
    assert_skips(model, SINK, "casting below Transpose would move 48 bytes more")


def test_the_same_value_as_data_and_as_a_shape_stays() -> None:
    text = "g (int32[3] q) => (int64[A,B,C] y) { x = Cast<to=7>(q)  y = Expand(x, x) }"
    fused = fuse(model_from(text), [SINK])
    assert (ops(fused), fused.decisions) == (["Cast", "Expand"], ())


def test_a_shape_is_not_data() -> None:
    text = """
    g (float[N,4,6] w, int32[3] q) => (float[A,B,C] y) { x = Cast<to=7>(q)  y = Reshape(w, x) }
    """
    fused = fuse(model_from(text), [SINK])
    assert (ops(fused), fused.decisions) == (["Cast", "Reshape"], ())


def test_a_cast_that_is_a_shape_too_stays_in_front() -> None:
    """The Concat takes both casts along; the Reshape, which goes too, still reads v as a shape."""
    text = """
    g (int32[2] q, int32[1] s) => (int64[3] y, int64[A] z) {
        x = Cast<to=7>(q)  v = Cast<to=7>(s)  y = Concat<axis=0>(x, v)  z = Reshape(x, v)
    }
    """
    model = model_from(text)
    fused = fuse(model, [SINK])
    made = {name: node.op_type for node in fused.proto.graph.node for name in node.output}
    (reshape,) = [node for node in fused.proto.graph.node if node.op_type == "Reshape"]
    assert made[reshape.input[1]] == "Cast"
    feeds = {"q": np.int32([3, -4]), "s": np.int32([2])}
    for name, value in run(model, feeds).items():
        np.testing.assert_array_equal(run(fused, feeds)[name], value)


@pytest.mark.parametrize(("value", "fits"), [(0.5, True), (0.1, False), (1e6, False)])
def test_a_pad_value_has_to_be_representable(value: float, fits: bool) -> None:
    model = sunk("y = Pad(x, p, v)", "float[N,5,6] y", p=[0, 1, 0, 0, 0, 0], v=np.float32(value))
    if fits:
        assert_fuses(model, SINK, ["Pad", "Cast"], rtol=0)
    else:
        assert_skips(model, SINK, "Pad's value .* is not representable in float16")


def test_integers_have_no_negative_zero_to_pad_with() -> None:
    text = "g (int8[N,4,6] q) => (float[N,5,6] y) { x = Cast<to=1>(q)  y = Pad(x, p, v) }"
    weights = {"p": np.array([0, 1, 0, 0, 0, 0]), "v": np.float32(-0.0)}
    assert_skips(model_from(text, weights), SINK, "Pad's value -0.0 is not representable in int8")


def test_skips_a_pad_value_computed_at_run_time() -> None:
    model = sunk("y = Pad(x, p, v)", "float[N,5,6] y", inputs=", float v", p=[0, 1, 0, 0, 0, 0])
    assert_skips(model, SINK, "the value of Pad is computed at run time")


@pytest.mark.parametrize(("source", "to", "out"), [("float", 10, "float16"), ("int32", 1, "float")])
def test_a_cast_that_is_not_wider_is_not_an_upcast(source: str, to: int, out: str) -> None:
    text = f"""
    g ({source}[N,4,6] q) => ({out}[N,6,4] y) {{
        x = Cast<to={to}>(q)  y = Transpose<perm=[0,2,1]>(x)
    }}
    """
    fused = fuse(model_from(text), [SINK])
    assert (ops(fused), fused.decisions) == (["Cast", "Transpose"], ())


def test_text_has_no_size() -> None:
    text = """
    g (int32[N,4,6] q) => (string[N,6,4] y) { x = Cast<to=8>(q)  y = Transpose<perm=[0,2,1]>(x) }
    """
    fused = fuse(model_from(text), [SINK])
    assert (ops(fused), fused.decisions) == (["Cast", "Transpose"], ())


def test_types_that_numpy_lacks() -> None:
    text = """
    g (bfloat16[N,4,6] q) => (float[N,6,4] y) { x = Cast<to=1>(q)  y = Transpose<perm=[0,2,1]>(x) }
    """
    fused = fuse(model_from(text), [SINK])
    assert ops(fused) == ["Transpose", "Cast"]
    assert fused.proto.graph.node[1].attribute[0].i == onnx.TensorProto.FLOAT
