"""What doctor says of inputs with a default."""

from __future__ import annotations

import onnx
from doctor_cases import case, only, said
from helpers import model_from, weight

TEXT = "g (float[N,3] x) => (float[N,3] y) { s = Mul (x, k) y = Add (s, b) }"


def test_a_default() -> None:
    model = model_from(TEXT, {"k": weight(3), "b": weight(3, seed=1)})
    value = onnx.helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [3])
    model.proto.graph.input.append(value)
    found = only("default_inputs", case(model, "cpu"))
    assert found.level == "warning"
    assert found.where == ("k",)
    assert "1 input has a default and is a constant" in found.text


def test_none() -> None:
    model = model_from(TEXT, {"k": weight(3), "b": weight(3, seed=1)})
    assert said("default_inputs", case(model, "cpu")) == []
