"""The integers a weight matrix may be stored in, and the scales that lose least on it.

Formulas: Jacob et al. 2018, section 2.1, real = scale * (q - zero_point), with scales per output
row and per group of neighbouring columns (Dettmers et al. 2022, "8-bit Optimizers via Block-wise
Quantization", section 2). A clipped range often loses less than the whole one where few integers
are left: Banner et al. 2019, "Post Training 4-bit Quantization of Convolutional Networks".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# shares of the full range that are tried where there are few integers
_SHARES = tuple(float(s) for s in np.arange(0.95, 0.59, -0.05))
_SMALLEST_SCALE = np.float32(2.0**-100)


@dataclass(frozen=True)
class Grid:
    """scale: float32[rows, groups]; zero_point: int32[rows, groups]; integers from low to high.

    Column c of a row belongs to group c // (columns / groups).
    """

    scale: np.ndarray
    zero_point: np.ndarray
    low: int
    high: int

    def nearest(self, rows: np.ndarray) -> np.ndarray:
        """int32[rows, columns]: round-half-even(rows / scale) + zero_point, saturated."""
        scale, zero = self.per_column(rows.shape[1])
        return np.asarray(np.clip(np.rint(rows / scale) + zero, self.low, self.high), np.int32)

    def values(self, integers: np.ndarray) -> np.ndarray:
        """float32[rows, columns]: what the integers stand for."""
        scale, zero = self.per_column(integers.shape[1])
        return np.asarray((integers - zero).astype(np.float32) * scale)

    def per_column(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale and zero point of every element (broadcast where a row has one group)."""
        size = columns // self.scale.shape[1]
        if size == columns:
            return self.scale, self.zero_point
        return np.repeat(self.scale, size, axis=1), np.repeat(self.zero_point, size, axis=1)


def fit_grid(
    rows: np.ndarray,
    bits: int,
    *,
    symmetric: bool = True,
    group: int | None = None,
    importance: np.ndarray | None = None,
) -> Grid:
    """The grid for float32[rows, columns], one scale per row, or per `group` columns of a row.

    symmetric: zero points are 0. importance: float64[columns], the weight of each column's squared
    error (the inputs' second moments); all alike where absent. 8 bits take the whole range; below,
    the share of it that loses least, per scale. ValueError when the group doesn't divide the row.
    """
    count, columns = rows.shape
    size = group or columns
    if columns % size:
        raise ValueError(f"{columns} columns don't split into groups of {size}")
    blocks = np.asarray(rows, np.float64).reshape(count, columns // size, size)
    weight = np.ones(columns) if importance is None else importance
    weight = np.broadcast_to(weight.reshape(1, columns // size, size), (1, *blocks.shape[1:]))
    ends = blocks.min(axis=2).clip(max=0), blocks.max(axis=2).clip(min=0)
    best = _grid(ends, 1.0, bits, symmetric)
    if bits == 8:
        return best
    least = _loss(blocks, weight, best)
    for share in _SHARES:
        grid = _grid(ends, share, bits, symmetric)
        loss = _loss(blocks, weight, grid)
        best = _merged(loss < least, grid, best)
        least = np.minimum(loss, least)
    return best


def noise(rows: np.ndarray, stored: np.ndarray, importance: np.ndarray | None = None) -> float:
    """Sum of squared differences, each column weighted by its importance, in float64."""
    gap = stored.astype(np.float64) - rows
    per_column = np.einsum("rc,rc->c", gap, gap)
    return float(per_column.sum() if importance is None else per_column @ importance)


def _grid(ends: tuple[np.ndarray, np.ndarray], share: float, bits: int, symmetric: bool) -> Grid:
    low, high = ends[0] * share, ends[1] * share
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale = _scale(np.maximum(-low, high) / top)
        # a weight and its negative round alike in 8 bits; 4 can't give a sixteenth away
        lowest = -top if bits == 8 else -top - 1
        return Grid(scale, np.zeros(scale.shape, np.int32), lowest, top)
    scale = _scale((high - low) / (2**bits - 1))
    zero = np.clip(np.rint(-low / scale), 0, 2**bits - 1)
    return Grid(scale, zero.astype(np.int32), 0, 2**bits - 1)


def _loss(blocks: np.ndarray, weight: np.ndarray, grid: Grid) -> np.ndarray:
    """float64[rows, groups]: the weighted squared error of rounding to nearest."""
    scale, zero = grid.scale[..., None].astype(np.float64), grid.zero_point[..., None]
    gap = (np.clip(np.rint(blocks / scale) + zero, grid.low, grid.high) - zero) * scale - blocks
    return np.asarray((weight * gap * gap).sum(axis=2))


def _merged(where: np.ndarray, one: Grid, other: Grid) -> Grid:
    scale = np.where(where, one.scale, other.scale)
    return Grid(scale, np.where(where, one.zero_point, other.zero_point), one.low, one.high)


def _scale(exact: np.ndarray) -> np.ndarray:
    scale = exact.astype(np.float32)
    return np.asarray(np.where(scale == 0, np.float32(1), np.maximum(scale, _SMALLEST_SCALE)))
