"""Which constants a tensor may carry: what passes them on, takes them back, or holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
from equalized import RELATIVE, largest_error, samples_for
from helpers import model_from, weight

from deploy.artifacts.model import Model
from deploy.surgery.channel_layers import Names, add_to_bias
from deploy.surgery.channel_shifts import channel_shifts, int8_places, quantized_places
from deploy.surgery.graph import infer, to_graph, to_model, verified

W = {
    "w1": weight(4, 3, 3, 3, seed=1),
    "b1": weight(4, seed=2),
    "w2": weight(5, 4, 1, 1, seed=3),
    "b2": weight(5, seed=4),
    "wg": weight(6, 2, 1, 1, seed=5),
    "perc": weight(4, 1, 1, seed=6),
    "wx": weight(1, 3, 3, 3, seed=7),
    "flat": weight(4 * 6 * 8, 5, seed=8),
    "turned": weight(5, 4 * 6 * 8, seed=8),
    "row": weight(1, 5, seed=9),
    "number": weight(seed=10),
    "turn": np.array([3, 1, 0, 2, 2]),
    "w5": weight(2, 5, 1, 1, seed=11),
    "half": weight(3, 2, 1, 1, seed=12),
    "wt": weight(4, 2, 2, 2, seed=13),
    "shuffled": np.array([0, 2, 2, 6, 8]),
    "mapped": np.array([0, 4, 6, 8]),
    "halves": np.array([2, 2]),
    "frame": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
}


def checked(text: str, weights: Mapping[str, np.ndarray]) -> Model:
    """The model with all shapes inferred, those of its outputs too."""
    model = model_from(text, weights)
    for value in model.proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return Model(verified(infer(model.proto), "m"), "m")


def between(middle: str, end: str = "y = Conv(b, w2, b2)", outputs: str = "y") -> Model:
    """conv -> a, the middle from a to b, and a layer that reads b."""
    given = ", ".join(f"float[N] {name}" for name in outputs.split(", "))
    text = f"""g (float[N,3,6,8] x) => ({given}) {{
        a = Conv<pads = [1,1,1,1]>(x, w1, b1)
        {middle}
        {end}
    }}"""
    return checked(text, {k: v for k, v in W.items() if re.search(rf"\b{k}\b", text)})


def moved(model: Model) -> tuple[Model, int]:
    """Every free atom at a constant of its own, and how many there are."""
    graph = to_graph(model)
    found = channel_shifts(graph)
    shifts = np.zeros(found.count)
    for maker in found.free:
        shifts[maker.slots] = 0.3 + 0.1 * maker.slots
    names = Names(graph)
    found.take_back(shifts, names)
    for maker in found.free:
        add_to_bias(maker.node, shifts[maker.slots], names)
    return to_model(graph, model, ()), int(np.count_nonzero(shifts))


SPLIT_SUM = """c = Conv<pads = [1,1,1,1]>(x, w1, b1) s = Add(a, c)
    l, r = Split<axis = 1>(s, halves) d = Identity(l) b = Add(d, r)"""
CARRIES = {
    "nothing": ("b = Identity(a)", 4),
    "max pool": ("b = MaxPool<kernel_shape = [2,2], pads = [1,0,0,0]>(a)", 4),
    "average": ("b = AveragePool<kernel_shape = [2,2], count_include_pad = 1>(a)", 4),
    "average of what is there": (
        "b = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1], ceil_mode = 1>(a)",
        4,
    ),
    "mean": ("b = ReduceMean<axes = [2,3]>(a)", 4),
    "global": ("b = GlobalMaxPool(a)", 4),
    "plus a constant": ("b = Add(a, perc)", 4),
    "a constant plus": ("b = Add(perc, a)", 4),
    "twice": ("b = Add(a, a)", 4),
    "residual": ("c = Conv<pads = [1,1,1,1]>(x, w1, b1) b = Add(a, c)", 8),
    "residual of pooled": ("m = GlobalAveragePool(a) b = Add(a, m)", 4),
    "with the input": ("c = Conv<pads = [1,1,1,1]>(x, w1) r = Relu(c) b = Add(a, r)", 4),
    "shuffle": (
        "r = Reshape(a, shuffled) t = Transpose<perm = [0,2,1,3,4]>(r) b = Reshape(t, mapped)",
        4,
    ),
    "split and concat": ("l, r = Split<axis = 1>(a, halves) b = Concat<axis = 1>(r, l)", 4),
    "a split sum": (SPLIT_SUM, 8),
}
ENDS = {"a split sum": "y = Conv(b, half)"}


@pytest.mark.parametrize("name", CARRIES)
def test_a_constant_passes(name: str) -> None:
    middle, count = CARRIES[name]
    model = between(middle, ENDS.get(name, "y = Conv(b, w2, b2)"))
    after, atoms = moved(model)
    assert atoms == count
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


READERS = {
    "without a bias": "y = Conv(a, w2)",
    "an empty bias": "y = Conv(a, w2, )",
    "grouped": "y = Conv<group = 2>(a, wg)",
    "strided, valid": 'y = Conv<strides = [2,2], auto_pad = "VALID">(a, w2, b2)',
    "gathered": "g = Gather<axis = 1>(a, turn) y = Conv(g, w5)",
    "gemm": "f = Flatten(a) y = Gemm(f, flat, b2)",
    "gemm, turned": "f = Flatten(a) y = Gemm<transB = 1>(f, turned)",
    "gemm with a row": "f = Flatten(a) y = Gemm(f, flat, row)",
    "gemm with a number": "f = Flatten(a) y = Gemm(f, flat, number)",
}


@pytest.mark.parametrize("end", READERS.values(), ids=READERS)
def test_a_reader_takes_it_back(end: str) -> None:
    model = between("", end)
    after, atoms = moved(model)
    assert atoms == 4
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


HOLDS = {
    "relu": ("b = Relu(a)", r"Relu\) doesn't carry"),
    "padded average": (
        "b = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1>(a)",
        "AveragePool",
    ),
    "average padded to the same": (
        'b = AveragePool<kernel_shape = [3,3], auto_pad = "SAME_UPPER", count_include_pad = 1>(a)',
        "AveragePool",
    ),
    "frame": ("b = Pad(a, frame)", "Pad"),
    "difference": ("c = Relu(a) b = Sub(a, c)", "doesn't carry"),
    "one map for all": ("c = Conv<pads = [1,1,1,1]>(x, wx) b = Add(a, c)", "Add"),
    "sum of pixels": ("s = ReduceSum<keepdims = 1>(a) b = Add(a, s)", "ReduceSum"),
}


@pytest.mark.parametrize(("middle", "reason"), HOLDS.values(), ids=HOLDS)
def test_a_constant_is_held(middle: str, reason: str) -> None:
    model = between(middle)
    found = channel_shifts(to_graph(model))
    reasons = [found.pinned.get(atom, "free") for atom in found.makers[0].slots.tolist()]
    assert all(re.search(reason, said) for said in reasons), reasons
    after, _ = moved(model)
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


@pytest.mark.parametrize(
    "end",
    [
        "y = Conv<pads = [0,0,1,0]>(a, w2)",
        'y = Conv<auto_pad = "SAME_UPPER">(a, w2)',
        "y = ConvTranspose(a, wt)",
        "f = Flatten(a) y = Gemm<alpha = 0.5>(f, flat)",
        "f = Flatten(a) y = Gemm<beta = 2.0>(f, flat, b2)",
        "f = Flatten(a) y = MatMul(f, flat)",
    ],
)
def test_a_reader_that_cant_take_it_back_holds_it(end: str) -> None:
    model = between("", end)
    found = channel_shifts(to_graph(model))
    assert not found.free
    assert all("pads with zeros, or takes no bias" in r for r in list(found.pinned.values())[:4])


def test_an_output_and_a_body_hold_it() -> None:
    found = channel_shifts(to_graph(between("b = Identity(a)", outputs="y, a")))
    assert set(found.pinned.values()) == {"an output of the model"}
    text = """g (float[N,3,6,8] x, bool flag) => (float[N,5,6,8] y, float[N,4,6,8] z) {
        a = Conv<pads = [1,1,1,1]>(x, w1, b1)
        y = Conv(a, w2, b2)
        z = If(flag) <then_branch = t () => (float[N,4,6,8] p) { p = Neg(a) },
                      else_branch = e () => (float[N,4,6,8] q) { q = Abs(a) }>
    }"""
    model = checked(text, {k: W[k] for k in ("w1", "b1", "w2", "b2")})
    found = channel_shifts(to_graph(model))
    assert {found.pinned[i] for i in range(4)} == {"read inside If -> z (If)"}


@pytest.mark.parametrize("wider", ["Add(a, cube)", "Add(c, a)"])
def test_channels_that_broadcasting_moves_to_another_axis_hold_it(wider: str) -> None:
    text = f"""g (float[4,3] x, float[2,3,4] z) => (float[2,5,4] y) {{
        a = Gemm(x, u)
        c = Conv(z, v)
        b = {wider}
        y = Conv(b, w)
    }}"""
    weights = {"u": weight(3, 4), "v": weight(4, 3, 1), "w": weight(5, 4, 1)}
    model = checked(text, weights | ({"cube": weight(2, 4, 4)} if "cube" in wider else {}))
    found = channel_shifts(to_graph(model))
    assert set(found.makers[0].slots.tolist()) <= set(found.pinned)


def test_a_name_means_nothing_in_another_domain() -> None:
    graph = to_graph(between("b = MaxPool<kernel_shape = [2,2]>(a)"))
    assert len(channel_shifts(graph).free) == 1
    next(node for node in graph.nodes if node.op == "MaxPool").domain = "com.example"
    assert not channel_shifts(graph).free


def test_activations_are_makers_only_behind_a_layer_of_their_own() -> None:
    own = channel_shifts(to_graph(between("b = Relu(a)")), activations=True)
    assert [maker.node.op for maker in own.free] == ["Relu"]
    shared = between("b = Relu(a)", outputs="y, a")
    assert not channel_shifts(to_graph(shared), activations=True).free
    after_pool = between("p = MaxPool<kernel_shape = [2,2]>(a) b = Relu(p)")
    assert not channel_shifts(to_graph(after_pool), activations=True).free


def test_padded_readers_and_inputs_only_for_who_asks() -> None:
    text = """g (float[N,3,6,8] x) => (float[N,4,6,8] y, float[N,4,4,6] z) {
        y = Conv<pads = [1,1,1,1]>(x, w1) z = Conv(x, w1)
    }"""
    graph = to_graph(checked(text, {"w1": W["w1"]}))
    plain, asked = channel_shifts(graph), channel_shifts(graph, padded=True)
    assert not plain.inputs
    assert [len(plain.readers), len(asked.readers)] == [1, 2]
    np.testing.assert_array_equal(asked.inputs["x"], asked.of["x"][0])
    assert asked.is_free(asked.inputs["x"])
    assert not asked.is_free(asked.makers[0].slots)


def test_places_are_what_layers_and_adds_read() -> None:
    graph = to_graph(between("m = MaxPool<kernel_shape = [1,1]>(a) b = Add(m, perc)"))
    assert int8_places(graph) == ["x", "m", "b"]
    # two atoms in one tensor can't be centred apart
    two = to_graph(between("c = Conv<pads = [1,1,1,1]>(x, w1) b = Add(a, c)"))
    assert int8_places(two) == ["x", "a", "c", "b"]
    assert quantized_places(two, channel_shifts(two)) == ["a", "c"]


def test_seen_is_the_widest_of_all_places() -> None:
    graph = to_graph(between("b = MaxPool<kernel_shape = [1,1]>(a)"))
    found = channel_shifts(graph)
    one, two = np.arange(4.0), np.arange(4.0) * 2
    low, high = found.seen({"a": (-one, one), "b": (-two, one)})
    np.testing.assert_array_equal(low[:4], -two)
    np.testing.assert_array_equal(high[:4], one)
    assert (low[4:] > high[4:]).all()
