"""se_pointwise: squeeze-and-excitation in front of a 1x1 convolution, found with all its parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import MODELS, model_from, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.graph import label, to_graph
from deploy.surgery.patterns import SePointwise, se_pointwise

DIGITS = Path(__file__).resolve().parents[3] / "examples" / "digits" / "digits.onnx"
WEIGHTS = {
    "wr": weight(2, 6, 1, 1, seed=1),
    "br": weight(2, seed=2),
    "we": weight(6, 2, 1, 1, seed=3),
    "be": weight(6, seed=4),
    "w": weight(5, 6, 1, 1, seed=5),
    "wide": weight(5, 6, 3, 3, seed=6),
    "dw": weight(6, 1, 1, 1, seed=7),
    "axes": np.array([2, 3]),
    "three": np.float32(3),
    "zero": np.float32(0),
    "six": np.float32(6),
}
MEAN = "p = GlobalAveragePool(x)"
REDUCE = "r = Conv(p, wr, br)"
ACT = "a = Relu(r)"
EXPAND = "e = Conv(a, we, be)"
GATE = "s = Sigmoid(e)"
SCALE = "m = Mul(x, s)"
POINT = "y = Conv(m, w)"
SCALED = "t = Mul(r, six) q = Sigmoid(t) a = Mul(r, q)"
BLOCK = (MEAN, REDUCE, ACT, EXPAND, GATE, SCALE, POINT)


def block(**other: str) -> Model:
    """MobileNetV3's block, with the parts replaced that are named."""
    names = ("mean", "reduce", "act", "expand", "gate", "scale", "point")
    parts = [other.pop(name, part) for name, part in zip(names, BLOCK, strict=True)]
    body = " ".join([other.pop("before", ""), *parts])
    x, y = other.pop("x", "N,6,8,5"), other.pop("y", "N,5,8,5")
    more = other.pop("more", "")
    assert not other
    used = {n: v for n, v in WEIGHTS.items() if f" {n}," in body or f" {n})" in body}
    opset = 18 if "axes" in used else 17
    return model_from(f"g (float[{x}] x) => (float[{y}] y{more}) {{ {body} }}", used, opset=opset)


def found(model: Model) -> list[SePointwise]:
    return [f for node in to_graph(model).nodes if (f := se_pointwise(node)) is not None]


def test_every_part_is_named() -> None:
    (se,) = found(block())
    assert (se.x.name, se.scale.name, se.pooled.name) == ("x", "s", "x")
    nodes = (se.reduce, se.expand, se.excite, se.conv)
    assert [label(n) for n in nodes] == ["Conv -> r", "Conv -> e", "Mul -> m", "Conv -> y"]
    assert (se.activation, se.gate, se.alpha, se.beta) == ("Relu", "Sigmoid", 0.0, 0.0)
    names = [n.outputs[0].name for n in se.inside]
    assert names == ["p", "r", "a", "e", "s", "m", "y"]
    assert se.fits_one_kernel


@pytest.mark.parametrize(
    "other",
    [
        {"scale": "m = Mul(s, x)"},
        {"mean": "p = ReduceMean<axes=[2,3]>(x)"},
        {"mean": "p = ReduceMean<axes=[-1,-2], keepdims=1>(x)"},
        {"mean": "p = ReduceMean(x, axes)"},
        {"reduce": "r = Conv<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0]>(p, wr)"},
    ],
)
def test_spellings(other: dict[str, str]) -> None:
    (se,) = found(block(**other))
    assert (se.x.name, se.scale.name, se.gate) == ("x", "s", "Sigmoid")


@pytest.mark.parametrize(
    ("gate", "alpha", "beta", "count"),
    [
        ("s = HardSigmoid(e)", 0.2, 0.5, 1),
        ("s = HardSigmoid<alpha=0.25, beta=0.4>(e)", 0.25, 0.4, 1),
        ("b = Add(e, three) c = Clip(b, zero, six) s = Div(c, six)", 1 / 6, 0.5, 3),
        ("b = Add(e, three) q = Relu(b) c = Min(q, six) s = Div(c, six)", 1 / 6, 0.5, 4),
    ],
)
def test_hard_sigmoids_in_every_spelling(gate: str, alpha: float, beta: float, count: int) -> None:
    (se,) = found(block(gate=gate))
    assert (se.gate, len(se.inside)) == ("HardSigmoid", 6 + count)
    assert (se.alpha, se.beta) == pytest.approx((alpha, beta), rel=1e-6)


@pytest.mark.parametrize(
    ("act", "name", "count"),
    [
        ("a = HardSwish(r)", "HardSwish", 1),
        ("q = Sigmoid(r) a = Mul(r, q)", "Swish", 2),
        ("q = Sigmoid(r) a = Mul(q, r)", "Swish", 2),
    ],
)
def test_activations(act: str, name: str, count: int) -> None:
    (se,) = found(block(act=act))
    assert (se.activation, len(se.inside)) == (name, 6 + count)
    assert se.reduce.outputs[0].name == "r"


def test_a_recognized_swish_is_the_same_activation() -> None:
    for act, name, count in (("q = Sigmoid(r) a = Mul(r, q)", "Swish", 7), (SCALED, "", 6)):
        fused = fuse(block(act=act), ["recognize_swish"])
        assert "Swish" in [node.op_type for node in fused.proto.graph.node]
        named = [(se.activation, len(se.inside)) for se in found(fused)]
        # another alpha isn't the activation a kernel calls Swish, and the block is none
        assert named == ([(name, count)] if name else [])


def test_no_activation() -> None:
    (se,) = found(block(act="", expand="e = Conv(r, we, be)"))
    assert (se.activation, len(se.inside)) == ("", 6)


def test_the_mean_may_be_of_another_map() -> None:
    (se,) = found(block(before="z = Neg(x)", mean="p = GlobalAveragePool(z)"))
    assert (se.x.name, se.pooled.name) == ("x", "z")


def test_an_excited_map_that_others_read_does_not_fit_one_kernel() -> None:
    (se,) = found(block(point=f"{POINT} o = Neg(m)", more=", float[N,6,8,5] o"))
    assert not se.fits_one_kernel
    (se,) = found(block(more=", float[N,6,8,5] m"))
    assert not se.fits_one_kernel


@pytest.mark.parametrize(
    "other",
    [
        {"point": "y = Conv<pads=[1,1,1,1]>(m, wide)"},
        {"point": "y = Conv<strides=[2,2]>(m, w)", "y": "N,5,4,3"},
        {"point": "y = Conv<pads=[1,1,1,1]>(m, w)", "y": "N,5,10,7"},
        {"point": "y = Conv<group=6>(m, dw)", "y": "N,6,8,5"},
        {"scale": "m = Add(x, s)"},
        {"gate": "s = Tanh(e)"},
        {"gate": "c = Add(e, three) s = Clip(c, zero, six)"},
        {"expand": "e = Relu(a)", "reduce": "r = Identity(p)"},
        {"expand": "e = Conv<group=6>(p, dw)", "reduce": "", "act": ""},
        {"mean": "p = GlobalMaxPool(x)"},
        {"mean": "p = ReduceMean<axes=[3]>(x)", "x": "N,6,1,5", "y": "N,5,1,5"},
        {
            "mean": "p = ReduceMean<axes=[1]>(x)",
            "x": "N,6,6,5",
            "reduce": "",
            "act": "",
            "expand": "e = Identity(p)",
            "y": "N,5,6,5",
        },
    ],
)
def test_what_is_none(other: dict[str, str]) -> None:
    assert found(block(**other)) == []


def test_it_changes_nothing() -> None:
    graph = to_graph(block())
    before = [(n.op, [t.name for t in (*n.inputs, *n.outputs)]) for n in graph.nodes]
    for node in graph.nodes:
        se_pointwise(node)
    assert [(n.op, [t.name for t in (*n.inputs, *n.outputs)]) for n in graph.nodes] == before


def test_the_digits_example_has_one() -> None:
    (se,) = found(Model.load(DIGITS))
    assert (se.gate, se.activation, se.pooled is se.x) == ("HardSigmoid", "Relu", True)
    assert (se.alpha, se.beta) == pytest.approx((1 / 6, 0.5), rel=1e-6)


@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models aren't here")
def test_ppocr_has_nine() -> None:
    """Paddle writes each bias as an Add of its own, so they have to be folded first."""
    from deploy.load import load
    from deploy.simplify import simplify

    path = MODELS / "ppocr_cls_mobilenetv3se.onnx"
    model = simplify(load(Model.load(path), {"x": (None, 3, 48, 192)}))
    blocks = found(fuse(model, ["fold_affine"]))
    assert [(b.gate, b.activation) for b in blocks] == [("HardSigmoid", "Relu")] * 9
    assert {(round(b.alpha, 6), b.beta) for b in blocks} == {(0.2, 0.5)}
    assert all(b.pooled is b.x and b.fits_one_kernel for b in blocks)
    assert found(model) == []
