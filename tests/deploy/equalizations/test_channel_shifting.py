"""Channels centred on zero: exactly, in biases alone, where no padding or activation minds."""

from __future__ import annotations

import numpy as np
import pytest
from equalized import applied, assert_equal, samples_for
from helpers import model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.observation.evidence import Evidence
from deploy.surgery.graph import verified

WEIGHTS = {
    "w1": weight(4, 3, 3, 3, seed=1),
    "b1": weight(4, seed=2) + 3,
    "w2": weight(5, 4, 1, 1, seed=3),
    "w3": weight(5, 4, 3, 3, seed=4),
}


def checked(text: str) -> Model:
    model = model_from(text, {k: v for k, v in WEIGHTS.items() if f"{k}" in text})
    return Model(verified(model.proto, "m"), "m")


def linear(reader: str = "Conv(a, w2)", first: str = "Conv(x, w1, b1)") -> Model:
    return checked(f"g (float[N,3,6,8] x) => (float[N,M,K,L] y) {{ a = {first} y = {reader} }}")


def centres(model: Model, tensor: str, like: Model) -> np.ndarray:
    seen = Evidence(Model(verified(model.proto, "m"), "m"), samples_for(like)).ranges([tensor])
    return (seen[tensor].low + seen[tensor].high) / 2


def test_every_channel_is_centred() -> None:
    model = linear()
    assert np.abs(centres(model, "a", model)).max() > 1
    after = assert_equal(model, ["channel_shifting"])
    assert np.abs(centres(after, "a", model)).max() < 1e-5
    assert ops(after) == ops(model)
    (said,) = applied(after)
    assert said.reason.startswith("4 channels centred, moved by up to ")


def test_layers_without_a_bias_get_one() -> None:
    model = linear(first="Conv(x, w1)")
    after = assert_equal(model, ["channel_shifting"])
    assert [len(node.input) for node in after.proto.graph.node] == [3, 3]


def test_what_is_pooled_is_centred_as_it_is_read() -> None:
    """The pool's input isn't quantized, its output is."""
    model = checked(
        "g (float[N,3,6,8] x) => (float[N,M,K,L] y) "
        "{ a = Conv(x, w1, b1) p = MaxPool<kernel_shape = [3,3]>(a) y = Conv(p, w2) }"
    )
    after = assert_equal(model, ["channel_shifting"])
    assert np.abs(centres(after, "p", model)).max() < 1e-5
    assert np.abs(centres(after, "a", model)).min() > 0.1


@pytest.mark.parametrize("reader", ["Conv<pads = [1,1,1,1]>(a, w3)", "Relu(a)"])
def test_nothing_is_moved_where_zero_has_to_stay(reader: str) -> None:
    model = linear(reader)
    after = assert_equal(model, ["channel_shifting"])
    assert not after.decisions
    assert after.sha256 == model.sha256


def test_a_branch_of_a_residual_moves_with_its_sum() -> None:
    model = checked(
        """g (float[N,3,6,8] x) => (float[N,M,K,L] y) {
            a = Conv(x, w1, b1) r = Relu(a) t = Conv(x, w1) s = Add(t, r) y = Conv(s, w2)
        }"""
    )
    after = assert_equal(model, ["channel_shifting"])
    assert [d.subject for d in applied(after)] == ["Conv -> t"]
    seen = Evidence(Model(verified(after.proto, "m"), "m"), samples_for(model)).ranges(["t", "s"])
    low = np.minimum(seen["t"].low, seen["s"].low)
    high = np.maximum(seen["t"].high, seen["s"].high)
    # one constant serves the branch and the sum: what is centred is all that carries it
    assert np.abs(low + high).max() < 1e-4
