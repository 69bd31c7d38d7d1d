"""Dense layers of maps that are written for rows, as tf.tensordot does, between Transposes."""

from __future__ import annotations

import numpy as np
import pytest
from channels_last import channels_last
from helpers import assert_fuses, assert_same_numbers, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.target import Target

EXACT, ROUNDING = "sink_transpose", "sink_transpose_rounding"
TO_NHWC, TO_NCHW = "perm=[0,2,3,1]", "perm=[0,3,1,2]"
ROWS, BACK = np.asarray([-1, 4], np.int64), np.asarray([-1, 8, 6, 5], np.int64)


def layer(
    middle: str, constants: dict[str, np.ndarray] | None = None, out: str = "N,5,8,6"
) -> Model:
    """x [N,4,8,6] -> NHWC -> rows r [N*48,4] -> `middle` -> rows q -> NHWC -> NCHW y."""
    text = (
        f"g (float[N,4,8,6] x) => (float[{out}] y) {{ a = Transpose<{TO_NHWC}>(x) "
        f"r = Reshape(a, s) {middle} b = Reshape(q, u) y = Transpose<{TO_NCHW}>(b) }}"
    )
    return model_from(text, {"s": ROWS, "u": BACK, **(constants or {})})


W, K = {"w": weight(4, 5)}, {"k": weight(5, seed=1)}
SPELLINGS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "MatMul": ("q = MatMul(r, w)", W),
    "MatMul and Add": ("m = MatMul(r, w) q = Add(m, k)", {**W, **K}),
    "Add in front": ("m = MatMul(r, w) q = Add(k, m)", {**W, **K}),
    "Add of one number": ("m = MatMul(r, w) q = Add(k, m)", {**W, "k": weight()}),
    "Gemm": ("q = Gemm(r, w, k)", {**W, **K}),
    "Gemm without bias": ("q = Gemm(r, w)", W),
    "Gemm transB": ("q = Gemm<transB=1>(r, w, k)", {"w": weight(5, 4), "k": weight(1, 5)}),
    "Gemm and Add": ("m = Gemm(r, w, k) q = Add(m, k)", {**W, **K}),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_a_conv(name: str) -> None:
    text, constants = SPELLINGS[name]
    model = layer(text, constants)
    fused = assert_fuses(model, ROUNDING, ["Conv"], reason="Transposes 2 -> 0", rtol=1e-6)
    assert len(fused.proto.graph.node[0].input) == 1 + len(constants)


def test_rows_of_each_sample() -> None:
    rows = {"s": np.asarray([-1, 48, 4], np.int64)}
    assert_fuses(layer("q = MatMul(r, w)", {**W, **rows}), ROUNDING, ["Conv"], rtol=1e-6)


STAYS: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "scaled": ("q = Gemm<alpha=0.5>(r, w)", W),
    "scaled bias": ("q = Gemm<beta=0.5>(r, w, k)", {**W, **K}),
    "one per row": ("m = MatMul(r, w) q = Add(m, k)", {**W, "k": weight(48, 1)}),
    "a Relu": ("m = MatMul(r, w) q = Relu(m)", W),
    "added to itself": ("m = MatMul(r, w) q = Add(m, m)", W),
    "made at run time": ("c = Relu(w) q = MatMul(r, c)", W),
    "read twice": ("n = Relu(r) m = MatMul(r, w) z = ReduceMax(n) q = Add(m, z)", W),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_more_than_a_dense_layer_stays(name: str) -> None:
    text, constants = STAYS[name]
    model = layer(text, constants, out="1,5,8,6" if name == "one per row" else "N,5,8,6")
    if name == "one per row":
        model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    fused = fuse(model, [ROUNDING])
    assert sorted(ops(fused)) == sorted(ops(model))


def test_rows_of_other_elements_stay() -> None:
    rows = {"s": np.asarray([-1, 8], np.int64)}
    model = layer("q = MatMul(r, w)", {"w": weight(8, 10), **rows})
    assert ops(fuse(model, [ROUNDING])) == ops(model)


def test_rows_that_become_another_map_stay() -> None:
    back = {"u": np.asarray([-1, 6, 8, 5], np.int64)}
    model = layer("q = MatMul(r, w)", {**W, **back}, out="N,5,6,8")
    assert ops(fuse(model, [ROUNDING])) == ops(model)


def test_rows_read_elsewhere_stay_and_nothing_else_does() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,4,8,6] y, float[N,4,8,6] z, float[M,4] o) {{ "
        f"a = Transpose<{TO_NHWC}>(x) r = Reshape(a, s) o = Neg(r) q = MatMul(r, w) "
        f"b = Reshape(q, u) c = Softplus(a) d = Add(c, b) e = Neg(d) "
        f"y = Transpose<{TO_NCHW}>(d) z = Transpose<{TO_NCHW}>(e) }}"
    )
    back = np.asarray([-1, 8, 6, 4], np.int64)
    model = model_from(text, {"w": weight(4, 4), "s": ROWS, "u": back})
    fused = fuse(model, [ROUNDING])
    assert any("Transposes 2 -> 1" in d.reason for d in fused.decisions)
    assert_same_numbers(model, fused)


def test_the_exact_half_leaves_it() -> None:
    model = layer("q = MatMul(r, w)", W)
    fused = fuse(model, [EXACT])
    assert ops(fused) == ops(model)
    reasons = [d.reason for d in fused.decisions]
    assert any("MatMul over another axis than the last adds" in reason for reason in reasons)


def test_the_sizes_are_asked_of_the_map_that_is_there() -> None:
    text = (
        f"g (float[N,4,8,6] x) => (float[N,4,8,6] y, int64[4] z, int64[2] t) {{ "
        f"a = Transpose<{TO_NHWC}>(x) b = Relu(a) z = Shape(b) t = Shape<start=-3, end=3>(a) "
        f"y = Transpose<{TO_NCHW}>(b) }}"
    )
    model = model_from(text)
    fused = fuse(model, [EXACT])
    assert sorted(ops(fused)) == ["Gather", "Gather", "Relu", "Shape", "Shape"]
    assert_same_numbers(model, fused, rtol=0)


@pytest.mark.parametrize("sizes", ["known", "computed"])
@pytest.mark.parametrize("batch", ["N", 2])
@pytest.mark.parametrize("name", ["convnext", "dense_on_maps", "excited_by_dense"])
def test_a_keras_network_keeps_no_rows(name: str, batch: int | str, sizes: str) -> None:
    model = channels_last(name, batch, of_rows=sizes)
    fused = fuse(model, Target.load("cpu").fusions)
    ends = 2 if name == "dense_on_maps" else 1
    assert ops(fused).count("Transpose") == ends
    assert not {"MatMul", "Shape"} & set(ops(fused))
    assert_same_numbers(model, fused, rtol=1e-6)
