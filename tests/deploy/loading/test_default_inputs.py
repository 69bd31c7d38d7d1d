"""Inputs with a default: constants from here on, and never silently."""

from __future__ import annotations

import onnx
import pytest
from helpers import model_from, weight

from deploy.artifacts.model import Model
from deploy.load import load
from deploy.loading.default_inputs import default_inputs


def scaled(listed: tuple[str, ...], ir: int = 8) -> Model:
    """x * k + b, with those of the two constants among the inputs."""
    text = "g (float[N,3] x) => (float[N,3] y) { s = Mul (x, k) y = Add (s, b) }"
    model = model_from(text, {"k": weight(3), "b": weight(3, seed=1)}, ir=ir)
    for name in listed:
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3])
        model.proto.graph.input.append(value)
    return model


def test_a_default_is_kept_and_said() -> None:
    loaded = load(scaled(("k",)))
    assert [spec.name for spec in loaded.inputs] == ["x"]
    assert [i.name for i in loaded.proto.graph.initializer] == ["k", "b"]
    (note,) = loaded.decisions
    assert note.reason == (
        "1 input has a default and is a constant of the engine from here on: 'k'; to feed one, "
        "delete its initializer from the model"
    )


@pytest.mark.parametrize(
    ("listed", "ir", "found"),
    [
        ((), 8, []),
        (("k",), 8, ["k"]),
        (("b",), 4, ["b"]),
        (("k", "b"), 8, []),  # as exporters list every weight
        (("k",), 3, []),  # where they had to
    ],
)
def test_which_inputs_have_one(listed: tuple[str, ...], ir: int, found: list[str]) -> None:
    assert default_inputs(scaled(listed, ir).proto) == found


def test_weights_among_the_inputs_are_called_that() -> None:
    (note,) = load(scaled(("k", "b"))).decisions
    assert note.reason.startswith("weights listed among the inputs")
