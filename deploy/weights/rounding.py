"""Weights rounded one input after the other, the rest moved to make up for what rounding lost.

    min over integers q of  tr((W - Wq) H (W - Wq)^T),   H = E[x x^T]

is the squared error of the layer's output. Rounding column i leaves an error that the columns not
yet rounded can take back: w_j -= (w_i - q_i) * U[i, j] / U[i, i], with U the upper Cholesky factor
of H^-1. It pays for 4-bit weights; 8 bits gain nothing reliable. Costs nothing on the device.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", algorithm 1, with the columns in the order of falling diag(H) and scales fixed before
(their "act-order" and "static groups").
"""

from __future__ import annotations

import numpy as np

from deploy.metrics import IDENTICAL_DB
from deploy.weights.grid import Grid

# columns rounded before the others are told: small products become one large one
_PANEL = 64
# added to the diagonal, as a share of its mean: their value
_DAMPING = 0.01


def gptq_round(
    rows: np.ndarray, hessian: np.ndarray, grid: Grid, *, damping: float = _DAMPING
) -> np.ndarray:
    """int32[rows, columns] on the grid, of less output error than the nearest integers.

    rows: float32[rows, columns], what multiplies x: y = rows @ x. hessian: float64[columns,
    columns], E[x x^T] or any multiple of it. The nearest integers where those are better (they can
    be, where the grid saturates) or where the inputs were all zero. ValueError when the hessian's
    size isn't the columns', or when it isn't finite.
    """
    columns = rows.shape[1]
    if hessian.shape != (columns, columns):
        raise ValueError(f"hessian {list(hessian.shape)} for {columns} columns")
    if not np.isfinite(hessian).all():
        raise ValueError("the hessian holds NaN or Inf")
    nearest = grid.nearest(rows)
    if not np.diag(hessian).any():
        return nearest
    order = np.argsort(-np.diag(hessian), kind="stable")
    factor = _factor(hessian[np.ix_(order, order)], damping)
    moved = _rounded(np.asarray(rows, np.float64)[:, order], factor, grid, order)
    found = np.empty_like(moved)
    found[:, order] = moved
    before, after = (output_error(rows, grid.values(q), hessian) for q in (nearest, found))
    return np.where((after < before)[:, None], found, nearest)


def output_error(rows: np.ndarray, stored: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """float64[rows]: E[(w x - w' x)^2] of every output."""
    gap = stored.astype(np.float64) - rows
    return np.asarray(np.einsum("rc,rc->r", gap @ hessian, gap))


def compensated(rows: np.ndarray, hessians: np.ndarray, grid: Grid) -> np.ndarray:
    """int32[rows, columns]: `gptq_round` with one matrix per group of rows, in their order, as the
    groups of a convolution have it."""
    parts = len(hessians)
    split = [
        gptq_round(r, hessian, Grid(s, z, grid.low, grid.high))
        for r, hessian, s, z in zip(
            np.split(rows, parts),
            hessians,
            np.split(grid.scale, parts),
            np.split(grid.zero_point, parts),
            strict=True,
        )
    ]
    return np.concatenate(split)


def output_db(rows: np.ndarray, stored: np.ndarray, hessians: np.ndarray) -> float:
    """SQNR of the layer's output on the samples."""
    lost, signal = 0.0, 0.0
    for r, s, hessian in zip(
        *(np.split(x, len(hessians)) for x in (rows, stored)), hessians, strict=True
    ):
        lost += output_error(r, s, hessian).sum()
        signal += output_error(r, np.zeros_like(r), hessian).sum()
    return decibels(signal, lost)


def decibels(signal: float, lost: float) -> float:
    """10 log10(signal / lost), at most what counts as identical."""
    return IDENTICAL_DB if lost <= 0 else float(10 * np.log10(max(signal, 1e-300) / lost))


def _factor(hessian: np.ndarray, damping: float) -> np.ndarray:
    """float64: the upper triangular U with H^-1 = U^T U."""
    damped = hessian + damping * np.diag(hessian).mean() * np.eye(len(hessian))
    # H = R R^T with R upper triangular is the Cholesky factor read backwards; then U = R^-1
    try:
        backwards = np.linalg.cholesky(damped[::-1, ::-1])
    except np.linalg.LinAlgError:
        raise ValueError("the hessian is no sum of x x^T: it isn't positive definite") from None
    return np.triu(np.linalg.inv(backwards[::-1, ::-1]))


def _rounded(rows: np.ndarray, factor: np.ndarray, grid: Grid, order: np.ndarray) -> np.ndarray:
    """int32[rows, columns] in that order; row i of `factor` says what column i asks of the rest."""
    columns = rows.shape[1]
    scale, zero = (
        np.broadcast_to(part, rows.shape)[:, order].T.astype(np.float64)
        for part in grid.per_column(columns)
    )
    left, found = np.array(rows.T, order="C"), np.empty(rows.T.shape, np.int32)
    for start in range(0, columns, _PANEL):
        end = min(start + _PANEL, columns)
        lost = np.empty((end - start, len(rows)))
        for i in range(start, end):
            steps = np.clip(np.rint(left[i] / scale[i]) + zero[i], grid.low, grid.high)
            found[i] = steps
            lost[i - start] = (left[i] - (steps - zero[i]) * scale[i]) / factor[i, i]
            left[i + 1 : end] -= np.outer(factor[i, i + 1 : end], lost[i - start])
        left[end:] -= factor[start:end, end:].T @ lost
    return found.T
