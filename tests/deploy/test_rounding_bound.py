"""rounding_bound: how much a step in every quantized value moves the outputs."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from quantized import samples_of
from tiny_models import residual, target

from deploy.artifacts.model import Model, copy_proto
from deploy.backends import reference
from deploy.calibrate import calibrate
from deploy.metrics import Error
from deploy.quantize import quantize
from deploy.rounding_bound import rounding_bound, shaken

SYMMETRIC = {"activation_dtype": "int8", "activation_symmetric": True}


def test_a_float_graph_has_no_bound() -> None:
    assert rounding_bound(residual(1), samples_of(residual(1), 2)) == {}


def test_a_step_costs_about_what_quantizing_itself_costs_and_a_little_more() -> None:
    """Rounding is off by up to half a step, the bound by up to one: 6 dB more noise, and another
    rounding behind it."""
    exact = residual(1)
    samples = samples_of(exact, 16)
    made = quantize(exact, calibrate(exact, samples, "minmax"), target(**SYMMETRIC))
    found = rounding_bound(made, samples)
    assert list(found) == ["y"]
    assert found == rounding_bound(made, samples)
    error = Error()
    with reference.build(exact) as left, reference.build(made) as right:
        for sample in samples:
            error.add(left.run(sample.feeds)["y"], right.run(sample.feeds)["y"])
    assert error.sqnr_db - 12 < found["y"] < error.sqnr_db + 3


@pytest.mark.parametrize("opset", [17, 22])
def test_every_integer_moves_by_at_most_one(opset: int) -> None:
    given = residual(1)
    proto = copy_proto(given.proto)
    proto.opset_import[0].version = opset
    exact = Model(proto, given.name)
    samples = samples_of(exact, 4)
    made = quantize(exact, calibrate(exact, samples, "minmax"), target(**SYMMETRIC))
    moved = shaken(made)
    assert moved is not None
    left, right = (integers(m, samples[0].feeds) for m in (made, moved))
    gap = left.astype(np.int64) - right
    assert np.abs(gap).max() == 1
    assert 0.2 < np.abs(gap).mean() < 0.8


def integers(model: Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """What the first activation is rounded to."""
    proto = copy_proto(model.proto)
    proto.graph.output.append(
        helper.make_tensor_value_info("x/quantized", TensorProto.INT8, [1, 3, 6, 8])
    )
    with reference.build(model.derive(proto, ())) as engine:
        return engine.run(feeds)["x/quantized"]


@pytest.mark.parametrize("count", [1, 3])
def test_noise_is_seeded_per_quantizer(count: int) -> None:
    exact = residual(1)
    samples = samples_of(exact, count)
    made = quantize(exact, calibrate(exact, samples, "minmax"), target(**SYMMETRIC))
    moved = shaken(made)
    assert moved is not None
    noisy = [n for n in moved.proto.graph.node if n.op_type == "RandomUniformLike"]
    seeds = [a.f for n in noisy for a in n.attribute if a.name == "seed"]
    quantizers = [n for n in made.proto.graph.node if n.op_type == "QuantizeLinear"]
    assert len(set(seeds)) == len(seeds) == len(quantizers)
