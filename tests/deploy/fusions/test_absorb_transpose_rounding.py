"""absorb_transpose_rounding: whose rows turn, with which numbers, and what needs its order."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "absorb_transpose_rounding"
TO_NHWC = "perm=[0,2,3,1]"


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


# a Transpose of a map -> the rows of the weight behind its Flatten
def head(layer: str, flatten: str = "Flatten(a)", *, batch: str = "N", more: str = "") -> Model:
    ends = f"float[{batch},5] y" + (f", float[{batch},2,4,3] a" if more == "a" else "")
    ends += f", float[{batch},24] f" if more == "f" else ""
    text = (
        f"g (float[{batch},3,2,4] x) => ({ends}) {{ a = Transpose<{TO_NHWC}>(x) "
        f"f = {flatten} y = {layer} }}"
    )
    values = {"k": ints(-1, 24), "z": ints(0, -1), "w": weight(24, 5), "b": weight(5)}
    values["wt"] = weight(5, 24)
    return model_from(text, {n: v for n, v in values.items() if f" {n}" in text})


@pytest.mark.parametrize("flatten", ["Flatten(a)", "Reshape(a, k)", "Reshape(a, z)"])
@pytest.mark.parametrize(
    "layer", ["MatMul(f, w)", "Gemm(f, w, b)", "Gemm<transB=1, alpha=0.5>(f, wt, b)"]
)
def test_the_weights_rows_turn(layer: str, flatten: str) -> None:
    kept = [flatten.split("(")[0], layer.split("(")[0].split("<")[0]]
    fused = assert_fuses(head(layer, flatten), NAME, kept, reason="rows of", rtol=1e-6)
    assert fused.decisions[0].bytes_saved == 2 * 24 * 4


def test_the_rows_by_hand() -> None:
    """x [N,2,3] transposed is [N,3,2]: its flat element (j, i) is x's (i, j)."""
    text = (
        "g (float[N,2,3] x) => (float[N,1] y) { a = Transpose<perm=[0,2,1]>(x) f = Flatten(a) "
        "y = MatMul(f, w) }"
    )
    model = model_from(text, {"w": np.arange(6, dtype=np.float32).reshape(6, 1)})
    fused = assert_fuses(model, NAME, ["Flatten", "MatMul"])
    rows = numpy_helper.to_array(fused.proto.graph.initializer[0])
    assert rows.reshape(-1).tolist() == [0, 2, 4, 1, 3, 5]


def test_the_rows_of_a_reshape_to_more_dimensions() -> None:
    text = (
        f"g (float[N,3,2,4] x) => (float[N,1,5] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "f = Reshape(a, k) y = MatMul(f, w) }"
    )
    model = model_from(text, {"k": ints(0, 1, 24), "w": weight(24, 5)})
    assert_fuses(model, NAME, ["Reshape", "MatMul"], rtol=1e-6)


def test_a_transpose_of_the_samples_stays() -> None:
    text = (
        "g (float[3,3,4] x) => (float[3,5] y) { a = Transpose<perm=[1,0,2]>(x) f = Flatten(a) "
        "y = MatMul(f, w) }"
    )
    assert not fuse(model_from(text, {"w": weight(12, 5)}), [NAME]).decisions


def test_skips_a_stack_of_weights() -> None:
    text = (
        f"g (float[N,3,2,4] x) => (float[24,N,5] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "f = Flatten(a) y = MatMul(f, w) }"
    )
    model = model_from(text, {"w": weight(24, 24, 5)})
    assert_skips(model, NAME, "doesn't multiply rows of a matrix")


def test_skips_rows_that_are_half_a_sample() -> None:
    text = (
        f"g (float[N,3,2,4] x) => (float[M,5] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "f = Reshape(a, k) y = MatMul(f, w) }"
    )
    model = model_from(text, {"k": ints(-1, 12), "w": weight(12, 5)})
    assert_skips(model, NAME, "isn't known to give \\[N, 12\\]")


def test_skips_weights_known_at_run_time() -> None:
    text = (
        f"g (float[N,3,2,4] x, float[24,5] w) => (float[N,5] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "f = Flatten(a) y = MatMul(f, w) }"
    )
    assert_skips(model_from(text), NAME, "weights of MatMul are computed at run time")


def test_skips_columns() -> None:
    model = head("Gemm<transA=1>(f, w)", batch="24")
    model.proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 24
    assert_skips(model, NAME, "doesn't multiply rows of a matrix")


def test_skips_a_map_of_unknown_size() -> None:
    text = (
        f"g (float[N,3,H,4] x) => (float[N,5] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "f = Flatten(a) y = MatMul(f, w) }"
    )
    assert_skips(model_from(text, {"w": weight(24, 5)}), NAME, "isn't known to give \\[N, 24\\]")


@pytest.mark.parametrize("more", ["a", "f"])
def test_skips_a_value_needed_in_its_order(more: str) -> None:
    assert_skips(head("MatMul(f, w)", more=more), NAME, f"'{more}' is needed in its order")


def test_the_exact_half_leaves_them() -> None:
    """absorb_transpose keeps every bit, so rows in another order are none of its business."""
    assert fuse(head("MatMul(f, w)"), ["absorb_transpose"]).decisions == ()
