"""How close two tensors are, one sample after the other: sums first, figures at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# what is reported for identical tensors, where the ratio is infinite
IDENTICAL_DB = 200.0
# values looked at together: they stay in the cache, and BLAS starts no threads for so few, which
# on a busy machine wait for each other ten times as long as they compute
_BLOCK = 8192


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Signal to quantization noise of one pair, in dB."""
    error = Error()
    error.add(reference, candidate)
    return error.sqnr_db


def without_shared_infinities(
    reference: np.ndarray, candidate: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both less the places where they hold the same Inf, as behind an attention mask: inside a
    graph that is agreement. Of outputs nothing is taken away: there it proves nothing."""
    if reference.shape != candidate.shape or np.isfinite(reference).all():
        return reference, candidate
    differ = ~(np.isinf(reference) & (reference == candidate))
    return reference[differ], candidate[differ]


@dataclass
class Error:
    """Sums over all samples seen, in float64; every figure is derived from them.

    NaN or Inf on either side, or another shape, counts as infinitely wrong.
    """

    signal: float = 0.0
    candidate: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    max_abs: float = 0.0
    reference_max: float = 0.0
    count: int = 0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """One more pair of tensors of equal shape."""
        self.count += reference.size
        found = _sums(reference, candidate) if reference.shape == candidate.shape else None
        if found is None:
            self.noise = self.max_abs = np.inf
            return
        self.signal += found[0]
        self.candidate += found[1]
        self.product += found[2]
        self.noise += found[3]
        self.max_abs = max(self.max_abs, found[4])
        self.reference_max = max(self.reference_max, found[5])

    @property
    def sqnr_db(self) -> float:
        """10 log10(sum x^2 / sum (x - y)^2)."""
        if self.noise == 0:
            return IDENTICAL_DB
        if self.signal == 0 or not np.isfinite(self.noise):
            return -IDENTICAL_DB
        return float(np.clip(10 * np.log10(self.signal / self.noise), -IDENTICAL_DB, IDENTICAL_DB))

    @property
    def cosine(self) -> float:
        """sum xy / sqrt(sum x^2 sum y^2); 1 for two zero tensors."""
        if not np.isfinite(self.noise):
            return 0.0
        norm = np.sqrt(self.signal * self.candidate)
        if norm == 0:
            return 1.0 if self.noise == 0 else 0.0
        return float(np.clip(self.product / norm, -1.0, 1.0))


def _sums(reference: np.ndarray, candidate: np.ndarray) -> tuple[float, ...] | None:
    """Sums of xx, yy, xy and of the squared gap, the largest gap and the largest |x|; None where a
    value isn't finite."""
    flat = [part.reshape(-1) for part in (reference, candidate)]
    signal = other = product = noise = gap_max = x_max = 0.0
    for start in range(0, reference.size, _BLOCK):
        x, y = (part[start : start + _BLOCK].astype(np.float64) for part in flat)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return None
        gap = y - x
        signal += float(x @ x)
        other += float(y @ y)
        product += float(x @ y)
        noise += float(gap @ gap)
        gap_max = max(gap_max, float(np.abs(gap).max()))
        x_max = max(x_max, float(np.abs(x).max()))
    return signal, other, product, noise, gap_max, x_max
