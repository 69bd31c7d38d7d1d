"""Values that differ on purpose are no fault; those that don't come right again are."""

from __future__ import annotations

import numpy as np
import pytest
from ladder_faults import broken, changed, swapped, weight
from onnx import numpy_helper
from tiny_models import residual, samples_of

from deploy.artifacts.model import Model, copy_proto
from deploy.ladder.first_fault import Pair, first_fault, rearranged
from deploy.ladder.tensors import observable, runs_of


def edited(model: Model, **changes: np.ndarray) -> Model:
    """Other values for weights."""
    proto = copy_proto(model.proto)
    for name, values in changes.items():
        stored = weight(proto.graph, name)
        stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
    return Model(proto, model.name)


def stored(model: Model, name: str) -> np.ndarray:
    return numpy_helper.to_array(weight(model.proto.graph, name)).copy()


def pair(before: Model, after: Model, count: int = 3) -> Pair:
    exact = observable(before)
    return Pair.of(exact, observable(after), runs_of(exact, samples_of(before, count)))


def scaled_and_taken_back(model: Model) -> Model:
    """conv1's channels by constants, which both readers of relu1 take back: conv2 and the sum."""
    factors = np.array([0.5, 2.0, 4.0, 1.5])
    w2 = stored(model, "w2") / factors[None, :, None, None] * factors[:, None, None, None]
    return edited(
        model,
        w1=stored(model, "w1") * factors[:, None, None, None],
        b1=stored(model, "b1") * factors,
        w2=w2,
        w3=stored(model, "w3") / factors[None, :],
    )


def test_equal_graphs_have_none() -> None:
    assert first_fault(pair(residual(), residual()), 90) is None


def test_what_is_scaled_and_taken_back_is_no_fault() -> None:
    model = residual()
    two = pair(model, scaled_and_taken_back(model))
    assert two.off["c1"].sqnr_db < 10
    assert first_fault(two, 90) is None


@pytest.mark.parametrize("tensor", ["c1", "c2", "y"])
def test_a_swapped_weight_is_its_node(tensor: str) -> None:
    model = residual()
    found = first_fault(pair(model, broken(model, tensor, changed(swapped))), 90)
    assert found is not None
    assert found.tensor == tensor
    assert found.nodes == (found.node,)
    assert "all in front of it is equal" in found.why


def test_behind_a_scaled_layer_the_wrong_one_is_named() -> None:
    model = residual()
    found = first_fault(
        pair(model, broken(scaled_and_taken_back(model), "c2", changed(swapped))), 90
    )
    assert found is not None
    assert found.node == "conv2"
    assert "head" not in found.nodes


def test_a_factor_that_is_not_taken_back_is_within_the_part() -> None:
    model = residual()
    once = edited(model, w1=stored(model, "w1") * np.array([1, 3, 1, 1])[:, None, None, None])
    found = first_fault(pair(model, once), 90)
    assert found is not None
    assert found.node == "conv1"


def test_the_last_layer_of_all() -> None:
    model = residual()
    found = first_fault(pair(model, broken(model, "y", changed(lambda b: b + 1, 2))), 90)
    assert found is not None
    assert found.nodes == ("head",)


class TestRearranged:
    x = np.random.default_rng(3).standard_normal((2, 4, 5, 6)).astype(np.float32)

    def test_scaled_and_shifted_channels(self) -> None:
        factor = np.array([1, -2, 3, 0.5], np.float32).reshape(1, 4, 1, 1)
        assert rearranged([self.x], [self.x * factor + factor], 80)

    def test_channels_in_another_order(self) -> None:
        assert rearranged([self.x], [self.x[:, [2, 0, 3, 1]]], 80)

    def test_channels_on_the_last_axis(self) -> None:
        factor = np.arange(1, 7, dtype=np.float32)
        assert rearranged([self.x], [self.x * factor], 80)

    def test_not_other_values(self) -> None:
        assert not rearranged([self.x], [np.roll(self.x.ravel(), 7).reshape(self.x.shape)], 80)
        assert not rearranged([self.x], [self.x + self.x**2], 80)

    def test_too_few_values_are_not_told_apart(self) -> None:
        assert rearranged([self.x[:, :, 0, 0]], [self.x[:, :, 1, 1]], 80)
