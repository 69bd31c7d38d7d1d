"""E[x x^T] of layer inputs: against NumPy, in the samples' order, with patches for convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from
from tiny_models import model, node, normal, residual, samples_of

from calibrators.samples import Sample
from deploy.errors import CalibrationError
from deploy.weights.second_moments import Reader, Window, patches, second_moments


def convolved(x: np.ndarray, w: np.ndarray, window: Window) -> np.ndarray:
    """A convolution written out, float64[N, O, h, w]."""
    top, left, bottom, right = window.pads
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    kh, kw = window.kernel
    (sh, sw), (dh, dw) = window.strides, window.dilations
    height = (x.shape[2] - (kh - 1) * dh - 1) // sh + 1
    width = (x.shape[3] - (kw - 1) * dw - 1) // sw + 1
    out = np.zeros((len(x), len(w), height, width))
    each, step = w.shape[1], len(w) // window.groups
    for o in range(len(w)):
        first = (o // step) * each
        for i in range(height):
            for j in range(width):
                rows = slice(i * sh, i * sh + (kh - 1) * dh + 1, dh)
                columns = slice(j * sw, j * sw + (kw - 1) * dw + 1, dw)
                patch = x[:, first : first + each, rows, columns]
                out[:, o, i, j] = (patch * w[o]).sum(axis=(1, 2, 3))
    return out


WINDOWS = {
    "plain": (Window((3, 2)), 5),
    "strided, padded": (Window((3, 3), (2, 1), (1, 1), (1, 0, 2, 1)), 4),
    "dilated": (Window((2, 3), (1, 2), (2, 1), (0, 1, 0, 1)), 3),
    "grouped": (Window((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 2), 6),
    "depthwise": (Window((3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 4), 4),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_patches_give_the_energy_of_the_convolution(name: str) -> None:
    """sum y^2 = w H w^T for every output channel: H holds what the weights really meet."""
    window, outputs = WINDOWS[name]
    x = normal(2, 4, 7, 9, seed=5)
    w = normal(outputs, 4 // window.groups, *window.kernel, seed=6)
    vectors = patches(x, window).astype(np.float64)
    found = vectors @ vectors.transpose(0, 2, 1)
    k = w[0].size
    assert found.shape == (window.groups, k, k)
    expected = (convolved(x, w, window) ** 2).sum(axis=(0, 2, 3))
    rows = w.reshape(window.groups, -1, k).astype(np.float64)
    got = np.einsum("gok,gkl,gol->go", rows, found, rows).reshape(-1)
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_mean_over_the_samples_of_their_sums() -> None:
    network = model(
        [node("Relu", ["x"], ["h"]), node("MatMul", ["h", "w"], ["y"])],
        {"x": ["N", 5, 4]},
        {"y": ["N", 5, 6]},
        {"w": normal(4, 6)},
    )
    samples = samples_of(network, 5)
    found = second_moments(network, samples, [Reader("h"), Reader("x")])
    for name, change in (("h", lambda x: np.maximum(x, 0)), ("x", lambda x: x)):
        parts = [change(s.feeds["x"]).reshape(-1, 4).astype(np.float64) for s in samples]
        expected = sum(p.T @ p for p in parts) / 5
        np.testing.assert_allclose(found[Reader(name)], expected[None], rtol=1e-12)


def test_more_vectors_than_are_multiplied_at_once() -> None:
    network = model(
        [node("MatMul", ["x", "w"], ["y"])],
        {"x": ["N", 700, 4]},
        {"y": ["N", 700, 2]},
        {"w": normal(4, 2)},
    )
    samples = samples_of(network, 5)
    parts = [s.feeds["x"].reshape(-1, 4).astype(np.float64) for s in samples]
    found = second_moments(network, iter(samples), [Reader("x")])[Reader("x")]
    np.testing.assert_allclose(found[0], sum(p.T @ p for p in parts) / 5, rtol=1e-12)


def test_the_same_samples_give_the_same_bits() -> None:
    network = residual()
    readers = [Reader("r1", Window((3, 3), pads=(1, 1, 1, 1))), Reader("f")]
    first, second = (second_moments(network, samples_of(network, 3), readers) for _ in range(2))
    for reader in readers:
        assert first[reader].tobytes() == second[reader].tobytes()


def test_tensors_without_a_written_shape_are_found() -> None:
    network = model_from(
        "g (float[N,4] x, float[4,6] w) => (float[N,6] y) { h = Relu(x) y = MatMul(h, w) }"
    )
    samples = [Sample("s", {"x": normal(1, 4), "w": normal(4, 6)})]
    assert not network.proto.graph.value_info
    assert second_moments(network, samples, [Reader("h")])[Reader("h")].shape == (1, 4, 4)


def test_no_samples() -> None:
    with pytest.raises(CalibrationError, match="no samples to measure layer inputs on"):
        second_moments(residual(), [], [Reader("f")])


def test_nan_is_named() -> None:
    network = residual()
    good, bad = samples_of(network, 2)
    bad.feeds["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(CalibrationError, match=r"tensor 'r1' holds NaN or Inf on sample sample 1"):
        second_moments(network, [good, bad], [Reader("r1", Window((3, 3)))])
