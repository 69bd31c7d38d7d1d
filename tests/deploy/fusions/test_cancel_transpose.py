"""cancel_transpose: what becomes of Transposes that meet, and which names stay."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops

from deploy.fuse import fuse

CANCEL = "cancel_transpose"
TO_NHWC, TO_NCHW = "perm=[0,2,3,1]", "perm=[0,3,1,2]"
X = "float[N,4,8,6] x"


def test_two_that_undo_each_other_go() -> None:
    text = (
        f"g ({X}) => (float[N,4,8,6] y) {{ r = Relu(x) a = Transpose<{TO_NHWC}>(r) "
        f"b = Transpose<{TO_NCHW}>(a) y = Neg(b) }}"
    )
    fused = assert_fuses(model_from(text), CANCEL, ["Relu", "Neg"], reason="undo", rtol=0)
    assert fused.decisions[0].bytes_saved == 2 * 2 * 4 * 8 * 6 * 4
    assert list(fused.proto.graph.node[1].input) == ["r"]


def test_every_reader_reads_the_value_itself() -> None:
    """One of them twice."""
    text = (
        f"g ({X}) => (float[N,4,8,6] y, float[N,8,8,6] z) {{ a = Transpose<{TO_NHWC}>(x) "
        f"b = Transpose<{TO_NCHW}>(a) y = Neg(b) z = Concat<axis=1>(b, b) }}"
    )
    assert_fuses(model_from(text), CANCEL, ["Neg", "Concat"], rtol=0)


def test_an_output_keeps_its_name() -> None:
    """The node before gives it; who read the old name reads the output."""
    text = (
        f"g ({X}) => (float[N,4,8,6] y, float[N,4,8,6] z) {{ r = Relu(x) "
        f"a = Transpose<{TO_NHWC}>(r) y = Transpose<{TO_NCHW}>(a) z = Neg(r) }}"
    )
    fused = assert_fuses(model_from(text), CANCEL, ["Relu", "Neg"], rtol=0)
    assert [list(node.output) for node in fused.proto.graph.node] == [["y"], ["z"]]


@pytest.mark.parametrize("start", ["", "r = Relu(x)"], ids=["an input", "an output"])
def test_two_names_that_must_stay_take_a_copy(start: str) -> None:
    value, ends = ("r", f"{'float[N,4,8,6]'} r, ") if start else ("x", "")
    text = (
        f"g ({X}) => ({ends}float[N,4,8,6] y) {{ {start} a = Transpose<{TO_NHWC}>({value}) "
        f"y = Transpose<{TO_NCHW}>(a) }}"
    )
    kept = ["Relu"] if start else []
    fused = assert_fuses(model_from(text), CANCEL, [*kept, "Identity"], reason="a copy", rtol=0)
    assert fused.decisions[0].bytes_saved == 2 * 4 * 8 * 6 * 4


def test_two_become_one() -> None:
    text = (
        f"g ({X}) => (float[6,8,4,N] y) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = Transpose<perm=[2,1,3,0]>(a) }"
    )
    fused = assert_fuses(model_from(text), CANCEL, ["Transpose"], reason="merged", rtol=0)
    assert list(fused.proto.graph.node[0].attribute[0].ints) == [3, 2, 1, 0]
    assert fused.decisions[0].bytes_saved == 2 * 4 * 8 * 6 * 4


def test_a_chain_becomes_one() -> None:
    turn = "perm=[1,2,0,3]"
    text = (
        f"g ({X}) => (float[8,N,4,6] y) {{ a = Transpose<{turn}>(x) b = Transpose<{turn}>(a) "
        f"c = Transpose<{turn}>(b) d = Transpose<{turn}>(c) y = Transpose<{turn}>(d) }}"
    )
    assert_fuses(model_from(text), CANCEL, ["Transpose"], rtol=0)


def test_the_default_order_is_reversed() -> None:
    text = "g (float[N,4,8] x) => (float[N,4,8] y) { a = Transpose(x) b = Transpose(a) y = Abs(b) }"
    assert_fuses(model_from(text), CANCEL, ["Abs"], reason="undo", rtol=0)


def test_one_that_moves_nothing_goes() -> None:
    text = f"g ({X}) => (float[N,4,8,6] y) {{ a = Transpose<perm=[0,1,2,3]>(x) y = Neg(a) }}"
    assert_fuses(model_from(text), CANCEL, ["Neg"], reason="moves no axis", rtol=0)


@pytest.mark.parametrize(
    ("shape", "perm"), [("N,1,1,5", "0,2,1,3"), ("1,1,1", "2,0,1"), ("1,N,1,M", "2,1,0,3")]
)
def test_one_that_moves_ones_to_ones_goes(shape: str, perm: str) -> None:
    text = f"{{ a = Transpose<perm=[{perm}]>(x) y = Neg(a) }}"
    model = model_from(f"g (float[{shape}] x) => (float[{shape}] y) {text}")
    assert_fuses(model, CANCEL, ["Neg"], reason="moves no axis", rtol=0)


def test_twice_the_same_is_once() -> None:
    text = (
        f"g ({X}) => (float[N,8,6,4] y, float[N,8,6,4] z) {{ a = Transpose<{TO_NHWC}>(x) "
        f"y = Neg(a) b = Transpose<{TO_NHWC}>(x) z = Abs(b) }}"
    )
    assert_fuses(model_from(text), CANCEL, ["Transpose", "Neg", "Abs"], reason="the same", rtol=0)


def test_twice_the_same_where_both_are_outputs() -> None:
    text = (
        f"g ({X}) => (float[N,8,6,4] y, float[N,8,6,4] z) {{ y = Transpose<{TO_NHWC}>(x) "
        f"z = Transpose<{TO_NHWC}>(x) }}"
    )
    fused = fuse(model_from(text), [CANCEL])
    assert ops(fused) == ["Transpose", "Identity"]
    assert_same_numbers(model_from(text), fused, rtol=0)


def test_the_inner_one_stays_for_others() -> None:
    text = (
        f"g ({X}) => (float[N,4,8,6] y, float[N,8,6,4] z) {{ a = Transpose<{TO_NHWC}>(x) "
        f"z = Abs(a) b = Transpose<{TO_NCHW}>(a) y = Neg(b) }}"
    )
    fused = fuse(model_from(text), [CANCEL])
    assert sorted(ops(fused)) == ["Abs", "Neg", "Transpose"]
    assert_same_numbers(model_from(text), fused, rtol=0)
    assert fused.decisions[0].bytes_saved == 2 * 4 * 8 * 6 * 4


@pytest.mark.parametrize(
    ("shape", "perm", "out", "target"),
    [
        ("N,1,1,5", "0,3,1,2", "N,5,1,1", [0, 5, 1, 1]),
        ("2,1,3,5", "1,0,2,3", "1,2,3,5", [1, 2, 3, 5]),
        ("N,1,M,5", "1,0,2,3", "1,N,M,5", [1, -1, 0, 5]),
        ("1,N,5", "1,2,0", "N,5,1", [-1, 5, 1]),
    ],
)
def test_moving_ones_is_a_reshape(shape: str, perm: str, out: str, target: list[int]) -> None:
    text = f"g (float[{shape}] x) => (float[{out}] y) {{ y = Transpose<perm=[{perm}]>(x) }}"
    fused = assert_fuses(model_from(text), CANCEL, ["Reshape"], reason="a Reshape", rtol=0)
    values = np.frombuffer(fused.proto.graph.initializer[0].raw_data, np.int64)
    assert values.tolist() == target


# what stays, and why
def test_skips_a_pair_whose_first_is_needed() -> None:
    text = (
        f"g ({X}) => (float[6,8,4,N] y, float[N,8,6,4] z) {{ a = Transpose<{TO_NHWC}>(x) "
        "z = Abs(a) y = Transpose<perm=[2,1,3,0]>(a) }"
    )
    assert_skips(model_from(text), CANCEL, "'a' is needed elsewhere too")


def test_skips_a_pair_whose_first_is_an_output() -> None:
    text = (
        f"g ({X}) => (float[6,8,4,N] y, float[N,8,6,4] a) {{ a = Transpose<{TO_NHWC}>(x) "
        "y = Transpose<perm=[2,1,3,0]>(a) }"
    )
    assert_skips(model_from(text), CANCEL, "'a' is needed elsewhere too")


def test_skips_two_free_dimensions_that_move() -> None:
    text = "g (float[1,N,M] x) => (float[N,M,1] y) { y = Transpose<perm=[1,2,0]>(x) }"
    assert_skips(model_from(text), CANCEL, "more than one free dimension")


def test_skips_an_empty_value() -> None:
    text = "g (float[0,1,3] x) => (float[1,0,3] y) { y = Transpose<perm=[1,0,2]>(x) }"
    assert_skips(model_from(text), CANCEL, "is empty")


@pytest.mark.parametrize("shape", ["N,4,8,6", "2,3,1,5"])
def test_real_movement_stays(shape: str) -> None:
    text = f"g (float[{shape}] x) => (float[A,B,C,D] y) {{ y = Transpose<{TO_NHWC}>(x) }}"
    assert not fuse(model_from(text), [CANCEL]).decisions
