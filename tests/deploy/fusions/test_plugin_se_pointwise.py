"""plugin_se_pointwise: the excitation and the 1x1 conv as one operator, where traffic binds."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_skips, model_from, ops, weight
from plugin_graphs import assert_becomes_plugin

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.graph import to_graph, to_model

PLUGIN = "plugin_se_pointwise"
SQUEEZE = "m = GlobalAveragePool(x) r = Conv(m, w1, b1) a = Relu(r) e = Conv(a, w2, b2)"
GATES = {"Sigmoid": "s = Sigmoid(e)", "HardSigmoid": "s = HardSigmoid<alpha=0.16666667>(e)"}
REST = ["GlobalAveragePool", "Conv", "Relu", "Conv"]


def block(
    *,
    outputs: int = 5,
    kind: str = "float",
    gate: str = "Sigmoid",
    excite: str = "z = Mul(x, s)",
    conv: str = "y = Conv(z, w, b)",
    **weights: np.ndarray,
) -> Model:
    """A squeeze-and-excitation block on 8 channels and a 1x1 conv to `outputs`."""
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    text = f"""
    g ({kind}[N,8,7,5] x) => ({kind}[N,{outputs},7,5] y) {{
        {SQUEEZE} {GATES[gate]} {excite} {conv}
    }}
    """
    own = {
        "w1": weight(3, 8, 1, 1, dtype=dtype),
        "b1": weight(3, dtype=dtype),
        "w2": weight(8, 3, 1, 1, dtype=dtype),
        "b2": weight(8, dtype=dtype),
        "w": weight(outputs, 8, 1, 1, seed=1, dtype=dtype),
        "b": weight(outputs, seed=1, dtype=dtype),
    }
    used = {
        name: value for name, value in own.items() if f" {name})" in text or f" {name}," in text
    }
    made = model_from(text, {**used, **weights})
    return to_model(to_graph(made), made, ())


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("excite", ["z = Mul(x, s)", "z = Mul(s, x)"])
@pytest.mark.parametrize("conv", ["y = Conv(z, w, b)", "y = Conv(z, w)"])
def test_scaling_and_conv_become_one(gate: str, excite: str, conv: str) -> None:
    made = block(gate=gate, excite=excite, conv=conv)
    fused = assert_becomes_plugin(
        made, PLUGIN, [*REST, gate, "SePointwise"], reason="scales the map while it reads it"
    )
    assert [d.bytes_saved for d in fused.decisions] == [2 * 4 * 8 * 7 * 5]
    inputs = list(fused.proto.graph.node[-1].input)
    assert inputs[:2] == ["x", "s"]
    assert len(inputs) == 3 + ("b" in conv)


def test_float16_takes_more_outputs() -> None:
    made = block(outputs=160, kind="float16")
    assert_becomes_plugin(
        made, PLUGIN, [*REST, "Sigmoid", "SePointwise"], reason="scales the map", rtol=2e-3
    )


@pytest.mark.parametrize(
    ("outputs", "kind", "reason"),
    [
        (
            42,
            "float",
            "42 output channels, 10 operations per byte saved; above 10 arithmetic binds",
        ),
        (168, "float16", "168 output channels, 84 operations .* above 82 arithmetic binds"),
    ],
)
def test_skips_where_arithmetic_binds(outputs: int, kind: str, reason: str) -> None:
    assert_skips(block(outputs=outputs, kind=kind), PLUGIN, reason)


def test_skips_other_types() -> None:
    assert_skips(block(kind="double"), PLUGIN, "the map is float64; the kernel takes float32")


def test_skips_a_scaled_map_that_others_read() -> None:
    made = block(outputs=8, conv="c = Conv(z, w, b) y = Add(c, z)")
    assert_skips(made, PLUGIN, "'z' is also read by 'Add -> y'")


def test_skips_int8() -> None:
    made = block(
        conv="q = QuantizeLinear(z, scale, zero) d = DequantizeLinear(q, scale, zero) "
        "y = Conv(d, w, b)",
        scale=np.float32(0.02),
        zero=np.int8(0),
    )
    assert_skips(made, PLUGIN, "the scaled map is INT8: the vendor's integer convolution")


@pytest.mark.parametrize(
    "conv",
    [
        "y = Conv<pads=[1,1,1,1]>(z, k)",
        "n = Neg(z) y = Conv(n, w, b)",
        "q = QuantizeLinear(x, scale, zero) d = DequantizeLinear(q, scale, zero) y = Conv(d, w, b)",
    ],
)
def test_another_conv_is_none(conv: str) -> None:
    more = {"k": weight(5, 8, 3, 3)} if "k)" in conv else {}
    more |= {"scale": np.float32(0.02), "zero": np.int8(0)} if "scale" in conv else {}
    made = block(conv=conv, **more)
    fused = fuse(made, [PLUGIN])
    assert (ops(fused), fused.decisions) == (ops(made), ())


def test_another_reader_of_an_int8_map_is_none() -> None:
    conv = "q = QuantizeLinear(z, scale, zero) d = DequantizeLinear(q, scale, zero) y = Neg(d)"
    made = block(outputs=8, conv=conv, scale=np.float32(0.02), zero=np.int8(0))
    fused = fuse(made, [PLUGIN])
    assert (ops(fused), fused.decisions) == (ops(made), ())


def test_a_skip_after_a_firing_is_still_reported() -> None:
    """ONNX infers no shape behind a plugin operator: the rewrite has to keep the one it had."""
    text = """
    g (float[N,8,7,5] x) => (float[N,42,7,5] y) {
        m = GlobalAveragePool(x) r = Conv(m, w1) a = Relu(r) e = Conv(a, w2) s = Sigmoid(e)
        z = Mul(x, s) p = Conv(z, w3)
        n = GlobalAveragePool(p) t = Conv(n, w1) c = Relu(t) f = Conv(c, w2) k = Sigmoid(f)
        o = Mul(p, k) y = Conv(o, w4)
    }
    """
    sizes = {"w1": (3, 8, 1, 1), "w2": (8, 3, 1, 1), "w3": (8, 8, 1, 1), "w4": (42, 8, 1, 1)}
    made = model_from(text, {name: weight(*shape) for name, shape in sizes.items()})
    fused = fuse(made, [PLUGIN])
    assert [d.outcome for d in fused.decisions] == ["applied", "skipped"]
    assert "42 output channels" in fused.decisions[1].reason
