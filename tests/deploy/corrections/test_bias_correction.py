"""Mean errors taken back: exactly, in sequence, wherever a bias may lie."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from helpers import model_from, run, weight
from onnx import numpy_helper
from quantized import DIALECTS, in_int8, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.corrections.bias_correction import bias_correction
from deploy.surgery.graph import infer, verified

W = {
    "w1": weight(8, 3, 3, 3, seed=1) / 4,
    "b1": weight(8, seed=2),
    "w2": weight(8, 8, 1, 1, seed=3) / 3,
    "w3": weight(8, 5, seed=4),
    "row": weight(1, 5, seed=5),
    "five": weight(5, seed=6),
    "number": weight(seed=7),
    "one": weight(1, seed=7),
    "wt": weight(8, 6, 2, 2, seed=8),
    "places": weight(1, 6, 5, seed=9),
    "table": weight(5, 8, seed=10),
}


def checked(text: str) -> Model:
    """The model with all shapes inferred, those of its outputs too."""
    model = model_from(text, {k: v for k, v in W.items() if re.search(rf"\b{k}\b", text)})
    for value in model.proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return Model(verified(infer(model.proto), "m"), "m")


def means(model: Model, tensors: list[str], samples: list[Sample], axis: int) -> list[np.ndarray]:
    """Per tensor the mean of every channel, each sample counting the same."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    known = {v.name: v for v in infer(proto).graph.value_info}
    listed = {v.name for v in proto.graph.output}
    proto.graph.output.extend(known[t] for t in tensors if t not in listed)
    found: Mapping[str, list[np.ndarray]] = {t: [] for t in tensors}
    for sample in samples:
        values = run(model.derive(proto, ()), sample.feeds)
        for tensor in tensors:
            x = values[tensor]
            others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
            found[tensor].append(x.mean(axis=others, dtype=np.float64))
    return [np.mean(found[t], axis=0) for t in tensors]


def assert_exact(
    model: Model, tensors: list[str], *, axis: int = 1, tolerance: float = 2e-4, **form: object
) -> Model:
    """Behind every layer the corrected graph's mean is the float model's, and was not before."""
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples, **form)
    after = bias_correction(quantized, exact, samples)
    expected = means(exact, tensors, samples, axis)
    before, got = (means(m, tensors, samples, axis) for m in (quantized, after))
    for name, e, b, g in zip(tensors, expected, before, got, strict=True):
        assert np.abs(b - e).max() > 5 * tolerance, f"{name}: nothing to correct"
        np.testing.assert_allclose(g, e, atol=tolerance, err_msg=name)
    return after


def biases(model: Model) -> dict[str, tuple[int, ...]]:
    weights = {w.name: w for w in model.proto.graph.initializer}
    return {n: tuple(w.dims) for n, w in weights.items() if n.endswith("/corrected_bias")}


CHAIN = """g (float[N,3,6,8] x) => (float[N] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, b1) r = Relu(a) b = Conv(r, w2) s = Relu(b)
    c = Conv(s, w2, b1) t = Add(c, r) m = GlobalAveragePool(t) f = Flatten(m)
    y = Gemm(f, w3, five)
}"""


@pytest.mark.parametrize(
    "dialect", ["stored", "W -> Q -> DQ", "one scale per tensor", "int32 biases"]
)
def test_every_layers_mean_is_that_of_the_float_model(dialect: str) -> None:
    # four bits: errors large enough to see, and steps of an int32 bias that are
    form = {"weight_bits": 4, **DIALECTS[dialect]}
    tolerance = 5e-3 if dialect == "int32 biases" else 2e-4
    after = assert_exact(checked(CHAIN), ["a", "b", "c", "y"], tolerance=tolerance, **form)
    applied = [d for d in after.decisions if d.outcome == "applied"]
    assert [d.subject for d in applied] == ["a", "b", "c", "y"]


def test_a_shared_bias_becomes_one_for_each_layer() -> None:
    after = assert_exact(checked(CHAIN), ["a", "c"], weight_bits=4)
    assert biases(after) == {
        f"{n}/corrected_bias": (s,) for n, s in zip("abcy", (8, 8, 8, 5), strict=True)
    }
    assert "b1" not in {w.name for w in after.proto.graph.initializer}


GEMMS = {
    "none": ("Gemm(f, w3)", (5,)),
    "a row": ("Gemm(f, w3, row)", (1, 5)),
    "a number": ("Gemm(f, w3, number)", (5,)),
    "one number": ("Gemm(f, w3, one)", (5,)),
}


@pytest.mark.parametrize(("gemm", "shape"), GEMMS.values(), ids=GEMMS)
def test_a_gemm_may_have_any_bias(gemm: str, shape: tuple[int, ...]) -> None:
    model = checked(f"g (float[N,8] f) => (float[N] y) {{ y = {gemm} }}")
    after = assert_exact(model, ["y"], weight_bits=4)
    assert biases(after) == {"y/corrected_bias": shape}


def test_a_transposed_convolution() -> None:
    model = checked(
        "g (float[N,8,3,4] x) => (float[N] y) "
        "{ a = ConvTranspose<strides = [2,2]>(x, wt) y = Relu(a) }"
    )
    samples = samples_of(model)
    quantized, _ = in_int8(model, samples, weight_bits=4)
    if "DequantizeLinear" not in {n.op_type for n in quantized.proto.graph.node}:
        pytest.skip("this placement leaves ConvTranspose in float")
    assert_exact(model, ["a"], weight_bits=4)


@pytest.mark.parametrize("added", ["five", "row", "number", "places"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_add_behind_a_matmul_takes_it(added: str, turned: bool) -> None:
    parts = f"{added}, m" if turned else f"m, {added}"
    model = checked(f"g (float[N,6,8] x) => (float[N] y) {{ m = MatMul(x, w3) y = Add({parts}) }}")
    after = assert_exact(model, ["y"], axis=-1, weight_bits=4)
    assert list(biases(after)) == ["y/corrected_bias"]


def test_token_ids_and_lengths_of_their_own() -> None:
    model = checked(
        """g (int64[N,L] ids) => (float[N] y) {
            e = Gather(table, ids) m = MatMul(e, w3) y = Add(m, five)
        }"""
    )
    assert_exact(model, ["y"], axis=-1, weight_bits=4)


REFUSED = {
    "no add": ("m = MatMul(x, w3) y = Relu(m)", "no Add behind it takes one"),
    "a computed sum": ("m = MatMul(x, w3) n = Neg(m) y = Add(m, n)", "no Add behind it takes one"),
    "two tensors": ("k = MatMul(x, w3) m = Add(k, x5) y = Relu(m)", r"added to it.*is computed"),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_layer_without_a_place_for_a_bias_says_so(body: str, reason: str) -> None:
    more = ", float[N,6,5] x5" if "x5" in body else ""
    model = checked(f"g (float[N,6,8] x{more}) => (float[N] y) {{ {body} }}")
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples)
    after = bias_correction(quantized, exact, samples)
    reasons = [d.reason for d in after.decisions if d.outcome == "skipped"]
    assert len(reasons) == 1
    assert re.search(reason, reasons[0])
    assert after.sha256 == quantized.sha256


def with_beta(model: Model, beta: float) -> Model:
    """The same graph with another factor of the bias, which no placement has integers for."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    gemm = next(node for node in proto.graph.node if node.op_type == "Gemm")
    gemm.attribute.append(onnx.helper.make_attribute("beta", beta))
    return model.derive(proto, ())


@pytest.mark.parametrize("beta", [0.5, -2.0])
def test_a_beta_multiplies_what_is_added(beta: float) -> None:
    model = checked("g (float[N,8] f) => (float[N] y) { y = Gemm(f, w3, five) }")
    samples = samples_of(model)
    quantized, exact = (with_beta(m, beta) for m in in_int8(model, samples, weight_bits=4))
    after = bias_correction(quantized, exact, samples)
    (expected,), (got,) = (means(m, ["y"], samples, 1) for m in (exact, after))
    np.testing.assert_allclose(got, expected, atol=2e-4)


def test_a_beta_of_zero_leaves_no_place() -> None:
    model = checked("g (float[N,8] f) => (float[N] y) { y = Gemm(f, w3, five) }")
    samples = samples_of(model)
    quantized, exact = (with_beta(m, 0.0) for m in in_int8(model, samples))
    after = bias_correction(quantized, exact, samples)
    assert [d.reason for d in after.decisions if d.outcome == "skipped"] == [
        "its beta is 0, which leaves its bias out"
    ]


def test_a_value_the_float_model_lacks_says_so() -> None:
    model = checked(CHAIN)
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples)
    proto = onnx.ModelProto()
    proto.CopyFrom(exact.proto)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["other" if name == "b" else name for name in names]
    del proto.graph.value_info[:]
    after = bias_correction(quantized, exact.derive(proto, ()), samples)
    skipped = [(d.subject, d.reason) for d in after.decisions if d.outcome == "skipped"]
    assert skipped == [("b", "the float model has no such value to compare with")]
    assert len([d for d in after.decisions if d.outcome == "applied"]) == 3


def test_the_largest_correction_is_told() -> None:
    model = checked(CHAIN)
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples, weight_bits=4)
    after = bias_correction(quantized, exact, samples)
    (note,) = [d for d in after.decisions if d.outcome == "note"]
    assert re.fullmatch(
        r"the largest correction, \d+\.\d\d% of the output's span; over 24 runs", note.reason
    )
    shares = {
        d.subject: float(re.search(r"([\d.]+)% of", d.reason).group(1))  # type: ignore[union-attr]
        for d in after.decisions
        if d.outcome == "applied"
    }
    assert note.subject == max(shares, key=shares.__getitem__)
    assert max(shares.values()) > 0.5


def test_int32_biases_stay_int32() -> None:
    model = checked(CHAIN)
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples, bias_form="int32")
    after = bias_correction(quantized, exact, samples)

    def integers(m: Model) -> dict[str, np.ndarray]:
        weights = m.proto.graph.initializer
        kind = onnx.TensorProto.INT32
        return {w.name: numpy_helper.to_array(w) for w in weights if w.data_type == kind and w.dims}

    before, found = integers(quantized), integers(after)
    names = [name for name in found if name.endswith("/int32")]
    assert len(names) == len([name for name in before if "zero_point" not in name]) == 3
    assert all("corrected_bias" in name for name in names)
