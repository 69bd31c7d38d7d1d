"""How close two tensors are, one sample after the other: sums first, figures at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# what is reported for identical tensors, where the ratio is infinite
IDENTICAL_DB = 200.0


def sqnr_db(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Signal to quantization noise of one pair, in dB."""
    error = Error()
    error.add(reference, candidate)
    return error.sqnr_db


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
        finite = np.isfinite(reference).all() and np.isfinite(candidate).all()
        if reference.shape != candidate.shape or not finite:
            self.noise = self.max_abs = np.inf
            self.count += reference.size
            return
        if reference.size == 0:
            return
        x = reference.astype(np.float64).reshape(-1)
        y = candidate.astype(np.float64).reshape(-1)
        gap = y - x
        self.signal += float(x @ x)
        self.candidate += float(y @ y)
        self.product += float(x @ y)
        self.noise += float(gap @ gap)
        self.max_abs = max(self.max_abs, float(np.abs(gap).max()))
        self.reference_max = max(self.reference_max, float(np.abs(x).max()))
        self.count += x.size

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
