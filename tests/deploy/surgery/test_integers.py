"""What Q/DQ says of a tensor: the scale of its integers, and the values of stored weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from helpers import model_from, run, weight

from deploy.surgery.graph import to_graph
from deploy.surgery.integers import scale_of, stored

INTEGERS = np.clip(np.rint(weight(4, 3, 2) * 40), -127, 127).astype(np.int8)
WEIGHTS: dict[str, np.ndarray] = {
    "i": INTEGERS,
    "j": np.arange(4, dtype=np.int32) - 7,
    "f": weight(4, 3, 2),
    "steps": np.array([0.5, 0.25, 2.0, 0.125], np.float32),
    "three": np.array([0.5, 0.25, 2.0], np.float32),
    "step": np.float32(0.03),
    "other": np.float32(0.04),
    "zeros": np.zeros(4, np.int8),
    "none": np.zeros(3, np.int8),
    "wide": np.zeros(4, np.int32),
    "zero": np.int8(0),
    "ones": np.ones(4, np.int8),
    "unsigned": np.uint8(0),
}


def last(body: str, shape: str = "4,3,2") -> tuple[gs.Node, Any]:
    """The node that makes v, and the model."""
    text = f"g (float[{shape}] x) => (float[{shape}] y) {{ {body} y = Add(x, v) }}"
    used = {
        n: a for n, a in WEIGHTS.items() if f"({n}," in body or f" {n}," in body or f" {n})" in body
    }
    model = model_from(text, used)
    graph = to_graph(model)
    (add,) = [node for node in graph.nodes if node.op == "Add"]
    return add.inputs[1], model


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("v = DequantizeLinear<axis=0>(i, steps, zeros)", "4,3,2"),
        ("v = DequantizeLinear(i, step, zero)", "4,3,2"),
        (
            (
                "q = QuantizeLinear<axis=0>(f, steps, zeros) "
                "v = DequantizeLinear<axis=0>(q, steps, zeros)"
            ),
            "4,3,2",
        ),
        ("q = QuantizeLinear(f, step, zero) v = DequantizeLinear(q, step, zero)", "4,3,2"),
        ("v = DequantizeLinear<axis=0>(j, steps, wide)", "4"),
    ],
)
def test_values_are_what_onnx_runtime_computes(body: str, shape: str) -> None:
    tensor, model = last(body, shape)
    found = stored(tensor)
    assert found is not None
    assert found.scale is not None
    x = np.zeros([int(n) for n in shape.split(",")], np.float32)
    np.testing.assert_array_equal(found.values, run(model, {"x": x})["y"])
    assert found.scale.shape == (4,)
    assert (found.values.dtype, found.scale.dtype) == (np.float32, np.float32)


def test_a_float_constant_has_no_scale() -> None:
    graph = to_graph(
        model_from("g (float[4,3,2] x) => (float[4,3,2] y) { y = Add(x, f) }", {"f": WEIGHTS["f"]})
    )
    found = stored(graph.nodes[0].inputs[1])
    assert found is not None
    assert found.scale is None
    np.testing.assert_array_equal(found.values, WEIGHTS["f"])


@pytest.mark.parametrize(
    "body",
    [
        "v = DequantizeLinear<axis=0>(i, steps, ones)",
        "v = DequantizeLinear<axis=1>(i, three, none)",
        "v = DequantizeLinear(i, step)",
        "q = QuantizeLinear(f, step, zero) v = DequantizeLinear(q, other, zero)",
        "q = QuantizeLinear(f, step, unsigned) v = DequantizeLinear(q, step, unsigned)",
        "q = QuantizeLinear(x, step, zero) v = DequantizeLinear(q, step, zero)",
        "v = Neg(x)",
    ],
)
def test_none_where_it_is_not_known_or_has_a_zero_point(body: str) -> None:
    tensor, _ = last(body)
    assert stored(tensor) is None


@pytest.mark.parametrize(
    ("zero", "scale", "wanted"),
    [
        (", zero", "step", 0.03),
        (", unsigned", "step", None),
        ("", "step", None),
        (", zeros", "steps", None),
    ],
)
def test_the_scale_of_a_tensor(zero: str, scale: str, wanted: float | None) -> None:
    attributes = "<axis=0>" if scale == "steps" else ""
    pair = f"q = QuantizeLinear{attributes}(x, {scale}{zero}) v = DequantizeLinear{attributes}"
    tensor, _ = last(f"{pair}(q, {scale}{zero})")
    node = tensor.inputs[0]
    for each in (node, node.inputs[0].inputs[0]):
        assert scale_of(each) == (None if wanted is None else pytest.approx(wanted))


def test_another_node_has_no_scale() -> None:
    tensor, _ = last("v = Neg(x)")
    assert scale_of(tensor.inputs[0]) is None
