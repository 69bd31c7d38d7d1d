"""What every correction must do: keep the graph's ports and grids, help, and repeat itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import model_from, run, weight
from onnx import numpy_helper
from quantized import DIALECTS, in_int8, samples_of, sqnr_db

from deploy import registry
from deploy.artifacts.model import Model
from deploy.correct import correct
from deploy.errors import CalibrationError

NAMES = registry.names("correction")
TEXT = """g (float[N,3,6,8] x) => (float[N,5] y) {
    a = Conv<pads = [1,1,1,1]>(x, w1, b1)
    r = Relu(a)
    d = Conv<group = 8, pads = [1,1,1,1]>(r, dw, b1)
    s = Relu(d)
    p = Conv(s, w2, b1)
    t = Add(p, r)
    m = GlobalAveragePool(t)
    f = Flatten(m)
    y = Gemm<transB = 1>(f, w3, b3)
}"""


def net() -> Model:
    weights = {
        "w1": weight(8, 3, 3, 3, seed=1) / 3,
        "b1": weight(8, seed=2),
        "dw": weight(8, 1, 3, 3, seed=3),
        "w2": weight(8, 8, 1, 1, seed=4),
        "w3": weight(5, 8, seed=5),
        "b3": weight(5, seed=6),
    }
    return model_from(TEXT, weights)


def tensors(model: Model, kinds: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {
        w.name: numpy_helper.to_array(w)
        for w in model.proto.graph.initializer
        if w.data_type in kinds
    }


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
@pytest.mark.parametrize("name", NAMES)
def test_it_gives_a_valid_model_of_the_same_ports(name: str, dialect: dict[str, object]) -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples, **dialect)
    bytes_before = [m.proto.SerializeToString(deterministic=True) for m in (quantized, exact)]
    after = correct(quantized, exact, samples, [name])
    onnx.checker.check_model(after.proto, full_check=True)
    assert [m.proto.SerializeToString(deterministic=True) for m in (quantized, exact)] == (
        bytes_before
    )
    assert [str(s) for s in after.inputs] == [str(s) for s in quantized.inputs]
    assert [str(s) for s in after.outputs] == [str(s) for s in quantized.outputs]
    got = run(after, samples[0].feeds)
    assert all(np.isfinite(value).all() for value in got.values())
    ops = [node.op_type for node in quantized.proto.graph.node]
    assert sorted(node.op_type for node in after.proto.graph.node) == sorted(ops)


@pytest.mark.parametrize("name", NAMES)
def test_it_helps_where_there_is_something_to_win(name: str) -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples, weight_bits=4)
    unseen = samples_of(net(), 60)[40:]
    after = correct(quantized, exact, samples, [name])
    assert after.decisions
    assert sqnr_db(exact, after, unseen) > sqnr_db(exact, quantized, unseen) + 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_bytes_twice_with_any_number_of_cores(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples)
    first = correct(quantized, exact, samples, [name])
    monkeypatch.setattr("deploy.backends.reference.cores", lambda: 3)
    again = correct(quantized, exact, samples, [name])
    assert first.sha256 == again.sha256
    assert first.sha256 != quantized.sha256
    assert first.decisions == again.decisions


@pytest.mark.parametrize("name", NAMES)
def test_scales_and_zero_points_stay(name: str) -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples)
    after = correct(quantized, exact, samples, [name])
    before = tensors(quantized, (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8))
    for key, value in tensors(after, (onnx.TensorProto.FLOAT, onnx.TensorProto.UINT8)).items():
        if key.endswith(("/scale", "/zero_point")):
            np.testing.assert_array_equal(value, before[key], err_msg=key)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_did(name: str) -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples)
    after = correct(quantized, exact, samples, [name])
    assert sum(d.outcome == "applied" for d in after.decisions) == 4
    for decision in after.decisions:
        assert (decision.stage, decision.rule) == ("correct", name)
        assert decision.subject and decision.reason and "\n" not in decision.reason


@pytest.mark.parametrize("name", NAMES)
def test_a_float_model_is_left_as_it_is(name: str) -> None:
    after = correct(net(), net(), samples_of(net()), [name])
    assert after.sha256 == net().sha256
    assert not [d for d in after.decisions if d.outcome == "applied"]


@pytest.mark.parametrize("name", NAMES)
def test_no_samples_are_told(name: str) -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples)
    with pytest.raises(CalibrationError, match=r"no samples.*check --data and --samples"):
        correct(quantized, exact, [], [name])


@pytest.mark.parametrize("name", NAMES)
def test_a_fixed_batch_is_filled(name: str) -> None:
    fixed = model_from(TEXT.replace("N", "4"), tensors(net(), (onnx.TensorProto.FLOAT,)))
    samples = samples_of(fixed, 10)
    quantized, exact = in_int8(fixed, samples)
    after = correct(quantized, exact, samples, [name])
    assert after.sha256 != quantized.sha256
