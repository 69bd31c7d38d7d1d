"""Models stored in another float type, as the float32 ones that integers are made from."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from helpers import feeds_for, model_from, ops, weight
from onnx import TensorProto, numpy_helper

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.metrics import sqnr_db
from deploy.widen import computed_kinds, in_words, widen

KINDS = [
    ("float16", np.float16, TensorProto.FLOAT16, 22),
    ("bfloat16", ml_dtypes.bfloat16, TensorProto.BFLOAT16, 22),
]


def dense(kind: str, dtype: type, opset: int) -> Model:
    """Two layers in that type, inputs and outputs too."""
    text = (
        f"g ({kind}[N,6] x) => ({kind}[N,5] y, {kind}[N,8] a) "
        "{ h = MatMul (x, w1) a = Relu (h) y = Gemm (a, w2, b) }"
    )
    weights = {"w1": weight(6, 8), "w2": weight(8, 5), "b": weight(5)}
    return model_from(text, {n: w.astype(dtype) for n, w in weights.items()}, opset=opset)


def inside_float32(body: str, weights: dict[str, np.ndarray], *, opset: int = 17) -> Model:
    return model_from(f"g (float[N,6] x) => (float[N,8] y) {{ {body} }}", weights, opset=opset)


def types(model: Model) -> dict[str, int]:
    graph = model.proto.graph
    return {v.name: v.type.tensor_type.elem_type for v in graph.value_info}


def run(model: Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with reference.build(model) as engine:
        return engine.run(feeds)


@pytest.mark.parametrize(("kind", "dtype", "number", "opset"), KINDS)
def test_inputs_and_outputs_keep_their_type(
    kind: str, dtype: type, number: int, opset: int
) -> None:
    network = dense(kind, dtype, opset)
    made = widen(network)
    assert (made.inputs, made.outputs) == (network.inputs, network.outputs)
    assert ops(made) == ["Cast", "MatMul", "Relu", "Gemm", "Cast", "Cast"]
    assert set(types(made).values()) == {TensorProto.FLOAT}
    assert computed_kinds(network) == {number}
    assert computed_kinds(made) == set()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_no_weight_changes(dtype: type) -> None:
    network = dense("float16" if dtype is np.float16 else "bfloat16", dtype, 22)
    before, after = (
        {w.name: numpy_helper.to_array(w) for w in m.proto.graph.initializer}
        for m in (network, widen(network))
    )
    assert {w.dtype for w in after.values()} == {np.dtype(np.float32)}
    for name, values in before.items():
        assert np.array_equal(values.astype(np.float64), after[name])


@pytest.mark.parametrize(("kind", "dtype"), [("float16", np.float16)])
def test_the_numbers_are_those_of_the_model(kind: str, dtype: type) -> None:
    """Off by what its own type, float16, and the rounding of its outputs to it cost."""
    network = dense(kind, dtype, 17)
    feeds = feeds_for(network, batch=64)
    expected, got = run(network, feeds), run(widen(network), feeds)
    for name, values in expected.items():
        assert got[name].dtype == dtype
        quality = sqnr_db(values.astype(np.float64), got[name].astype(np.float64))
        assert quality > 60


def test_says_what_was_done() -> None:
    made = widen(dense("float16", np.float16, 17))
    assert "stored in float16, integers are made from it in float32: 3 weights" in in_words(made)
    assert "without loss" in in_words(made)
    assert "keep their types behind a Cast (x float16, y float16, a float16)" in in_words(made)


def test_casts_that_only_served_the_storage_are_dropped() -> None:
    """As converters leave them: around the model, and around what they keep in float32."""
    body = (
        "h = Cast <to = 10> (x) m = MatMul (h, w) f = Cast <to = 1> (m) s = Softmax (f) "
        "g = Cast <to = 10> (s) r = MatMul (g, v) y = Cast <to = 1> (r)"
    )
    weights = {"w": weight(6, 8, dtype="float16"), "v": weight(8, 8, dtype="float16")}
    network = inside_float32(body, weights)
    made = widen(network)
    assert ops(made) == ["MatMul", "Softmax", "MatMul"]
    assert "4 Casts between float types dropped; inputs and outputs are as they were" in (
        in_words(made)
    )
    feeds = feeds_for(network, batch=32)
    assert sqnr_db(run(network, feeds)["y"], run(made, feeds)["y"]) > 50


def test_weights_stored_only_behind_a_cast_are_float32_layers() -> None:
    """As in many Hugging Face files: the layer computes in float32, so nothing is to be done."""
    network = inside_float32(
        "v = Cast <to = 1> (w) y = MatMul (x, v)", {"w": weight(6, 8, dtype="float16")}
    )
    assert computed_kinds(network) == set()
    made = widen(network)
    assert made.proto == network.proto
    assert made.decisions == ()


def test_rounding_on_purpose_stays() -> None:
    network = inside_float32(
        "h = Cast <to = 10> (x) f = Cast <to = 1> (h) y = MatMul (f, w)", {"w": weight(6, 8)}
    )
    assert ops(widen(network)) == ["Cast", "Cast", "MatMul"]


def test_sizes_computed_in_float64_stay() -> None:
    """A float32 model that computes a size in double needs double's digits."""
    body = (
        "s = Shape (x) d = Cast <to = 11> (s) e = Mul (d, two) i = Cast <to = 7> (e) "
        "m = MatMul (x, w) y = Add (m, b)"
    )
    network = model_from(
        f"g (float[N,6] x) => (float[N,8] y, int64[2] i) {{ {body} }}",
        {"w": weight(6, 8), "b": weight(8), "two": np.array(2.0)},
    )
    assert widen(network).proto == network.proto


def test_an_embedding_alone_counts() -> None:
    network = model_from(
        "g (int64[N,4] x) => (float16[N,4,8] y) { y = Gather (w, x) }",
        {"w": weight(16, 8, dtype="float16")},
    )
    assert ops(widen(network)) == ["Gather", "Cast"]


def test_float64_stays() -> None:
    """No vendor's CPU takes it at inputs, and it doesn't fit into float32."""
    network = dense("double", np.float64, 17)
    assert widen(network).proto == network.proto


def test_a_branch_reads_and_gives_the_widened_value() -> None:
    text = """g (float16[2,6] x, bool c) => (float16[2,8] y) {
      m = MatMul (x, w)
      y = If (c) <
        then_branch = t () => (float16[2,8] p) { q = MatMul (x, w) p = Add (q, m) },
        else_branch = e () => (float16[2,8] r) { r = Mul (m, k) }
      >
    }"""
    weights = {"w": weight(6, 8, dtype="float16"), "k": weight(8, seed=1, dtype="float16")}
    network = model_from(text, weights)
    made = widen(network)
    for chosen in (True, False):
        feeds = {**feeds_for(network), "c": np.asarray(chosen)}
        expected, got = run(network, feeds)["y"], run(made, feeds)["y"]
        assert sqnr_db(expected.astype(np.float32), got.astype(np.float32)) > 60


def test_constants_and_types_in_attributes() -> None:
    body = (
        "h = Cast <to = 10> (x) k = Constant <value = float16[1] {2}> () m = MatMul (h, w) "
        "s = Shape (m) f = ConstantOfShape <value = float16[1] {3}> (s) "
        "g = Mul (m, k) a = Add (g, f) y = Cast <to = 1> (a)"
    )
    network = inside_float32(body, {"w": weight(6, 8, dtype="float16")})
    made = widen(network)
    assert TensorProto.FLOAT16 not in types(made).values()
    feeds = feeds_for(network)
    assert sqnr_db(run(network, feeds)["y"], run(made, feeds)["y"]) > 50


def test_the_input_is_left_alone() -> None:
    network = dense("float16", np.float16, 17)
    before = network.proto.SerializeToString(deterministic=True)
    widen(network)
    assert network.proto.SerializeToString(deterministic=True) == before
