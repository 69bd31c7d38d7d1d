"""recognize_rms_norm: the spellings, the axes, the scale, and what is something else."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "recognize_rms_norm"
CONSTANTS = {
    "two": np.float32(2),
    "itwo": np.int64(2),
    "eps": np.float32(1e-2),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "neghalf": np.float32(-0.5),
    "seven": np.float32(7),
    "w": weight(7, seed=1),
    "w3": weight(1, 1, 7, seed=1),
    "w67": weight(6, 7, seed=1),
    "rows": weight(6, 1, seed=1),
    "k": weight(1, seed=3),
}
ROOT = "p = Pow(x, two) v = ReduceMean<axes=[-1]>(p) a = Add(v, eps) s = Sqrt(a) "
SPELLINGS = {
    "divided": f"{ROOT}d = Div(x, s) y = Mul(d, w)",
    "turned": f"{ROOT}d = Div(x, s) y = Mul(w3, d)",
    "integer power": f"{ROOT.replace('two', 'itwo')}d = Div(x, s) y = Mul(d, w)",
    "square as Mul": f"{ROOT.replace('Pow(x, two)', 'Mul(x, x)')}d = Div(x, s) y = Mul(d, w)",
    "llama": f"{ROOT}r = Reciprocal(s) d = Mul(x, r) y = Mul(w, d)",
    "one over": f"{ROOT}r = Div(one, s) d = Mul(r, x) y = Mul(d, w)",
    "scale on the root": f"{ROOT}r = Reciprocal(s) q = Mul(r, w) y = Mul(x, q)",
    "power 1/2": f"{ROOT.replace('Sqrt(a)', 'Pow(a, half)')}d = Div(x, s) y = Mul(d, w)",
    "power -1/2": f"{ROOT.replace('Sqrt(a)', 'Pow(a, neghalf)')}d = Mul(x, s) y = Mul(d, w)",
    "no scale": f"{ROOT}y = Div(x, s)",
    "one number": f"{ROOT}d = Div(x, s) y = Mul(d, k)",
    "two axes": f"{ROOT.replace('[-1]', '[1, 2]')}d = Div(x, s) y = Mul(d, w67)",
}


def model(body: str, *, dtype: str = "float", opset: int = 17, outputs: str = "y") -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    ends = ", ".join(f"{dtype}[N,6,7] {name}" for name in outputs.split())
    used = {
        n: v if n == "itwo" else v.astype(kind)
        for n, v in CONSTANTS.items()
        if f" {n}," in body or f" {n})" in body or f"({n}," in body
    }
    return model_from(f"g ({dtype}[N,6,7] x) => ({ends}) {{ {body} }}", used, opset=opset, ir=10)


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["RMSNormalization"], reason="are RMSNormalization")
    attrs = {a.name: a for a in fused.proto.graph.node[0].attribute}
    assert (fused.opset, attrs["epsilon"].f) == (23, np.float32(1e-2))
    assert attrs["axis"].i == (-2 if "axes=[1" in body else -1)


def test_float16_fuses() -> None:
    # the chain rounds every intermediate value to 11 bits, the operator sums in float32
    body = SPELLINGS["divided"]
    assert_fuses(model(body, dtype="float16"), NAME, ["RMSNormalization"], rtol=1e-2)


def test_a_sum_over_the_count_is_a_mean() -> None:
    body = SPELLINGS["divided"].replace(
        "v = ReduceMean<axes=[-1]>(p)", "t = ReduceSum(p, axes) v = Div(t, seven)"
    )
    text = f"g (float[N,6,7] x) => (float[N,6,7] y) {{ {body} }}"
    used = {n: CONSTANTS[n] for n in ("two", "eps", "w", "seven")} | {"axes": np.array([-1])}
    assert_fuses(model_from(text, used, ir=10), NAME, ["RMSNormalization"])
    other = used | {"seven": np.float32(6)}
    assert fuse(model_from(text, other, ir=10), [NAME]).decisions == ()


def test_no_scale_is_ones() -> None:
    fused = assert_fuses(model(SPELLINGS["no scale"]), NAME, ["RMSNormalization"])
    (scale,) = (numpy_helper.to_array(i) for i in fused.proto.graph.initializer)
    np.testing.assert_array_equal(scale, np.ones(7, np.float32))


def test_bytes_saved_count_the_small_tensors_too() -> None:
    fused = assert_fuses(model(SPELLINGS["no scale"]), NAME, ["RMSNormalization"])
    # Pow 2 maps, ReduceMean 1, Div 2; one row each: ReduceMean 1, Add 2, Sqrt 2, Div 1
    assert [d.bytes_saved for d in fused.decisions] == [4 * ((5 - 2) * 6 * 7 + 6 * 6)]


def test_a_unit_that_others_read_keeps_its_scale_outside() -> None:
    body = f"{ROOT}d = Div(x, s) y = Mul(d, w)"
    assert_fuses(model(body, outputs="y d"), NAME, ["RMSNormalization", "Mul"])


def test_a_scale_over_another_axis_stays_outside() -> None:
    assert_fuses(model(f"{ROOT}d = Div(x, s) y = Mul(d, rows)"), NAME, ["RMSNormalization", "Mul"])


def test_skips_layer_normalization() -> None:
    body = "m = ReduceMean<axes=[-1]>(x) c = Sub(x, m) " + ROOT.replace("(x", "(c")
    assert_skips(model(f"{body}y = Div(c, s)"), NAME, "that is LayerNormalization")


def test_skips_axes_that_are_not_the_last() -> None:
    body = f"{ROOT}y = Div(x, s)".replace("[-1]", "[1]")
    assert_skips(model(body), NAME, r"it normalizes the axes \[1\] of 3, not the last ones")


def test_skips_unknown_sizes() -> None:
    text = f"g (float[N,6,M] x) => (float[N,6,M] y) {{ {ROOT} y = Div(x, s) }}"
    used = {n: CONSTANTS[n] for n in ("two", "eps")}
    assert_skips(model_from(text, used), NAME, r"needs known sizes, and the axes have \['M'\]")


def test_skips_a_scale_on_the_root_over_another_axis() -> None:
    body = f"{ROOT}r = Reciprocal(s) q = Mul(r, rows) y = Mul(x, q)"
    assert_skips(model(body), NAME, "the scale varies over other axes")


def test_skips_float64() -> None:
    body = SPELLINGS["divided"]
    assert_skips(model(body, dtype="double"), NAME, "mean in float32, and this is float64")


def test_skips_an_operator_that_would_change() -> None:
    body = f"{ROOT}d = Div(x, s) y = Hardmax<axis=1>(d)"
    reason = "RMSNormalization needs opset 23; 'Hardmax -> y' would change its meaning"
    assert_skips(model(body, opset=11), NAME, reason)


@pytest.mark.parametrize(
    "body",
    [
        f"{ROOT}n = Neg(x) y = Div(n, s)",
        f"{ROOT.replace('two', 'half')}y = Div(x, s)",
        f"{ROOT}y = Mul(x, s)",
        f"{ROOT}r = Div(two, s) y = Mul(x, r)",
        "p = Pow(x, two) v = ReduceMean<axes=[-1]>(p) s = Sqrt(v) y = Div(x, s)",
        f"{ROOT.replace('ReduceMean', 'ReduceMax')}y = Div(x, s)",
        f"{ROOT.replace('Add(v, eps)', 'Sub(v, eps)')}y = Div(x, s)",
    ],
)
def test_other_quotients_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert (sorted(ops(fused)), fused.decisions) == (sorted(ops(model(body))), ())
