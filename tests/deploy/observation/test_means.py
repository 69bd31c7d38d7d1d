"""Means of channels over runs, computed inside the runtime."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from, run, weight

from deploy.artifacts.model import Model
from deploy.errors import ModelError
from deploy.observation import means as module
from deploy.observation.means import channel_means


def model(opset: int) -> Model:
    text = """g (float[N,3,L,5] x) => (float[N,L,5,4] y) {
        a = Conv(x, w) r = Relu(a) y = Transpose<perm = [0,2,3,1]>(r)
    }"""
    return model_from(text, {"w": weight(4, 3, 1, 1)}, opset=opset, ir=8 + (opset > 18))


def feeds(*lengths: int) -> list[dict[str, np.ndarray]]:
    return [{"x": weight(1, 3, n, 5, seed=i)} for i, n in enumerate(lengths)]


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_each_run_counts_the_same(opset: int) -> None:
    samples = feeds(2, 9, 30)
    found = channel_means(model(opset), {"a": 1, "y": -1}, samples)
    outputs = [run(model(opset), feed)["y"] for feed in samples]
    expected = np.mean([y.mean(axis=(0, 1, 2)) for y in outputs], axis=0)
    assert list(found) == ["a", "y"]
    assert found["y"].dtype == np.float64
    np.testing.assert_allclose(found["y"], expected, rtol=1e-5)
    assert (found["a"] < found["y"]).all()


def test_the_same_with_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 4):
        monkeypatch.setattr(module.reference, "cores", lambda cores=cores: cores)
        found.append(channel_means(model(17), {"a": 1}, feeds(2, 3, 4, 5, 6))["a"])
    np.testing.assert_array_equal(found[0], found[1])


def test_the_model_is_left_as_it_is() -> None:
    source = model(17)
    before = source.proto.SerializeToString(deterministic=True)
    channel_means(source, {"a": 1}, feeds(3))
    assert source.proto.SerializeToString(deterministic=True) == before


def test_a_tensor_that_isnt_there_is_named() -> None:
    with pytest.raises(ModelError, match="'q' is no tensor of known rank"):
        channel_means(model(17), {"q": 1}, feeds(3))
