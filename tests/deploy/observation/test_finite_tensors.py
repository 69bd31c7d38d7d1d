"""What is called finite without a look at its values is; everything else keeps its own mean."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_models import model, node, normal, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.errors import CalibrationError
from deploy.observation.finite import LIMIT, finite_if_small
from deploy.observation.observe import Observer
from deploy.observation.probes import Probe


def chain(
    *nodes: onnx.NodeProto, scale: float = 1.0, dtype: int = TensorProto.FLOAT
) -> onnx.GraphProto:
    """x -> nodes -> y, with weights of `scale` at hand."""
    weights = {
        "w": np.float32(scale) * normal(16, 3, 1, 1, seed=1),
        "b": np.ones(16, "f4"),
        "low": np.array(-2, "f4"),
        "high": np.array(6, "f4"),
        "to": np.array([0, 16, -1]),
        "none": np.array(np.inf, "f4"),
    }
    x, y = (helper.make_tensor_value_info(name, dtype, None) for name in "xy")
    given = [numpy_helper.from_array(w, name) for name, w in weights.items()]
    return helper.make_graph(nodes, "chain", [x], [y], given)


def found(graph: onnx.GraphProto, *observed: str) -> set[str]:
    return set(finite_if_small(graph, observed))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Conv", ["x", "w", "b"], ["c"]), node("Clip", ["c", "low", "high"], ["y"])],
        [
            node("Conv", ["x", "w"], ["c"]),
            node("Relu", ["c"], ["r"]),
            node("Add", ["r", "c"], ["y"]),
        ],
        [node("Conv", ["x", "w"], ["c"]), node("Reshape", ["c", "to"], ["y"])],
        [node("Sigmoid", ["x"], ["s"]), node("Mul", ["s", "x"], ["y"])],
        [node("GlobalAveragePool", ["x"], ["p"]), node("LeakyRelu", ["p"], ["y"], alpha=3.0)],
    ],
)
def test_sums_and_products_of_finite_values_are_finite(nodes: list[onnx.NodeProto]) -> None:
    assert found(chain(*nodes), "x", "y") == {"y"}


@pytest.mark.parametrize(
    "graph, why",
    [
        (chain(node("Exp", ["x"], ["y"])), "may overflow"),
        (chain(node("Conv", ["x", "w"], ["y"]), scale=1e30), "weights this large may"),
        (chain(node("Add", ["x", "none"], ["y"])), "an infinite constant"),
        (chain(node("Relu", ["x"], ["y"]), dtype=TensorProto.FLOAT16), "float16 ends at 65504"),
        (chain(node("Relu", ["x"], ["y"], domain="else.where")), "somebody else's Relu"),
    ],
)
def test_anything_else_is_not_proven(graph: onnx.GraphProto, why: str) -> None:
    assert found(graph, "x", "y") == set(), why


def test_what_is_not_observed_proves_nothing() -> None:
    network = chain(node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"]))
    assert found(network, "c", "y") == {"y"}
    assert found(network, "y") == set()


def test_a_mean_of_its_own_lets_what_follows_be_proven() -> None:
    network = chain(
        node("Exp", ["x"], ["e"]), node("Relu", ["e"], ["r"]), node("Neg", ["r"], ["y"])
    )
    assert found(network, "x", "e", "r", "y") == {"r"}


def steep() -> Model:
    """c is huge where x is large; k hides what c holds behind a Clip."""
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Clip", ["c", "low", "high"], ["k"]),
        node("Conv", ["k", "w2"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {
        "w": np.ones((16, 2, 1, 1), "f4"),
        "low": np.array(-1, "f4"),
        "high": np.array(1, "f4"),
        "w2": normal(16, 16, 3, 3, seed=2),
    }
    shape = ["N", 16, 13, 17]
    return model(nodes, {"x": ["N", 2, 13, 17]}, {"y": shape, "c": shape}, weights)


def test_values_beyond_the_limit_get_means_and_stay_exact() -> None:
    network = steep()
    samples = samples_of(network, 3)
    samples[1].feeds["x"][:] *= 10 * LIMIT
    probes = [Probe(name, None, 300) for name in ("x", "c", "k", "y")]
    with Observer(network, probes) as observer:
        assert observer._engine(1)[1].proves
        (usual,) = observer.observe([samples[0]], 1)
        assert observer._engine(1)[1].proves
        (huge,) = observer.observe([samples[1]], 1)
        assert not observer._engine(1)[1].proves
        (again,) = observer.observe([samples[0]], 1)
    x = samples[1].feeds["x"].sum(axis=1)
    assert huge["c"].high.item() == pytest.approx(x.max(), rel=1e-6)
    assert usual["y"].high.tobytes() == again["y"].high.tobytes()


@pytest.mark.parametrize("place", [0, 100, 220])
def test_a_sum_that_overflows_behind_a_clip_is_named(place: int) -> None:
    """Inf - Inf in c: NaN, which neither the maximum nor the Clip has to show."""
    network = steep()
    (sample,) = samples_of(network, 1)
    planes = sample.feeds["x"].reshape(2, -1)
    planes[0, place], planes[1, place] = 3e38, 3e38
    names = ("x", "c", "k", "y")
    reason = "tensor 'c' holds NaN or Inf on sample sample 0"
    with (
        Observer(network, [Probe(name, None, 300) for name in names]) as observer,
        pytest.raises(CalibrationError, match=re.escape(reason)),
    ):
        observer.observe([Sample(sample.name, sample.feeds)], 1)
