"""recognize_layer_norm: the spellings, the axes, the scale and bias, and what is something else.

The float32 tolerance is 1e-5 of the largest value, though both sides sum in another order: the
sums are over 42 values at most.
"""

from __future__ import annotations

import numpy as np
import pytest
from helpers import MODELS, assert_fuses, assert_skips, model_from, ops, run, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "recognize_layer_norm"
CONSTANTS = {
    "two": np.float32(2),
    "itwo": np.int64(2),
    "eps": np.float32(1e-2),
    "one": np.float32(1),
    "half": np.float32(0.5),
    "neghalf": np.float32(-0.5),
    "w": weight(7, seed=1),
    "b": weight(7, seed=2),
    "w3": weight(1, 1, 7, seed=1),
    "w67": weight(6, 7, seed=1),
    "rows": weight(6, 1, seed=1),
    "k": weight(1, seed=3),
    "zero": np.float32(0),
    "seven": np.float32(7),
    "seventh": np.float32(1 / 7),
    "eight": np.float32(8),
}
INTEGERS = {"last": np.array([-1]), "row": np.array([-1, 6, 1])}
MEAN = "m = ReduceMean<axes=[-1]>(x) c = Sub(x, m) "
VARIANCE = "p = Pow(c, two) v = ReduceMean<axes=[-1]>(p) a = Add(v, eps) "
UNIT = f"{MEAN}{VARIANCE}s = Sqrt(a) "
SPELLINGS = {
    "torch": f"{UNIT}d = Div(c, s) e = Mul(d, w) y = Add(e, b)",
    "turned": f"{UNIT}d = Div(c, s) e = Mul(w3, d) y = Add(b, e)",
    "integer power": f"{UNIT.replace('two', 'itwo')}d = Div(c, s) e = Mul(d, w) y = Add(e, b)",
    "square as Mul": f"{MEAN}p = Mul(c, c) v = ReduceMean<axes=[2]>(p) a = Add(eps, v) s = Sqrt(a) "
    "d = Div(c, s) e = Mul(d, w) y = Add(e, b)",
    "subtracted twice": f"{MEAN}n = ReduceMean<axes=[2]>(x) o = Sub(x, n) p = Pow(o, two) "
    "v = ReduceMean<axes=[-1]>(p) a = Add(v, eps) s = Sqrt(a) d = Div(c, s) y = Mul(d, w)",
    "reciprocal": f"{UNIT}r = Reciprocal(s) d = Mul(c, r) e = Mul(d, w) y = Add(e, b)",
    "one over": f"{UNIT}r = Div(one, s) d = Mul(r, c) e = Mul(d, w) y = Add(e, b)",
    "keras": f"{UNIT}r = Reciprocal(s) q = Mul(r, w) d = Mul(c, q) y = Add(d, b)",
    "power 1/2": f"{MEAN}{VARIANCE}s = Pow(a, half) d = Div(c, s) y = Mul(d, w)",
    "power -1/2": f"{MEAN}{VARIANCE}s = Pow(a, neghalf) d = Mul(c, s) y = Mul(d, w)",
    "no bias": f"{UNIT}d = Div(c, s) y = Mul(d, w)",
    "no scale": f"{UNIT}d = Div(c, s) y = Add(d, b)",
    "nothing behind": f"{UNIT}y = Div(c, s)",
    "one number": f"{UNIT}d = Div(c, s) e = Mul(d, k) y = Add(e, b)",
    "two axes": UNIT.replace("[-1]", "[1, -1]") + "d = Div(c, s) y = Mul(d, w67)",
    "two axes, scale by one": UNIT.replace("[-1]", "[-2, 2]") + "d = Div(c, s) y = Mul(d, rows)",
}


# mean(x^2) - mean(x)^2, with the axes kept, put back in two ways, and the mean as a sum
SQUARES = f"{MEAN}q = Mul(x, x) n = ReduceMean<axes=[-1]>(q) o = Mul(m, m) "
END = "a = Add(f, eps) s = Sqrt(a) r = Reciprocal(s) g = Mul(r, w) d = Mul(c, g) y = Add(d, b)"
REDUCED = (
    "q = Mul(x, x) t = ReduceSum<keepdims=0>(x, last) u = ReduceSum<keepdims=0>(q, last) "
    "m = Div(t, seven) n = Mul(u, seventh) o = Mul(m, m) v = Sub(n, o) h = Max(zero, v) "
    "mm = Unsqueeze(m, last) c = Sub(x, mm) f = Unsqueeze(h, last) "
)
JAX = {
    "kept": f"{SQUARES}v = Sub(n, o) f = Max(v, zero) {END}",
    "floor as Relu": f"{SQUARES}v = Sub(n, o) f = Relu(v) {END}",
    "no floor": f"{SQUARES}f = Sub(n, o) {END}",
    "power": f"{SQUARES.replace('Mul(x, x)', 'Pow(x, two)')}f = Sub(n, o) {END}",
    "put back": f"{REDUCED}{END}",
    "put back by Reshape": f"{REDUCED.replace('Unsqueeze(h, last)', 'Reshape(h, row)')}{END}",
}


def model(body: str, *, dtype: str = "float", opset: int = 17, outputs: str = "y") -> Model:
    kind = {"float": "float32", "float16": "float16", "double": "float64"}[dtype]
    ends = ", ".join(f"{dtype}[N,6,7] {name}" for name in outputs.split())
    used = {
        n: v.astype(kind) if v.dtype.kind == "f" else v
        for n, v in {**CONSTANTS, **INTEGERS}.items()
        if f" {n}," in body or f" {n})" in body or f"({n}," in body
    }
    return model_from(f"g ({dtype}[N,6,7] x) => ({ends}) {{ {body} }}", used, opset=opset)


def initializers(fused: Model) -> list[np.ndarray]:
    return [numpy_helper.to_array(i) for i in fused.proto.graph.initializer]


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_fuses(body: str) -> None:
    fused = assert_fuses(model(body), NAME, ["LayerNormalization"], reason="are LayerNormalization")
    attrs = {a.name: a for a in fused.proto.graph.node[0].attribute}
    assert attrs["epsilon"].f == np.float32(1e-2)
    assert attrs["axis"].i == (-2 if "axes=[1" in body or "axes=[-2" in body else -1)


@pytest.mark.parametrize("body", JAX.values(), ids=JAX)
def test_every_spelling_of_jax_fuses(body: str) -> None:
    """feeds_for centres x a quarter deviation away from zero: 1e-5 holds up to five."""
    fused = assert_fuses(model(body), NAME, ["LayerNormalization"], reason=r"over \[7\]")
    assert {a.name: a.f for a in fused.proto.graph.node[0].attribute}["epsilon"] == np.float32(1e-2)


@pytest.mark.parametrize("ratio", [0, 3, 10, 100, 1000])
def test_the_operator_is_never_further_from_the_truth_than_jax(ratio: int) -> None:
    before = model(JAX["kept"].replace("d = Mul(c, g) y = Add(d, b)", "y = Mul(c, g)"))
    x = weight(40, 6, 7, seed=ratio) + np.float32(ratio)
    exact = x.astype(np.float64)
    deviation = np.sqrt(exact.var(-1, keepdims=True) + np.float32(1e-2))
    exact = (exact - exact.mean(-1, keepdims=True)) / deviation * CONSTANTS["w"]
    original, fused = (
        np.abs(run(m, {"x": x})["y"] - exact).max() / np.abs(exact).max()
        for m in (before, fuse(before, [NAME]))
    )
    assert fused <= max(original, 2**-22)
    assert fused <= 2e-7 * max(ratio, 1)
    assert (original > 1e-4) == (ratio >= 100)


@pytest.mark.parametrize(
    "change",
    [
        ("v = Sub(n, o)", "v = Sub(o, n)"),
        ("v = Sub(n, o)", "v = Add(n, o)"),
        ("Mul(m, m)", "Mul(m, c)"),
        ("ReduceMean<axes=[-1]>(q)", "ReduceMean<axes=[1]>(q)"),
        ("Mul(x, x)", "Mul(x, m)"),
        ("Max(v, zero)", "Max(v, two)"),
        ("Max(v, zero)", "Min(v, zero)"),
    ],
)
def test_other_differences_are_none(change: tuple[str, str]) -> None:
    body = JAX["kept"].replace(*change)
    assert body != JAX["kept"]
    assert fuse(model(body), [NAME]).decisions == ()


@pytest.mark.parametrize(
    "change",
    [
        # another count is no mean, and a row in the place of the last axis no axis put back
        ("Div(t, seven)", "Div(t, eight)"),
        ("Div(t, seven)", "Div(seven, t)"),
        ("ReduceSum<keepdims=0>(x, last)", "ReduceMax<axes=[-1], keepdims=0>(x)"),
    ],
)
def test_other_means_are_none(change: tuple[str, str]) -> None:
    body = JAX["put back"].replace(*change)
    assert body != JAX["put back"]
    assert fuse(model(body), [NAME]).decisions == ()


def test_an_axis_put_back_elsewhere_is_none() -> None:
    text = f"g (float[N,7,7] x) => (float[N,7,7] y) {{ {JAX['put back']} }}".replace(
        "mm = Unsqueeze(m, last)", "mm = Unsqueeze(m, one_axis)"
    )
    used = {n: CONSTANTS[n] for n in ("seven", "seventh", "zero", "eps", "w", "b")}
    used |= {"last": INTEGERS["last"], "one_axis": np.array([1])}
    assert fuse(model_from(text, used), [NAME]).decisions == ()


def test_float16_fuses() -> None:
    # the chain rounds every intermediate value to 11 bits, the operator sums in float32
    body = SPELLINGS["torch"]
    assert_fuses(model(body, dtype="float16"), NAME, ["LayerNormalization"], rtol=1e-2)


def test_axes_as_an_input_and_the_opset_stays() -> None:
    body = SPELLINGS["torch"].replace("<axes=[-1]>(x)", "(x, axes)")
    body = body.replace("<axes=[-1]>(p)", "(p, axes)")
    text = f"g (float[N,6,7] x) => (float[N,6,7] y) {{ {body} }}"
    used = {n: CONSTANTS[n] for n in ("two", "eps", "w", "b")} | {"axes": np.array([2])}
    fused = assert_fuses(model_from(text, used, opset=18), NAME, ["LayerNormalization"])
    assert fused.opset == 18


def test_the_opset_is_raised() -> None:
    fused = assert_fuses(model(SPELLINGS["torch"], opset=13), NAME, ["LayerNormalization"])
    assert fused.opset == 17


def test_no_scale_is_ones() -> None:
    fused = assert_fuses(model(SPELLINGS["nothing behind"]), NAME, ["LayerNormalization"])
    (scale,) = initializers(fused)
    np.testing.assert_array_equal(scale, np.ones(7, np.float32))


def test_bytes_saved_count_the_small_tensors_too() -> None:
    fused = assert_fuses(model(SPELLINGS["nothing behind"]), NAME, ["LayerNormalization"])
    big, small = 6 * 7, 6
    # ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div: each map read and written
    maps, means = (1 + 2 + 2 + 1 + 0 + 0 + 2), (1 + 1 + 0 + 1 + 2 + 2 + 1)
    assert [d.bytes_saved for d in fused.decisions] == [4 * ((maps - 2) * big + means * small)]


def test_a_unit_that_others_read_keeps_its_scale_outside() -> None:
    body = f"{UNIT}d = Div(c, s) y = Mul(d, w) z = Neg(d)"
    assert_fuses(model(body, outputs="y z"), NAME, ["LayerNormalization", "Mul", "Neg"])
    body = f"{UNIT}d = Div(c, s) y = Mul(d, w)"
    assert_fuses(model(body, outputs="y d"), NAME, ["LayerNormalization", "Mul"])


def test_a_scale_over_another_axis_stays_outside() -> None:
    assert_fuses(
        model(f"{UNIT}d = Div(c, s) y = Mul(d, rows)"), NAME, ["LayerNormalization", "Mul"]
    )


def test_a_scale_that_is_computed_stays_outside() -> None:
    body = f"{UNIT}d = Div(c, s) y = Mul(d, x)"
    assert_fuses(model(body), NAME, ["LayerNormalization", "Mul"])


def test_skips_axes_that_are_not_the_last() -> None:
    body = f"{UNIT}y = Div(c, s)".replace("[-1]", "[1]")
    assert_skips(model(body), NAME, r"it normalizes the axes \[1\] of 3, not the last ones")


def test_skips_an_unknown_rank() -> None:
    ends = "(float[N,6,7] x0, int64[R] sizes) => (float y)"
    text = f"g {ends} {{ x = Reshape(x0, sizes) {UNIT} y = Div(c, s) }}"
    used = {n: CONSTANTS[n] for n in ("two", "eps")}
    assert_skips(
        model_from(text, used),
        NAME,
        "the rank of its input is unknown",
    )


def test_skips_unknown_sizes() -> None:
    text = f"g (float[N,6,M] x) => (float[N,6,M] y) {{ {UNIT} y = Div(c, s) }}"
    used = {n: CONSTANTS[n] for n in ("two", "eps")}
    assert_skips(model_from(text, used), NAME, r"needs known sizes, and the axes have \['M'\]")


def test_skips_a_scale_on_the_root_over_another_axis() -> None:
    body = f"{UNIT}r = Reciprocal(s) q = Mul(r, rows) y = Mul(c, q)"
    assert_skips(model(body), NAME, "the scale varies over other axes")


def test_skips_float64() -> None:
    body = SPELLINGS["torch"]
    assert_skips(model(body, dtype="double"), NAME, "statistics in float32, and this is float64")


@pytest.mark.parametrize(
    "body",
    [
        f"{UNIT}y = Div(x, s)",
        f"{UNIT.replace('Pow(c', 'Pow(x')}y = Div(c, s)",
        f"{UNIT.replace('two', 'half')}y = Div(c, s)",
        UNIT.replace("[-1]>(p)", "[1]>(p)") + "y = Div(c, s)",
        f"{MEAN}p = Pow(c, two) v = ReduceMean<axes=[-1]>(p) s = Sqrt(v) y = Div(c, s)",
        f"{UNIT}y = Mul(c, s)",
        f"{UNIT}r = Div(two, s) y = Mul(c, r)",
        f"{UNIT.replace('Sub(x, m)', 'Sub(m, x)')}y = Div(c, s)",
    ],
)
def test_other_quotients_are_none(body: str) -> None:
    fused = fuse(model(body), [NAME])
    assert (sorted(ops(fused)), fused.decisions) == (sorted(ops(model(body))), ())


@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models aren't here")
def test_ppocr_recognition_has_five() -> None:
    from deploy.load import load
    from deploy.simplify import simplify

    loaded = load(Model.load(MODELS / "ppocrv4_en_rec.onnx"), {"x": (None, 3, 48, 480)})
    fused = fuse(simplify(loaded), [NAME])
    assert (ops(fused).count("LayerNormalization"), ops(fused).count("ReduceMean")) == (5, 0)
