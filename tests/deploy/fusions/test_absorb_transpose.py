"""absorb_transpose: what takes a Transpose in, with which numbers, and what can't."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse

ABSORB = "absorb_transpose"
TO_NHWC, TO_NCHW = "perm=[0,2,3,1]", "perm=[0,3,1,2]"


def ints(*values: int) -> np.ndarray:
    return np.asarray(values, np.int64)


def flat(op: str, shape: str = "N,1,1,5", out: str = "N,5", perm: str = TO_NCHW) -> Model:
    text = f"g (float[{shape}] x) => (float[{out}] y) {{ a = Transpose<{perm}>(x) y = {op} }}"
    return model_from(text, {"k": ints(0, 5)} if "(a, k)" in op else {})


# Reshape and Flatten behind axes of size 1
@pytest.mark.parametrize("op", ["Flatten(a)", "Flatten<axis=-3>(a)", "Reshape(a, k)"])
def test_flattening_a_pooled_map(op: str) -> None:
    fused = assert_fuses(flat(op), ABSORB, [op.split("(")[0].split("<")[0]], rtol=0)
    assert fused.decisions[0].bytes_saved == 2 * 5 * 4


@pytest.mark.parametrize(
    ("target", "expected"), [((0, 0), [0, 5]), ((0, -1), [0, -1]), ((-1, 5), [-1, 5])]
)
def test_a_zero_that_would_mean_another_axis_is_written_out(
    target: tuple[int, ...], expected: list[int]
) -> None:
    text = f"{{ a = Transpose<{TO_NCHW}>(x) y = Reshape(a, k) }}"
    model = model_from(f"g (float[N,1,1,5] x) => (float[N,5] y) {text}", {"k": ints(*target)})
    fused = assert_fuses(model, ABSORB, ["Reshape"], rtol=0)
    assert numpy_helper.to_array(fused.proto.graph.initializer[0]).tolist() == expected


def test_allowzero_copies_nothing() -> None:
    op = "Reshape<allowzero=1>(a, k)"
    text = f"g (float[2,1,1,5] x) => (float[2,5] y) {{ a = Transpose<{TO_NCHW}>(x) y = {op} }}"
    assert_fuses(model_from(text, {"k": ints(2, 5)}), ABSORB, ["Reshape"], rtol=0)


def test_allowzero_means_an_empty_dimension() -> None:
    op = "Reshape<allowzero=1>(a, k)"
    text = f"g (float[0,1,1,5] x) => (float[5,0] y) {{ a = Transpose<{TO_NCHW}>(x) y = {op} }}"
    fused = fuse(model_from(text, {"k": ints(5, 0)}), [ABSORB])
    assert [node.op_type for node in fused.proto.graph.node] == ["Reshape"]
    assert numpy_helper.to_array(fused.proto.graph.initializer[0]).tolist() == [5, 0]


def test_flattening_where_the_transpose_stays_for_others() -> None:
    text = (
        f"g (float[N,1,1,5] x) => (float[N,5] y, float[N,5,1,1] z) {{ a = Transpose<{TO_NCHW}>(x) "
        "z = Relu(a) y = Flatten(a) }"
    )
    fused = assert_fuses(model_from(text), ABSORB, ["Transpose", "Flatten", "Relu"], rtol=0)
    assert fused.decisions[0].bytes_saved == 0


def test_skips_a_flatten_that_would_divide_elsewhere() -> None:
    model = flat("Flatten<axis=2>(a)", out="C,D")
    assert_skips(model, ABSORB, "Flatten at axis 2 would divide other axes")


def test_skips_a_target_known_at_run_time() -> None:
    text = (
        f"g (float[N,1,1,5] x, int64[2] k) => (float[A,B] y) {{ a = Transpose<{TO_NCHW}>(x) "
        "y = Reshape(a, k) }"
    )
    assert_skips(model_from(text), ABSORB, "target of Reshape is computed at run time")


def test_skips_a_free_dimension_that_moves() -> None:
    text = (
        "g (float[1,N,5] x) => (float[N,5] y) { a = Transpose<perm=[1,2,0]>(x) y = Reshape(a, k) }"
    )
    assert_skips(model_from(text, {"k": ints(0, 5)}), ABSORB, "free dimension N moves")


# matrices
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm<alpha=0.5>", "Gemm<transB=1>"])
@pytest.mark.parametrize("sides", ["A", "B", "AB"])
def test_a_transposed_matrix(op: str, sides: str) -> None:
    a, b = [4, 7], [5, 4] if "transB" in op else [4, 5]
    a = a if "A" in sides else a[::-1]
    b = b[::-1] if "B" in sides else b
    start = "".join(f"{s.lower()}t = Transpose({s.lower()}) " for s in sides)
    left, right = "at" if "A" in sides else "a", "bt" if "B" in sides else "b"
    text = (
        f"g (float[{a[0]},{a[1]}] a, float[{b[0]},{b[1]}] b) => (float[7,5] y) "
        f"{{ {start} y = {op}({left}, {right}) }}"
    )
    assert_fuses(model_from(text), ABSORB, ["Gemm"], reason="transA or transB", rtol=0)


def product(m: int, k: int, n: int, side: str) -> Model:
    """A^T B or A B^T as [m, n], of k products each; 0 is a size that isn't known."""

    def size(number: int) -> str:
        return str(number) if number else "N"

    a, b = [size(m), size(k)], [size(k), size(n)]
    a, b = (a[::-1], b) if side == "A" else (a, b[::-1])
    body = (
        "t = Transpose(a) y = MatMul(t, b)" if side == "A" else "t = Transpose(b) y = MatMul(a, t)"
    )
    text = f"g (float[{','.join(a)}] a, float[{','.join(b)}] b) => (float[{size(m)},{size(n)}] y)"
    return model_from(f"{text} {{ {body} }}")


@pytest.mark.parametrize(("m", "n"), [(2, 2), (3, 17), (33, 5), (70, 200)])
@pytest.mark.parametrize(("side", "k"), [("A", 1), ("A", 128), ("B", 1), ("B", 129), ("B", 700)])
def test_a_transposed_matrix_gives_the_same_bits(side: str, k: int, m: int, n: int) -> None:
    assert_fuses(product(m, k, n, side), ABSORB, ["Gemm"], rtol=0)


@pytest.mark.parametrize("side", ["A", "B"])
@pytest.mark.parametrize(("m", "n"), [(1, 5), (5, 1), (0, 5), (5, 0)])
def test_skips_what_may_be_a_vector(side: str, m: int, n: int) -> None:
    assert_skips(product(m, 7, n, side), ABSORB, "may be one with a vector, which adds in another")


@pytest.mark.parametrize("k", [129, 0])
def test_skips_sums_longer_than_a_block(k: int) -> None:
    assert_skips(product(6, k, 5, "A"), ABSORB, "transA adds (129|N) products, more than 128")


def test_skips_a_matrix_needed_elsewhere() -> None:
    text = (
        "g (float[4,7] a, float[4,5] b) => (float[7,5] y, float[7,4] t) "
        "{ t = Transpose(a) y = MatMul(t, b) }"
    )
    assert_skips(model_from(text), ABSORB, "is needed elsewhere too")


def test_skips_a_matrix_in_a_batch() -> None:
    text = (
        "g (float[4,7] a, float[N,4,5] b) => (float[N,7,5] y) { t = Transpose(a) y = MatMul(t, b) }"
    )
    assert_skips(model_from(text), ABSORB, "more dimensions has no transA")


def test_the_last_two_axes_of_a_batch_stay() -> None:
    text = (
        "g (float[N,4,7] a, float[N,4,5] b) => (float[N,7,5] y) "
        "{ t = Transpose<perm=[0,2,1]>(a) y = MatMul(t, b) }"
    )
    assert not fuse(model_from(text), [ABSORB]).decisions


# weights
def test_a_transposed_weight_is_another_weight() -> None:
    text = "g (float[N,4] x) => (float[N,7] y) { t = Transpose(w) y = MatMul(x, t) }"
    fused = assert_fuses(
        model_from(text, {"w": weight(7, 4)}), ABSORB, ["MatMul"], reason="of a constant", rtol=0
    )
    assert [i.name for i in fused.proto.graph.initializer] == ["t"]


def test_a_transposed_weight_that_is_an_output() -> None:
    text = "g (float[N,4] x) => (float[N,4] y, float[4,7] t) { t = Transpose(w) y = Relu(x) }"
    fused = fuse(model_from(text, {"w": weight(7, 4)}), [ABSORB])
    assert sorted(n.op_type for n in fused.proto.graph.node) == ["Constant", "Relu"]
