"""slicing: what a Slice takes, against NumPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from deploy.surgery.slicing import Cut, cuts_of, size, slice_inputs, takes_all

END = np.iinfo(np.int64).max


def taken(length: int, cut: Cut) -> list[int]:
    return list(range(length))[slice(cut.start, cut.stop, cut.step)]


def slice_node(shape: list[int | str] | None, *numbers: list[int]) -> gs.Node:
    x = gs.Variable("x", np.float32, shape)
    inputs = [gs.Constant(f"c{i}", np.array(v, np.int64)) for i, v in enumerate(numbers)]
    return gs.Node("Slice", "s", inputs=[x, *inputs], outputs=[gs.Variable("y")])


def test_a_cut_of_a_cut_is_the_cut_of_both() -> None:
    cuts = [
        Cut(start, stop, step)
        for start, stop, step in product((0, 1, 4), (None, 0, 3, 5, 9), (1, 2, 3))
    ]
    for outer, inner, length in product(cuts, cuts, (1, 4, 7)):
        whole = taken(length, outer)
        expected = whole[slice(inner.start, inner.stop, inner.step)]
        assert taken(length, inner.within(outer)) == expected, (outer, inner, length)


@pytest.mark.parametrize("start", [-9, -3, 0, 2, 9])
@pytest.mark.parametrize("end", [-9, -2, 0, 4, 9, END])
def test_a_known_length_clips_as_numpy_does(start: int, end: int) -> None:
    cuts = cuts_of(slice_node([5, 7], [start], [end], [-1], [2]))
    assert cuts is not None
    assert taken(7, cuts[1]) == list(range(7))[start:end:2]
    assert slice_inputs(cuts)[2].tolist() == [1]


def test_a_free_length_is_cut_from_its_start() -> None:
    assert cuts_of(slice_node(["N", 7], [2], [5], [0])) == {0: Cut(2, 5)}
    assert cuts_of(slice_node(["N", 7], [2], [END], [0])) == {0: Cut(2, None)}
    assert cuts_of(slice_node(None, [2], [2**31 - 1], [3])) == {3: Cut(2, None)}


@pytest.mark.parametrize(
    "numbers", [([-1], [END], [0]), ([0], [-1], [0]), ([3], [0], [1], [-1])], ids=str
)
def test_what_depends_on_a_length_or_turns_around_is_unknown(
    numbers: tuple[list[int], ...],
) -> None:
    assert cuts_of(slice_node(["N", 7], *numbers)) is None


def test_an_axis_from_the_back_of_an_unknown_rank_is_unknown() -> None:
    assert cuts_of(slice_node(None, [0], [1], [-1])) is None


def test_an_input_left_out_in_the_middle_is_unknown() -> None:
    node = slice_node([5, 7], [0], [5], [0], [2])
    node.inputs[3] = gs.Variable.empty()
    assert cuts_of(node) is None


def test_taking_all() -> None:
    x = gs.Variable("x", np.float32, ["N", 7])
    assert takes_all(x, {0: Cut(0, None), 1: Cut(0, 7)})
    for part in (Cut(1, 7), Cut(0, 6), Cut(0, 7, 2)):
        assert not takes_all(x, {1: part})
    assert [size(x, axis) for axis in (0, 1)] == [None, 7]
