"""Which channels share a factor: what carries it, what holds it at 1, and where it is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from equalized import RELATIVE, largest_error, samples_for
from helpers import model_from, weight

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.surgery.channel_layers import Names, divide_inputs, scale_offset, scale_outputs
from deploy.surgery.channel_scales import channel_scales
from deploy.surgery.channel_slots import ChannelScales
from deploy.surgery.graph import infer, to_graph, to_model, verified

W = {
    "w1": weight(4, 3, 3, 3, seed=1),
    "b1": weight(4, seed=2),
    "w2": weight(5, 4, 1, 1, seed=3),
    "b2": weight(5, seed=4),
    "wx": weight(1, 3, 3, 3, seed=5),
    "slope": np.abs(weight(4, 1, 1, seed=6)),
    "percs": weight(4, 1, 1, seed=7),
    "perc1": weight(1, 4, 1, 1, seed=8),
    "pixels": weight(6, 8, seed=9),
    "flat": weight(4 * 6 * 8, 5, seed=10),
    "zero": np.float32(0),
    "one": np.float32(1),
    "three": np.float32(3),
    "six": np.float32(6),
    "sizes": np.array([1, 1, 2, 2], np.float32),
    "frame": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "aside": np.array([0, 1, 0, 0, 0, -1, 0, 0]),
    "turn": np.array([3, 1, 0, 2]),
    "shuffled": np.array([0, 2, 2, 6, 8]),
    "mapped": np.array([0, 4, 6, 8]),
    "lines": np.array([0, 4, 48]),
    "halves": np.array([2, 2]),
    "axes": np.array([2, 3]),
    "first": np.array([0]),
    "second": np.array([2]),
    "axis1": np.array([1]),
    "square": weight(4, 4, 1, 1, seed=12),
    "roi": np.array([0, 0, 0, 0, 1, 1, 1.2, 1.2], np.float32),
    "wider": np.array([1, 2, 1, 1], np.float32),
    "four": np.array([4]),
    "rows": np.array([0, -1]),
    "running": np.abs(weight(4, seed=11)),
}


def between(middle: str, end: str = "y = Conv(b, w2, b2)", outputs: str = "y") -> Model:
    """conv -> a, the middle from a to b, and a layer that reads b."""
    given = ", ".join(f"float[N] {name}" for name in outputs.split(", "))
    text = f"""g (float[N,3,6,8] x) => ({given}) {{
        a = Conv<pads = [1,1,1,1]>(x, w1, b1)
        {middle}
        {end}
    }}"""
    return checked(text, {k: v for k, v in W.items() if k in text})


def checked(text: str, weights: Mapping[str, np.ndarray]) -> Model:
    """The model with all shapes inferred, those of its outputs too."""
    model = model_from(text, weights)
    for value in model.proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return Model(verified(infer(model.proto), "m"), "m")


def slots_of(model: Model) -> ChannelScales:
    return channel_scales(to_graph(model))


def rescaled(model: Model, factors: np.ndarray | None = None) -> tuple[Model, np.ndarray]:
    """Every free slot times a factor of its own, whatever the values are."""
    graph = to_graph(model)
    scales = channel_scales(graph)
    if factors is None:
        factors = np.linspace(0.41, 3.07, scales.count)
    factors[list(scales.pinned)] = 1
    names = Names(graph)
    for layers, absorb in (
        (scales.makers, scale_outputs),
        (scales.readers, divide_inputs),
        (scales.offsets, scale_offset),
    ):
        for layer in layers:
            absorb(layer.node, factors[layer.slots], names)
    return to_model(graph, model, ()), factors


CARRIES = {
    "relu": "b = Relu(a)",
    "leaky relu": "b = LeakyRelu<alpha = 0.2>(a)",
    "prelu per channel": "b = PRelu(a, slope)",
    "prelu of a computed slope": "c = Conv<pads = [1,1,1,1]>(x, w1, b1) b = PRelu(a, c)",
    "abs, neg": "i = Abs(a) b = Neg(i)",
    "max pool": "b = MaxPool<kernel_shape = [2,2]>(a)",
    "average that counts padding": "b = AveragePool<kernel_shape = [3,3], pads = [1,1,1,1], "
    "count_include_pad = 1>(a)",
    "global pool": "b = GlobalAveragePool(a)",
    "mean of pixels": "b = ReduceMean<axes = [2,3]>(a)",
    "sum of pixels": "b = ReduceSum(a, axes)",
    "times a constant": "b = Mul(a, percs)",
    "plus a constant": "b = Add(a, perc1)",
    "a number minus": "b = Sub(one, a)",
    "plus one per pixel": "b = Add(a, pixels)",
    "residual": "r = Relu(a) b = Add(a, r)",
    "minus": "r = Relu(a) b = Sub(r, a)",
    "sum of three": "r = Relu(a) n = Neg(a) b = Sum(a, r, n)",
    "largest of three": "r = Relu(a) n = Neg(a) b = Max(n, r, a)",
    "smallest of three": "r = Relu(a) n = Neg(a) b = Min(n, r, a)",
    "map plus its mean": "m = GlobalAveragePool(a) b = Add(a, m)",
    "gather": "b = Gather<axis = 1>(a, turn)",
    "shuffle": "r = Reshape(a, shuffled) t = Transpose<perm = [0,2,1,3,4]>(r) "
    "b = Reshape(t, mapped)",
    "split and concat": "l, r = Split<axis = 1>(a, halves) b = Concat<axis = 1>(r, l)",
    "slice": "l = Slice(a, first, second, axis1) b = Concat<axis = 1>(l, l)",
    "resize": 'b = Resize<mode = "linear">(a, , sizes)',
    "frame of zeros": "b = Pad(a, frame, zero)",
    "reflected frame": 'b = Pad<mode = "reflect">(a, frame)',
    "excitation": "m = GlobalAveragePool(a) s = Conv(m, square) g = Sigmoid(s) b = Mul(g, a)",
}


@pytest.mark.parametrize("middle", CARRIES.values(), ids=CARRIES)
def test_a_factor_passes(middle: str) -> None:
    model = between(middle)
    scales = slots_of(model)
    last = scales.readers[-1].slots
    assert not set(last.tolist()) & set(scales.pinned)
    after, factors = rescaled(model)
    assert (factors[last] != 1).all()
    assert largest_error(model, after, samples_for(model)) <= RELATIVE
    assert after.sha256 != model.sha256


def test_a_flattened_map_repeats_its_channels() -> None:
    for flat in ("b = Flatten(a)", "b = Reshape(a, rows)"):
        model = between(flat, "y = Gemm<alpha = 0.5, beta = 2.0>(b, flat, b2)")
        scales = slots_of(model)
        reader = scales.readers[1].slots.reshape(4, 48)
        assert (reader == reader[:, :1]).all()
        assert len(np.unique(reader)) == 4
        assert not set(np.unique(reader)) & set(scales.pinned)
        after, _ = rescaled(model)
        assert largest_error(model, after, samples_for(model)) <= RELATIVE


CROP = """b = Resize<mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize",
    extrapolation_value = 5.0>(a, roi, sizes)"""
HOLDS = {
    "sigmoid": ("b = Sigmoid(a)", r"Sigmoid\) doesn't keep factors"),
    "batch norm": ("b = BatchNormalization(a, b1, b1, b1, running)", "BatchNormalization"),
    "computed slope": ("s = Sigmoid(a) b = PRelu(a, s)", "Sigmoid"),
    "one over": ("b = Div(one, a)", "Div"),
    "a times itself": ("b = Mul(a, a)", "Mul"),
    "frame of threes": ("b = Pad(a, frame, three)", "Pad"),
    "channels moved by a pad": ("b = Pad(a, aside)", "Pad"),
    "one map for all channels": ("c = Conv<pads = [1,1,1,1]>(x, wx) b = Add(a, c)", "Add"),
    "largest with a constant": ("b = Max(a, three)", "Max"),
    "concat of pixels": (
        "c = Concat<axis = 2>(a, a) b = MaxPool<kernel_shape = [2,2]>(c)",
        "Concat",
    ),
    "clip away from zero": ("b = Clip(a, one, six)", "Clip"),
    "channels enlarged": ("r = Resize(a, , wider) b = Slice(r, first, four, axis1)", "Resize"),
    "crop with a value outside": (CROP, "Resize"),
}


@pytest.mark.parametrize(("middle", "reason"), HOLDS.values(), ids=HOLDS)
def test_a_factor_is_held(middle: str, reason: str) -> None:
    model = between(middle)
    scales = slots_of(model)
    made = scales.makers[0].slots
    reasons = {scales.pinned.get(slot, "free") for slot in made.tolist()}
    assert len(reasons) == 1
    assert re.search(reason, reasons.pop())
    after, _ = rescaled(model)
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


def test_a_name_means_nothing_in_another_domain() -> None:
    graph = to_graph(between("b = Relu(a)"))
    next(node for node in graph.nodes if node.op == "Relu").domain = "com.example"
    scales = channel_scales(graph)
    assert len(scales.pinned) == scales.count
    graph.nodes[-1].domain = "com.example"
    assert len(channel_scales(graph).makers) == 1


def test_an_output_of_the_model_is_held_even_inside() -> None:
    model = between("b = Relu(a)", outputs="y, a")
    scales = slots_of(model)
    assert set(scales.pinned.values()) == {"an input of the model", "an output of the model"}
    assert set(scales.makers[0].slots.tolist()) <= set(scales.pinned)


@pytest.mark.parametrize("inner", ["r", "t"])
def test_a_shuffle_whose_inside_is_an_output_is_none(inner: str) -> None:
    model = between(CARRIES["shuffle"], outputs=f"y, {inner}")
    scales = slots_of(model)
    assert set(scales.makers[0].slots.tolist()) <= set(scales.pinned)
    after, _ = rescaled(model)
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


def test_what_a_body_reads_is_held() -> None:
    text = """g (float[N,3,6,8] x, bool flag) => (float[N,5,6,8] y, float[N,4,6,8] z) {
        a = Conv<pads = [1,1,1,1]>(x, w1, b1)
        b = Relu(a)
        y = Conv(b, w2, b2)
        z = If(flag) <then_branch = t () => (float[N,4,6,8] p) { p = Neg(b) },
            else_branch = e () => (float[N,4,6,8] q) { q = Conv<pads = [1,1,1,1]>(x, w1) }>
    }"""
    model = checked(text, {k: W[k] for k in ("w1", "b1", "w2", "b2")})
    scales = slots_of(model)
    assert {scales.pinned[s] for s in scales.makers[0].slots.tolist()} == {
        "read inside If -> z (If)"
    }
    # the weights, which a body shares, are this layer's own once they change
    graph = to_graph(model)
    conv = next(node for node in graph.nodes if node.op == "Conv")
    scale_outputs(conv, np.full(4, 2.0), Names(graph))
    assert conv.inputs[1].name != "w1"
    assert conv.inputs[2].name == "b1"


def test_two_layers_may_share_one_weight() -> None:
    text = """g (float[N,4,6,8] x) => (float[N,4,6,8] y) {
        a = Conv(x, w, c) r = Relu(a) b = Conv(r, w, c) s = Relu(b) y = Conv(s, w, c)
    }"""
    model = checked(text, {"w": weight(4, 4, 1, 1), "c": weight(4)})
    after, factors = rescaled(model)
    assert np.count_nonzero(factors != 1) == 8
    assert largest_error(model, after, samples_for(model)) <= RELATIVE
    assert len(after.proto.graph.initializer) == 6


def test_a_name_that_is_taken_is_not_given_again() -> None:
    text = """g (float[N,4,6,8] x) => (float[N,4,6,8] y, float[4,4,1,1] "a/weight") {
        a = Conv(x, w) r = Relu(a) y = Conv(r, w) q = Neg(w) k = Identity(q)
    }""".replace('"a/weight"', "k")
    model = model_from(text, {"w": weight(4, 4, 1, 1)})
    for node in model.proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["a/weight" if n == "q" else n for n in names]
    model = Model(verified(model.proto, "m"), "m")
    after, _ = rescaled(model)
    assert largest_error(model, after, samples_for(model)) <= RELATIVE
    assert {"a/weight_2", "y/weight"} <= {w.name for w in after.proto.graph.initializer}


LAYERS = {
    "grouped": ("Conv<group = 2>", weight(6, 2, 1, 1)),
    "depthwise": ("Conv<group = 4, pads = [1,1,1,1]>", weight(4, 1, 3, 3)),
    "depthwise, two outputs each": ("Conv<group = 4>", weight(8, 1, 3, 3)),
    "padded to the same": ('Conv<auto_pad = "SAME_UPPER">', weight(5, 4, 3, 3)),
    "transposed": ("ConvTranspose<strides = [2,2]>", weight(4, 6, 2, 2)),
}


@pytest.mark.parametrize(("op", "values"), LAYERS.values(), ids=LAYERS)
def test_a_layer_reads_and_makes_factors(op: str, values: np.ndarray) -> None:
    made = values.shape[1] if "Transpose" in op else values.shape[0]
    text = f"""g (float[N,3,6,8] x) => (float[N,2,M,K] y) {{
        a = Conv(x, w1) r = Relu(a) b = {op}(r, w, c) s = Relu(b) y = Conv(s, last)
    }}"""
    weights = {
        "w1": weight(4, 3, 1, 1),
        "w": values,
        "c": weight(made),
        "last": weight(2, made, 1, 1),
    }
    model = checked(text, weights)
    after, factors = rescaled(model)
    assert np.count_nonzero(factors != 1) == 4 + made
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,), (), (1, 1)])
def test_a_gemm_may_have_any_bias(shape: tuple[int, ...], turned: int) -> None:
    text = f"""g (float[N,3] x) => (float[N,2] y) {{
        a = Gemm<transB = {turned}, alpha = 0.5, beta = 3.0>(x, w, c)
        r = Relu(a) y = Gemm(r, v)
    }}"""
    values = weight(3, 6)
    weights = {"w": values.T.copy() if turned else values, "c": weight(*shape), "v": weight(6, 2)}
    model = checked(text, weights)
    after, factors = rescaled(model)
    assert np.count_nonzero(factors != 1) == 6
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


@pytest.mark.parametrize(
    "wider", ["Add(a, cube)", "Sub(cube, a)", "Mul(a, cube)", "Add(a, c)", "Max(c, a)", "Sum(a, c)"]
)
def test_channels_that_broadcasting_moves_to_another_axis_are_held(wider: str) -> None:
    """[4, 4] meets [2, 4, 4]: its axis 1 is their axis 2, though all sizes agree."""
    text = f"""g (float[4,3] x, float[2,3,4] z) => (float[2,5,4] y) {{
        a = Gemm(x, u)
        c = Conv(z, v)
        b = {wider}
        y = Conv(b, w)
    }}"""
    weights = {"u": weight(3, 4), "v": weight(4, 3, 1), "w": weight(5, 4, 1)}
    model = checked(text, weights | ({"cube": weight(2, 4, 4)} if "cube" in wider else {}))
    scales = slots_of(model)
    assert set(scales.makers[0].slots.tolist()) <= set(scales.pinned)
    after, _ = rescaled(model)
    feeds = {"x": weight(4, 3, seed=20), "z": weight(2, 3, 4, seed=21)}
    assert largest_error(model, after, [Sample("s", feeds)]) <= RELATIVE


def test_tokens_are_no_channels() -> None:
    """[N, S, C] with a fixed S: axis 1 holds tokens, and no layer of tokens takes part."""
    text = """g (float[N,3,4,4] x) => (float[N,8,6] y) {
        a = Conv(x, w1)
        r = Reshape(a, lines)
        t = Transpose<perm = [0,2,1]>(r)
        m = MatMul(t, v) b = Add(m, c) g = Relu(b) n = MatMul(g, u) y = Add(n, n)
    }"""
    weights = {
        "w1": weight(8, 3, 2, 2), "lines": np.array([0, 8, 9]), "v": weight(8, 8),
        "c": weight(8), "u": weight(8, 6),
    }  # fmt: skip
    text = text.replace("float[N,8,6] y", "float[N,9,6] y")
    model = checked(text, weights)
    scales = slots_of(model)
    assert [layer.node.op for layer in (*scales.makers, *scales.readers)] == ["Conv", "Conv"]
    assert len(scales.pinned) == scales.count


def test_a_convolution_over_time_is_a_layer_like_any() -> None:
    text = """g (float[N,3,20] x) => (float[N,2,18] y) {
        a = Conv(x, w) r = Relu(a) y = Conv(r, v)
    }"""
    weights = {"w": weight(4, 3, 3), "v": weight(2, 4, 1)}
    model = checked(text, weights)
    after, factors = rescaled(model)
    assert np.count_nonzero(factors != 1) == 4
    assert largest_error(model, after, samples_for(model)) <= RELATIVE


@pytest.mark.parametrize(("dtype", "layers"), [("float64", 2), ("float16", 0)])
def test_only_types_that_lose_nothing_take_part(dtype: str, layers: int) -> None:
    kind = {"float64": "double", "float16": "float16"}[dtype]
    text = f"g ({kind}[N,3] x) => ({kind}[N,2] y) {{ a = Gemm(x, w) r = Relu(a) y = Gemm(r, v) }}"
    weights = {"w": weight(3, 4, dtype=dtype), "v": weight(4, 2, dtype=dtype)}
    model = checked(text, weights)
    scales = slots_of(model)
    assert len(scales.makers) == layers
    after, _ = rescaled(model)
    assert largest_error(model, after, samples_for(model)) <= 1e-12


@pytest.mark.parametrize("shape", ["[N,C,6,8]", "[N,3]"])
def test_unknown_and_single_axes_are_left_alone(shape: str) -> None:
    model = model_from(f"g (float{shape} x) => (float{shape} y) {{ r = Relu(x) y = Neg(r) }}")
    scales = slots_of(Model(verified(model.proto, "m"), "m"))
    assert len(scales.pinned) == scales.count
    assert not scales.makers


def test_chains_of_ties_end_in_one_slot() -> None:
    """Every Add shares factors with the one before: forty of them are one slot per channel."""
    graph = to_graph(_chain(40))
    scales = channel_scales(graph)
    adds = [node for node in graph.nodes if node.op == "Add"]
    assert len({tuple(scales.of[node.outputs[0].name].tolist()) for node in adds}) == 1


def _chain(count: int) -> Model:
    nodes = "".join(f"c{i} = Conv(s{i}, w) s{i + 1} = Add(c{i}, s{i})\n" for i in range(count))
    text = f"""g (float[N,4,2,2] x) => (float[N,4,2,2] y) {{
        s0 = Conv(x, w) {nodes} y = Conv(s{count}, w)
    }}"""
    return checked(text, {"w": weight(4, 4, 1, 1) / 10})


def test_names_are_never_given_twice() -> None:
    graph = gs.Graph()
    names = Names(graph)
    assert [names.fresh("a"), names.fresh("a"), names.fresh("a_2")] == ["a", "a_2", "a_2_2"]
