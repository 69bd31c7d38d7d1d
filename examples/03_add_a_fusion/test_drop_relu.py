"""drop_relu: fires with the same numbers, and declines for the right reason."""

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from drop_relu import drop_relu

from deploy import Model
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.rewrite import rewrite


def model(body: str, *, outputs: str = "y") -> Model:
    """Text of nodes as a model; asymmetric sizes, so that a swapped axis shows."""
    ends = ", ".join(f"float[N,8,6,5] {name}" for name in outputs.split())
    text = (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        f"tiny (float[N,8,6,5] x, float free) => ({ends}) "
        f"<float zero = {{0}}, float minus = {{-1}}, float six = {{6}}> {{ {body} }}"
    )
    return Model(onnx.parser.parse_model(text), "tiny")


def outputs_of(model: Model) -> list[np.ndarray]:
    """What ONNX Runtime computes for seeded values."""
    x = np.random.default_rng(7).normal(0.5, 4, (3, 8, 6, 5)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        model.proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x, "free": np.array(0.5, np.float32)})


def assert_fuses(before: Model, expected_ops: list[str]) -> None:
    """The fusion leaves these operators and the same numbers, bit for bit."""
    graph = to_graph(before)
    decisions = rewrite(graph, "drop_relu", drop_relu)
    after = to_model(graph, before, decisions)
    assert [d.outcome for d in decisions] == ["applied"]
    assert [node.op_type for node in after.proto.graph.node] == expected_ops
    for expected, got in zip(outputs_of(before), outputs_of(after), strict=True):
        np.testing.assert_array_equal(got, expected)


def assert_skips(before: Model, reason: str) -> None:
    """The fusion leaves the graph alone and says why."""
    decisions = rewrite(to_graph(before), "drop_relu", drop_relu)
    assert [d.outcome for d in decisions] == ["skipped"]
    assert reason in decisions[0].reason


def test_the_relu_goes() -> None:
    assert_fuses(model("r = Relu(x) y = Clip(r, zero, six)"), ["Clip"])


def test_without_an_upper_bound() -> None:
    assert_fuses(model("r = Relu(x) y = Clip(r, zero)"), ["Clip"])


@pytest.mark.parametrize(
    ("clip", "reason"),
    [
        ("Clip(r, minus, six)", "down to -1"),
        ('Clip(r, "", six)', "no lower bound"),
        ("Clip(r)", "no lower bound"),
        ("Clip(r, free, six)", "computed at run time"),
    ],
)
def test_the_relu_stays(clip: str, reason: str) -> None:
    assert_skips(model(f"r = Relu(x) y = {clip}"), reason)


def test_somebody_else_reads_the_relu() -> None:
    # not in the rule: the driver watches over it for every fusion
    assert_skips(model("r = Relu(x) y = Clip(r, zero, six) z = Neg(r)", outputs="y z"), "also read")


def test_other_nodes_are_left_alone() -> None:
    graph = to_graph(model("r = Neg(x) y = Clip(r, zero, six)"))
    assert rewrite(graph, "drop_relu", drop_relu) == []
