"""slices_to_split: which Slices become one Split, and why the others don't."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops

from deploy.artifacts.model import Model
from deploy.fuse import fuse

SPLIT = "slices_to_split"
END = np.iinfo(np.int64).max


def slices(*ranges: tuple[int, int], axis: int = 1, source: str = "N,7,8,6") -> Model:
    """A Slice of x per range, outputs y0, y1, …"""
    body, ends, values = [], [], {"i": np.array([axis])}
    lengths = [int(d) if d.isdigit() else 0 for d in source.split(",")]
    for n, (start, end) in enumerate(ranges):
        dims = source.split(",")
        dims[axis] = str(len(range(*slice(start, end).indices(lengths[axis]))))
        body.append(f"y{n} = Slice(x, s{n}, e{n}, i)")
        ends.append(f"float[{','.join(dims)}] y{n}")
        values |= {f"s{n}": np.array([start]), f"e{n}": np.array([end])}
    return model_from(
        f"g (float[{source}] x) => ({', '.join(ends)}) {{ {' '.join(body)} }}", values
    )


@pytest.mark.parametrize(
    ("ranges", "axis"),
    [
        (((0, 3), (3, 7)), 1),
        (((0, 3), (3, END)), 1),
        (((2, 6), (-1, END), (0, 2)), 1),
        (((0, 4), (4, 5), (5, 8)), -2),
        (((0, -2), (-2, END)), 3),
    ],
)
def test_tiles_become_one_split(ranges: tuple[tuple[int, int], ...], axis: int) -> None:
    fused = assert_fuses(slices(*ranges, axis=axis), SPLIT, ["Split"], rtol=0)
    assert [d.reason for d in fused.decisions] == [f"{len(ranges)} Slices turned into one Split"]


def test_what_overlaps_the_tiles_stays() -> None:
    fused = assert_fuses(slices((0, 3), (1, 4), (3, 7)), SPLIT, ["Slice", "Split"], rtol=0)
    assert list(fused.proto.graph.node[1].output) == ["y0", "y2"]


def test_slices_of_another_axis_or_with_steps_stay() -> None:
    text = """
    g (float[N,7,8] x) => (float[N,3,8] y, float[N,4,8] z, float[N,7,3] u, float[N,4,8] v,
        float[N,3,3] o) {
        y = Slice(x, zero, three, one)  z = Slice(x, three, end, one)
        u = Slice(x, zero, three, two)    v = Slice(x, zero, end, one, two)
        o = Slice(x, zeros, threes, both)
    }
    """
    names = {"zero": 0, "one": 1, "two": 2, "three": 3, "end": END}
    pairs = {"zeros": [0, 0], "threes": [3, 3], "both": [1, 2]}
    values = {**{n: [v] for n, v in names.items()}, **pairs}
    made = model_from(text, {n: np.array(v) for n, v in values.items()})
    assert_fuses(made, SPLIT, ["Slice", "Slice", "Slice", "Split"], rtol=0)


def test_one_slice_is_none() -> None:
    fused = fuse(slices((0, 3)), [SPLIT])
    assert (ops(fused), fused.decisions) == (["Slice"], ())


@pytest.mark.parametrize(
    "ranges", [((0, 3), (4, 7)), ((0, 3), (2, 7)), ((0, 3), (3, 6)), ((0, 3), (0, 3), (3, 6))]
)
def test_skips_gaps_and_overlaps(ranges: tuple[tuple[int, int], ...]) -> None:
    fused = assert_skips(slices(*ranges), SPLIT, "the Slices of 'x' leave gaps, or overlap")
    starts = [start for start, _ in ranges]
    assert len(fused.decisions) == starts.count(0), "told once, where the first part is"


def test_skips_a_second_slice_of_the_same_part() -> None:
    fused = fuse(slices((0, 3), (0, 3), (3, 7)), [SPLIT])
    assert sorted(ops(fused)) == ["Slice", "Split"]


def test_skips_a_free_length() -> None:
    text = (
        "g (float[A,4] x) => (float[B,4] y, float[C,4] z) "
        "{ y = Slice(x, zero, two, zero) z = Slice(x, two, end, zero) }"
    )
    values = {"zero": np.array([0]), "two": np.array([2]), "end": np.array([END])}
    assert_skips(model_from(text, values), SPLIT, "length of 'x' along axis 0 is unknown")
