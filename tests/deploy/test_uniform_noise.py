"""Noise is uniform, seeded, unlike at every place, and runs in every opset."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import model, node

from deploy.artifacts.model import Model, copy_proto
from deploy.backends import reference
from deploy.uniform_noise import uniform_noise


def noise(x: np.ndarray, width: float = 0.5, seed: float = 7.0, opset: int = 22) -> np.ndarray:
    """What is made for a value."""
    shape = list(x.shape)
    given = model([node("Identity", ["x"], ["y"])], {"x": shape}, {"y": shape}, opset=opset)
    proto = copy_proto(given.proto)
    made, constants = uniform_noise(("x", "y"), width, seed, opset)
    del proto.graph.node[:]
    proto.graph.node.extend(made)
    proto.graph.initializer.extend(constants)
    with reference.build(Model(proto, "tiny")) as engine:
        return engine.run({"x": x})["y"]


@pytest.mark.parametrize("opset", [17, 21, 22, 24])
@pytest.mark.parametrize("width", [0.5, 3e-7])
def test_is_uniform_also_where_all_values_are_alike(opset: int, width: float) -> None:
    found = noise(np.zeros((4, 50, 60), "f4"), width, opset=opset) / width
    counts, _ = np.histogram(found, bins=20, range=(-1, 1))
    assert counts.sum() == found.size
    # 600 in each; five standard deviations
    assert np.abs(counts - 600).max() < 5 * np.sqrt(600)
    flat = found.reshape(-1)
    for apart in (1, 2, 60, 3000):
        assert abs(np.corrcoef(flat[apart:], flat[:-apart])[0, 1]) < 0.05


@pytest.mark.parametrize("opset", [21, 22])
def test_seeds_differ(opset: int) -> None:
    x = np.linspace(-3, 3, 5000, dtype="f4")
    one, two = noise(x, seed=1120.0, opset=opset), noise(x, seed=1121.0, opset=opset)
    assert np.array_equal(one, noise(x, seed=1120.0, opset=opset))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.06


def test_samples_differ() -> None:
    x = np.linspace(-3, 3, 5000, dtype="f4")
    assert abs(np.corrcoef(noise(x), noise(x + np.float32(0.5)))[0, 1]) < 0.06
