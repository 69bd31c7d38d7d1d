"""Integers of a Q/DQ graph rounded anew: the same grid, less error behind every layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import model_from, weight
from onnx import numpy_helper
from quantized import DIALECTS, correlated, in_int8, samples_of, sqnr_db

from deploy.artifacts.model import Model
from deploy.corrections import gptq as module
from deploy.corrections.gptq import gptq
from deploy.weights.stored import stored_weights

LAYERS = {
    "dense": ("Conv<pads = [1,1,1,1]>(x, w)", weight(6, 4, 3, 3, seed=1)),
    "grouped": ("Conv<group = 2>(x, w)", weight(6, 2, 3, 3, seed=2)),
    "depthwise": ("Conv<group = 4, strides = [2,1]>(x, w)", weight(8, 1, 3, 3, seed=3)),
}


def conv(op: str, values: np.ndarray) -> Model:
    text = f"g (float[N,4,7,9] x) => (float[N,M,K,L] y) {{ a = {op} y = Relu(a) }}"
    return model_from(text, {"w": values})


def dense(op: str = "Gemm(x, w)", turned: bool = False) -> Model:
    values = weight(24, 10, seed=4)
    text = f"g (float[N,24] x) => (float[N,10] y) {{ y = {op} }}"
    return model_from(text, {"w": values.T.copy() if turned else values})


def integers(model: Model) -> dict[str, np.ndarray]:
    kind = onnx.TensorProto.INT8
    weights = model.proto.graph.initializer
    return {
        w.name: numpy_helper.to_array(w) for w in weights if w.data_type == kind and len(w.dims) > 1
    }


def assert_better(model: Model, gain_db: float, **form: object) -> None:
    everything = correlated(model)
    samples, unseen = everything[:200], everything[200:]
    quantized, exact = in_int8(model, samples, weight_bits=4, **form)
    after = gptq(quantized, exact, samples)
    before_db, after_db = (sqnr_db(exact, m, unseen) for m in (quantized, after))
    assert after_db > before_db + gain_db
    before, found = integers(quantized), integers(after)
    assert list(before) == list(found)
    for name, values in found.items():
        assert np.abs(values).max() <= np.abs(before[name]).max()
        assert (values != before[name]).any()


@pytest.mark.parametrize(("op", "values"), LAYERS.values(), ids=LAYERS)
def test_a_convolution_loses_less(op: str, values: np.ndarray) -> None:
    assert_better(conv(op, values), 0.3)


@pytest.mark.parametrize("op", ["Gemm(x, w)", "MatMul(x, w)"])
def test_a_matrix_loses_less(op: str) -> None:
    assert_better(dense(op), 0.3)


def test_a_turned_gemm_loses_less() -> None:
    assert_better(dense("Gemm<transB = 1>(x, w)", turned=True), 0.3)


def test_floats_in_front_of_a_pair_lie_on_the_grid() -> None:
    model = dense()
    samples = correlated(model)
    form = {"weight_bits": 4, **DIALECTS["W -> Q -> DQ"]}
    quantized, exact = in_int8(model, samples, **form)
    after = gptq(quantized, exact, samples)
    (stored,) = stored_weights(after).values()
    steps = stored.values / stored.scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-5)
    assert sqnr_db(exact, after, samples) > sqnr_db(exact, quantized, samples) + 0.3


def test_two_layers_of_one_weight_share_the_integers() -> None:
    text = """g (float[N,24] x) => (float[N,24] y) {
        a = Gemm(x, w) r = Relu(a) y = Gemm(r, w)
    }"""
    assert_better(model_from(text, {"w": weight(24, 24, seed=5) / 5}), 0.3)


def test_weights_beyond_the_memory_take_more_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """g (float[N,24] x) => (float[N,5] y) {
        a = Gemm(x, w) r = Relu(a) b = Gemm(r, v) y = Gemm(b, u)
    }"""
    weights = {"w": weight(24, 12), "v": weight(12, 8), "u": weight(8, 5)}
    model = model_from(text, weights)
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples)
    whole = gptq(quantized, exact, samples)
    passes: list[int] = []
    measure = module.second_moments

    def counted(*given: object) -> object:
        passes.append(len(given[2]))  # type: ignore[arg-type]
        return measure(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "second_moments", counted)
    monkeypatch.setattr(module, "_MOST_BYTES", 24 * 24 * 8)
    assert gptq(quantized, exact, samples).sha256 == whole.sha256
    assert passes == [1, 2]


def test_what_cant_be_measured_says_so() -> None:
    model = conv('Conv<auto_pad = "SAME_UPPER">(x, w)', LAYERS["dense"][1])
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples)
    after = gptq(quantized, exact, samples)
    assert [d.reason for d in after.decisions] == [
        "what it is multiplied with is no plain tensor or window"
    ]
    assert after.sha256 == quantized.sha256


def test_it_says_what_it_gained() -> None:
    model = dense()
    samples = samples_of(model)
    quantized, exact = in_int8(model, samples, weight_bits=4)
    (said,) = gptq(quantized, exact, samples).decisions
    before, after = (float(part.split()[-1]) for part in said.reason.split(" dB")[0].split(" -> "))
    assert after > before + 1
    assert said.subject == "w"
