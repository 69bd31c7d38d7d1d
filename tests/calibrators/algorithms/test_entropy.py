"""Entropy: against a literal, slow form of Migacz' procedure, and what it has to clip."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibrators.algorithms.entropy import Entropy, best_threshold

LEVELS = 128


def kl_literally(counts: list[int], bins: int) -> float:
    """GTC 2017, slide "Entropy Calibration - pseudocode", one threshold, in plain Python."""
    reference = [float(c) for c in counts[:bins]]
    reference[-1] += sum(counts[bins:])
    quantized = [0.0] * bins
    for level in range(LEVELS):
        first, last = level * bins // LEVELS, (level + 1) * bins // LEVELS
        filled = [i for i in range(first, last) if counts[i]]
        for i in filled:
            quantized[i] = sum(counts[first:last]) / len(filled)
    total_p, total_q = sum(reference), sum(quantized)
    if total_q == 0:
        return math.inf
    divergence = 0.0
    for p, q in zip(reference, quantized, strict=True):
        if p and not q:
            return math.inf
        if p:
            divergence += p / total_p * math.log((p / total_p) / (q / total_q))
    return divergence


def folded(counts: np.ndarray, bins: int) -> list[int]:
    """Fewer, wider bins: the literal search is quadratic."""
    used = counts[: int(np.flatnonzero(counts)[-1]) + 1]
    width = -(-used.size // bins)
    padded = np.append(used, np.zeros(-used.size % width, np.int64))
    return [int(c) for c in padded.reshape(-1, width).sum(axis=1)]


def magnitudes(x: np.ndarray) -> np.ndarray:
    calibrator = Entropy()
    calibrator.observe(x.astype("f4"))
    return calibrator.histogram.magnitudes()


RANDOM = np.random.default_rng(23)
LAPLACE = RANDOM.laplace(size=20000)
GAUSS = RANDOM.standard_normal(20000)
TENSORS = {
    "laplace": LAPLACE,
    "gauss": GAUSS,
    "relu of a skewed gauss": np.maximum(GAUSS + 0.4, 0),
    "uniform": RANDOM.uniform(-3, 1, 20000),
    "laplace with an outlier": np.append(LAPLACE, 60.0),
    "outliers in a sparse tail": np.append(GAUSS, [-80.0, 90.0]),
    "a million values": np.random.default_rng(5).laplace(size=1000000),
    "two bodies": np.concatenate([GAUSS, 12 + 0.5 * RANDOM.standard_normal(500)]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_divergence_is_as_small_as_the_full_search_finds(name: str) -> None:
    counts = folded(magnitudes(TENSORS[name]), 700)
    chosen = best_threshold(np.asarray(counts))
    every = {bins: kl_literally(counts, bins) for bins in range(LEVELS, len(counts) + 1)}
    best = min(every.values())
    # the best threshold may lie 1 % away; the narrow last bin of "uniform" makes that 7 %
    assert every[chosen] <= (1.08 if name == "uniform" else 1.01) * best


@pytest.mark.parametrize("name", ["gauss", "laplace with an outlier"])
def test_full_resolution(name: str) -> None:
    counts = [int(c) for c in magnitudes(TENSORS[name])]
    counts = counts[: max(i for i, c in enumerate(counts) if c) + 1]
    chosen = best_threshold(np.asarray(counts))
    sparse = [kl_literally(counts, bins) for bins in range(LEVELS, len(counts) + 1, 37)]
    assert kl_literally(counts, chosen) <= 1.02 * min(sparse)


def test_by_hand_on_a_comb() -> None:
    # pairs of equal bins: 128 levels of two bins lose nothing, wider levels mix large and small
    counts = np.zeros(1024, np.int64)
    counts[:256] = np.repeat(np.random.default_rng(1).integers(100, 9000, 128), 2)
    counts[1020] = 1
    assert best_threshold(counts) == 256
    assert kl_literally([int(c) for c in counts], 256) < 1e-6


def test_a_tie_keeps_the_wider_range() -> None:
    assert best_threshold(np.full(1024, 7)) == 1024


@pytest.mark.parametrize(
    "counts", [np.zeros(4096, np.int64), np.ones(128, np.int64), np.zeros(0, np.int64)]
)
def test_nothing_to_choose_from(counts: np.ndarray) -> None:
    assert best_threshold(counts) == 0


@pytest.mark.parametrize("make", ["laplace", "gauss"])
def test_one_huge_outlier_is_clipped(make: str) -> None:
    x = np.append(TENSORS[make], 1000.0)
    calibrator = Entropy()
    calibrator.observe(x.astype("f4"))
    found = calibrator.range()
    assert np.percentile(np.abs(TENSORS[make]), 99) < found.high < 40
    assert found.low == float(x.astype("f4").min())  # lies above minus the threshold


def test_uniform_is_not_clipped() -> None:
    x = RANDOM.uniform(-2, 2, 20000).astype("f4")
    calibrator = Entropy()
    calibrator.observe(x)
    found = calibrator.range()
    assert found.low == pytest.approx(float(x.min()), rel=0.01)
    assert found.high == pytest.approx(float(x.max()), rel=0.01)


def test_zeros_of_a_relu_do_not_matter() -> None:
    x = np.abs(LAPLACE).astype("f4")
    dense, sparse = Entropy(), Entropy()
    dense.observe(x)
    sparse.observe(np.append(x, np.zeros(20 * x.size, "f4")))
    assert sparse.range().high == dense.range().high < 0.95 * float(x.max())
    assert (dense.range().low, sparse.range().low) == (float(x.min()), 0.0)


def test_the_threshold_holds_for_both_signs() -> None:
    x = np.append(GAUSS, [-80.0, 90.0]).astype("f4")
    calibrator = Entropy()
    calibrator.observe(x)
    found = calibrator.range()
    assert found.low == -found.high
    assert 3 < found.high < 5
