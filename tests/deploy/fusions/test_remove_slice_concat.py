"""remove_slice_concat: which copies disappear, bit for bit, and why the others stay."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

REMOVE = "remove_slice_concat"
END = np.iinfo(np.int64).max


def model(text: str, ends: str, *, opset: int = 17, **constants: object) -> Model:
    """`text` from x (7 channels of 8x6) and w (5 channels) to the outputs `ends`."""
    head = f"g (float[N,7,8,6] x, float[N,5,8,6] w) => ({ends})"
    values = {name: np.asarray(value) for name, value in constants.items()}
    return model_from(f"{head} {{ {text} }}", values, opset=opset)


def test_a_concat_of_a_whole_split_is_the_source() -> None:
    made = model(
        "r = Relu(x) a, b, c = Split<axis=1>(r, s) j = Concat<axis=1>(a, b, c) y = Neg(j)",
        "float[N,7,8,6] y",
        s=[2, 4, 1],
    )
    fused = assert_fuses(made, REMOVE, ["Relu", "Neg"], reason="a whole Split", rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * 7 * 8 * 6]


def test_a_split_that_others_read_stays() -> None:
    made = model(
        "a, b = Split<axis=-3>(x, s) j = Concat<axis=1>(a, b) y = Neg(j) z = Relu(b)",
        "float[N,7,8,6] y, float[N,5,8,6] z",
        s=[2, 5],
    )
    assert_fuses(made, REMOVE, ["Split", "Neg", "Relu"], rtol=0)


def test_split_in_equal_parts_as_from_opset_18() -> None:
    made = model(
        "a, b = Split<axis=2, num_outputs=2>(x) j = Concat<axis=2>(a, b) y = Neg(j)",
        "float[N,7,8,6] y",
        opset=18,
    )
    assert_fuses(made, REMOVE, ["Neg"], rtol=0)


def test_an_output_of_the_model_keeps_its_name() -> None:
    made = model(
        "a, b = Split<axis=1>(x, s) y = Concat<axis=1>(a, b)", "float[N,7,8,6] y", s=[2, 5]
    )
    assert_fuses(made, REMOVE, ["Identity"], rtol=0)


def test_all_readers_read_the_source() -> None:
    made = model(
        "a, b = Split<axis=1>(x, s) j = Concat<axis=1>(a, b) y = Mul(j, j) z = Sub(j, y)",
        "float[N,7,8,6] y, float[N,7,8,6] z",
        s=[2, 5],
    )
    assert_fuses(made, REMOVE, ["Mul", "Sub"], rtol=0)


@pytest.mark.parametrize("sizes", ["s", ""])
def test_a_split_of_a_concat_is_its_parts(sizes: str) -> None:
    joined = "w, w" if not sizes else "x, w"
    side = f", {sizes}" if sizes else ""
    made = model(
        f"j = Concat<axis=1>({joined}) a, b = Split<axis=1>(j{side}) y = Neg(a) z = Relu(b)",
        f"float[N,{7 if sizes else 5},8,6] y, float[N,5,8,6] z",
        **({"s": [7, 5]} if sizes else {}),
    )
    assert_fuses(made, REMOVE, ["Neg", "Relu"], reason="into the same parts", rtol=0)


def test_a_part_that_is_an_output_of_the_model_keeps_its_name() -> None:
    made = model(
        "j = Concat<axis=1>(x, w) a, y = Split<axis=1>(j, s) z = Relu(a)",
        "float[N,5,8,6] y, float[N,7,8,6] z",
        s=[7, 5],
    )
    assert_fuses(made, REMOVE, ["Identity", "Relu"], rtol=0)


@pytest.mark.parametrize(
    ("start", "end", "left", "channels"),
    [
        (1, 4, ["Slice", "Neg"], 3),
        (0, 7, ["Neg"], 7),
        (8, 12, ["Slice", "Neg"], 4),
        (-4, END, ["Slice", "Neg"], 4),
        (7, END, ["Neg"], 5),
    ],
)
def test_a_slice_reads_the_part_it_lies_in(
    start: int, end: int, left: list[str], channels: int
) -> None:
    made = model(
        "j = Concat<axis=1>(x, w) a = Slice(j, s, e, i) y = Neg(a)",
        f"float[N,{channels},8,6] y",
        s=[start],
        e=[end],
        i=[1],
    )
    assert_fuses(made, REMOVE, left, reason="one input of Concat", rtol=0)


def test_a_slice_over_more_axes_and_steps_reads_its_part() -> None:
    made = model(
        "j = Concat<axis=1>(x, w) a = Slice(j, s, e, i, t) y = Neg(a) z = Relu(j)",
        "float[N,2,3,6] y, float[N,12,8,6] z",
        s=[1, 8],
        e=[-1, 12],
        i=[-2, 1],
        t=[2, 3],
    )
    fused = assert_fuses(made, REMOVE, ["Concat", "Slice", "Neg", "Relu"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [0], "the Concat is still read"


def test_parts_of_free_length() -> None:
    text = """
    g (float[N,A,4] x, float[N,B,4] w, float[N,3,4] v) => (float[N,2,4] y, float[N,C,4] z) {
        j = Concat<axis=1>(v, x)  a = Slice(j, s, e, i)  y = Neg(a)
        b = Slice(j, e3, f, i)  z = Relu(b)
    }
    """
    values = {"s": [1], "e": [3], "i": [1], "e3": [3], "f": [END]}
    made = model_from(text, {n: np.asarray(v) for n, v in values.items()})
    fused = fuse(made, [REMOVE])
    assert sorted(ops(fused)) == ["Neg", "Relu", "Slice"]
    assert_same_numbers(made, fused, rtol=0)


@pytest.mark.parametrize(
    ("first", "second", "size"),
    [
        (([1], [6], [1], [1]), ([1], [3], [1], [1]), "2,8,6"),
        (([1], [END], [1], [2]), ([1], [END], [1], [1]), "2,8,6"),
        (([1], [6], [1], [2]), ([0], [3], [1], [2]), "2,8,6"),
        (([0], [-1], [2], [1]), ([-3], [-1], [2], [1]), "7,2,6"),
        (([1], [6], [1], [1]), ([2], [5], [3], [1]), "5,8,3"),
        (([1, 2], [6, 7], [1, -1], [1, 3]), ([2], [5], [1], [2]), "2,8,2"),
    ],
)
def test_two_slices_become_one(
    first: tuple[list[int], ...], second: tuple[list[int], ...], size: str
) -> None:
    made = model(
        "a = Slice(x, s, e, i, t) y = Slice(a, s2, e2, i2, t2)",
        f"float[N,{size}] y",
        **dict(zip(("s", "e", "i", "t", "s2", "e2", "i2", "t2"), (*first, *second), strict=True)),
    )
    assert_fuses(made, REMOVE, ["Slice"], reason="two Slices merged", rtol=0)


def test_slices_of_a_free_length_become_one() -> None:
    text = "g (float[N,4] x) => (float[M,4] y) { a = Slice(x, s, e, i) y = Slice(a, s, f, i) }"
    values = {"s": np.array([1]), "e": np.array([END]), "f": np.array([3]), "i": np.array([0])}
    fused = assert_fuses(model_from(text, values), REMOVE, ["Slice"], rtol=0)
    assert fused.outputs[0].shape == (None, 4)


def test_slices_without_axes() -> None:
    made = model(
        "a = Slice(x, s, e) y = Slice(a, s, f)", "float[M,3,8,6] y", s=[0, 1], e=[9, 5], f=[9, 9]
    )
    fused = fuse(made, [REMOVE])
    assert ops(fused) == ["Slice"]


@pytest.mark.parametrize(("start", "end"), [(0, 7), (0, END), (-7, 99)])
def test_a_slice_of_everything_is_nothing(start: int, end: int) -> None:
    made = model("a = Slice(x, s, e, i) y = Neg(a)", "float[N,7,8,6] y", s=[start], e=[end], i=[1])
    assert_fuses(made, REMOVE, ["Neg"], reason="takes everything", rtol=0)


def test_a_slice_of_everything_of_a_free_length_is_nothing() -> None:
    made = model("a = Slice(x, s, e, i) y = Neg(a)", "float[N,7,8,6] y", s=[0], e=[END], i=[0])
    assert_fuses(made, REMOVE, ["Neg"], rtol=0)


@pytest.mark.parametrize("text", ["a = Concat<axis=1>(x)", "a = Split<axis=1>(x)"])
def test_one_part_is_nothing(text: str) -> None:
    assert_fuses(model(f"{text} y = Neg(a)", "float[N,7,8,6] y"), REMOVE, ["Neg"], rtol=0)


def test_nested_concats_become_one() -> None:
    made = model("a = Concat<axis=1>(w, x) y = Concat<axis=-3>(x, a, w)", "float[N,24,8,6] y")
    fused = assert_fuses(made, REMOVE, ["Concat"], reason="two Concats merged", rtol=0)
    assert list(fused.proto.graph.node[0].input) == ["x", "w", "x", "w"]


# ---- what stays, and why


@pytest.mark.parametrize("parts", ["b, a, c", "a, b", "a, b, b", "a, a, b, c"])
def test_skips_other_orders(parts: str) -> None:
    channels = {"b, a, c": 7, "a, b": 6, "a, b, b": 10, "a, a, b, c": 9}[parts]
    made = model(
        f"a, b, c = Split<axis=1>(x, s) y = Concat<axis=1>({parts})",
        f"float[N,{channels},8,6] y",
        s=[2, 4, 1],
    )
    assert_skips(made, REMOVE, "joins only some parts of .*, or in another order")


def test_another_axis_is_none() -> None:
    made = model(
        "a, b = Split<axis=2>(x, s) y = Concat<axis=3>(a, b)", "float[N,7,4,12] y", s=[4, 4]
    )
    fused = fuse(made, [REMOVE])
    assert (ops(fused), fused.decisions) == (["Split", "Concat"], ())


def test_another_axis_of_concat_and_slice_is_none() -> None:
    made = model(
        "j = Concat<axis=1>(x, w) y = Slice(j, s, e, i)", "float[N,12,2,6] y", s=[1], e=[3], i=[2]
    )
    fused = fuse(made, [REMOVE])
    assert (ops(fused), fused.decisions) == (["Concat", "Slice"], ())


@pytest.mark.parametrize(
    "text",
    [
        "a = Softmax<axis=1>(x) y = Slice(a, s, e, i)",
        "a = Softmax<axis=1>(x) y, b = Split<axis=1>(a, p)",
        "a = Softmax<axis=1>(x) y = Concat<axis=1>(a, a)",
        "a = Concat<axis=1>(x, x) y, b = Split<axis=2>(a, q)",
        "a = Concat<axis=2>(x, x) b = Concat<axis=2>(w, w) y = Concat<axis=1>(a, b)",
    ],
)
def test_what_only_looks_like_it_is_none(text: str) -> None:
    values = {"s": [0], "e": [3], "i": [1], "p": [3, 4], "q": [7, 1]}
    used = {n: v for n, v in values.items() if f" {n})" in text or f" {n}," in text}
    made = model(text, "float[N,A,B,C] y", **used)
    fused = fuse(made, [REMOVE])
    assert (ops(fused), fused.decisions) == (ops(made), ())


def test_skips_a_split_elsewhere() -> None:
    made = model(
        "j = Concat<axis=1>(x, w) y, z = Split<axis=1>(j, s)",
        "float[N,5,8,6] y, float[N,7,8,6] z",
        s=[5, 7],
    )
    assert_skips(made, REMOVE, "Split doesn't cut where .* joins")


@pytest.mark.parametrize(("start", "end"), [(6, 8), (0, END), (3, 3)])
def test_skips_a_slice_across_parts(start: int, end: int) -> None:
    # one channel less of everything, which would be no Slice at all
    start = start + (end == END)
    made = model(
        "j = Concat<axis=1>(x, w) y = Slice(j, s, e, i)",
        "float[N,C,8,6] y",
        s=[start],
        e=[end],
        i=[1],
    )
    assert_skips(made, REMOVE, "takes from several inputs of")


def test_skips_behind_a_part_of_free_length() -> None:
    text = """
    g (float[N,A,4] x, float[N,3,4] v) => (float[N,2,4] y) {
        j = Concat<axis=1>(x, v)  y = Slice(j, s, e, i)
    }
    """
    made = model_from(text, {"s": np.array([1]), "e": np.array([3]), "i": np.array([1])})
    assert_skips(made, REMOVE, "from several inputs of .*, or of unknown size")


@pytest.mark.parametrize("front", ["Concat<axis=1>(x, w)", "Slice(x, s, e, i)"])
def test_skips_a_range_computed_at_run_time(front: str) -> None:
    text = (
        "g (float[N,7,8] x, float[N,5,8] w, int64[1] q) => (float[N,C,8] y) "
        f"{{ j = {front} y = Slice(j, q, e, i) }}"
    )
    made = model_from(text, {"s": np.array([1]), "e": np.array([5]), "i": np.array([1])})
    assert_skips(made, REMOVE, "what this Slice takes isn't known before it runs")


@pytest.mark.parametrize(
    ("start", "end", "step"), [([5], [1], [-1]), ([-2], [END], [1]), ([0], [-1], [1])]
)
def test_skips_ranges_that_depend_on_the_length(
    start: list[int], end: list[int], step: list[int]
) -> None:
    text = "g (float[A,4] x) => (float[B,4] y) { a = Slice(x, s, e, i, t) y = Slice(a, z, o, i) }"
    values = {"s": start, "e": end, "t": step, "i": [0], "z": [0], "o": [1]}
    made = model_from(text, {n: np.asarray(v) for n, v in values.items()})
    assert_skips(made, REMOVE, r"what .*Slice -> a.* takes isn't known before it runs")


def test_skips_a_slice_whose_source_is_read_whole() -> None:
    made = model(
        "a = Slice(x, s, e, i) y = Slice(a, s, f, i) z = Relu(a)",
        "float[N,2,8,6] y, float[N,5,8,6] z",
        s=[1],
        e=[6],
        f=[3],
        i=[1],
    )
    assert_skips(made, REMOVE, "'Relu -> z' reads all of 'a'")


def test_skips_an_inner_concat_that_others_read() -> None:
    made = model(
        "a = Concat<axis=1>(w, x) y = Concat<axis=1>(x, a) z = Relu(a)",
        "float[N,19,8,6] y, float[N,12,8,6] z",
    )
    assert_skips(made, REMOVE, "'a' is also read by 'Relu -> z'")


def test_a_reader_inside_a_branch_stays() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,3] y) {
        a = Slice(x, s, e, i)
        y = If (q) <
            then_branch = t () => (float[N,3] u) { u = Relu(a) },
            else_branch = f () => (float[N,3] v) { v = Neg(a) }
        >
    }
    """
    made = model_from(text, {"s": np.array([0]), "e": np.array([3]), "i": np.array([1])})
    assert_skips(made, REMOVE, "lies in the body of another node")


def test_readers_keep_attributes_and_other_inputs() -> None:
    made = model(
        "a = Slice(x, s, e, i) y = Conv<pads=[1,0,0,1], group=7>(a, k, b)",
        "float[N,7,7,5] y",
        s=[0],
        e=[7],
        i=[1],
        k=weight(7, 1, 3, 3),
        b=weight(7),
    )
    assert_fuses(made, REMOVE, ["Conv"], rtol=0)


@pytest.mark.parametrize(("start", "end"), [(0, 4), (1, END)])
def test_one_value_joined_twice_on_an_axis_of_unknown_size(start: int, end: int) -> None:
    """The first of the two is no last input, though it is the same value."""
    made = model_from(
        "g (float[N,8] x) => (float[M,8] y)"
        "{ r = Relu(x) j = Concat<axis=0>(r, r) s = Slice(j, b, e, a) y = Neg(s) }",
        {"b": np.asarray([start]), "e": np.asarray([end]), "a": np.asarray([0])},
    )
    fused = fuse(made, [REMOVE])
    assert_same_numbers(made, fused, rtol=0)
    assert ops(fused) == ["Relu", "Concat", "Slice", "Neg"]
