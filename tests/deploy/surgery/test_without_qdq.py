"""remove_qdq: the float graph comes back, by its own names."""

import numpy as np
import pytest
from quantized import samples_of
from tiny_models import residual, target

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.calibrate import calibrate
from deploy.quantize import quantize
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.without_qdq import remove_qdq

SYMMETRIC = {"activation_dtype": "int8", "activation_symmetric": True}


def quantized(**form: object) -> tuple[Model, Model]:
    exact = residual(1)
    ranges = calibrate(exact, samples_of(exact), "minmax")
    return exact, quantize(exact, ranges, target(**form))


def stripped(model: Model) -> Model:
    graph = to_graph(model)
    assert remove_qdq(graph) > 0
    return to_model(graph, model, ())


def out(model: Model, x: np.ndarray) -> np.ndarray:
    with reference.build(model) as engine:
        return engine.run({"x": x})["y"]


def test_weights_that_stay_float_come_back_to_the_bit() -> None:
    exact, made = quantized(weight_form="fp32", **SYMMETRIC)
    plain = stripped(made)
    kinds = [node.op_type for node in plain.proto.graph.node]
    assert kinds == [node.op_type for node in exact.proto.graph.node]
    named = {o for node in plain.proto.graph.node for o in node.output}
    assert named == {o for node in exact.proto.graph.node for o in node.output}
    x = samples_of(exact)[0].feeds["x"]
    assert np.array_equal(out(plain, x), out(exact, x))


@pytest.mark.parametrize("per_channel", [True, False])
def test_stored_integers_become_the_floats_they_stand_for(per_channel: bool) -> None:
    exact, made = quantized(weight_per_channel=per_channel, **SYMMETRIC)
    graph = to_graph(made)
    remove_qdq(graph)
    plain = to_model(graph, made, ())
    kinds = {node.op_type for node in plain.proto.graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    x = samples_of(exact)[0].feeds["x"]
    got, wanted = out(plain, x), out(exact, x)
    # weights alone were rounded: close, and not the same
    assert 1e-4 < np.abs(got - wanted).max() / np.abs(wanted).max() < 0.05
