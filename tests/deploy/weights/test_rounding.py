"""Error-compensating rounding: less output error than the nearest integers, on the same grid."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.weights.grid import Grid, fit_grid
from deploy.weights.rounding import gptq_round, output_error


def correlated(columns: int, samples: int = 400, seed: int = 1) -> np.ndarray:
    """float64[samples, columns]: a few directions and a little noise, columns of unequal size."""
    random = np.random.default_rng(seed)
    few = random.standard_normal((samples, columns // 4)) @ random.standard_normal(
        (columns // 4, columns)
    )
    sizes = np.linspace(0.2, 2.0, columns)
    return (few + 0.3 * random.standard_normal((samples, columns))) * sizes


def weights(rows: int, columns: int, seed: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (0.05 * random.standard_normal((rows, columns)) + 0.002).astype(np.float32)


def true_error(x: np.ndarray, rows: np.ndarray, stored: np.ndarray) -> float:
    """Sum of (x W - x Wq)^2, computed from the samples themselves."""
    return float(((x @ (stored.astype(np.float64) - rows).T) ** 2).sum())


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [None, 16])
@pytest.mark.parametrize(("bits", "gain"), [(4, 0.5), (8, 0.5)])
def test_output_error_is_far_below_that_of_the_nearest(
    bits: int, gain: float, group: int | None, symmetric: bool
) -> None:
    x, rows = correlated(96), weights(24, 96)
    grid = fit_grid(rows, bits, symmetric=symmetric, group=group)
    found = gptq_round(rows, x.T @ x, grid)
    assert found.dtype == np.int32 and found.shape == rows.shape
    assert grid.low <= found.min() and found.max() <= grid.high
    nearest = true_error(x, rows, grid.values(grid.nearest(rows)))
    assert true_error(x, rows, grid.values(found)) < gain * nearest


def test_it_generalizes_to_other_samples_of_the_same_kind() -> None:
    x, rows = correlated(64, samples=1200), weights(16, 64)
    seen, unseen = x[:600], x[600:]
    grid = fit_grid(rows, 4, group=32)
    found = gptq_round(rows, seen.T @ seen, grid)
    nearest = true_error(unseen, rows, grid.values(grid.nearest(rows)))
    assert true_error(unseen, rows, grid.values(found)) < 0.6 * nearest


def test_inputs_without_correlation_leave_the_nearest() -> None:
    rows = weights(8, 32)
    grid = fit_grid(rows, 4)
    np.testing.assert_array_equal(gptq_round(rows, np.eye(32), grid), grid.nearest(rows))


def test_the_hessian_may_be_any_multiple() -> None:
    x, rows = correlated(48), weights(8, 48)
    grid = fit_grid(rows, 4)
    hessian = x.T @ x
    np.testing.assert_array_equal(
        gptq_round(rows, hessian, grid), gptq_round(rows, hessian * 2.0**-9, grid)
    )


def test_more_columns_than_a_panel_agree_with_one_column_at_a_time() -> None:
    """Against the paper's algorithm written down as it stands, with the inverse made explicitly."""
    x, rows = correlated(150, samples=900), weights(5, 150)
    grid = fit_grid(rows, 4)
    hessian = x.T @ x
    order = np.argsort(-np.diag(hessian), kind="stable")
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(150)
    inverse = np.linalg.inv(damped[np.ix_(order, order)])
    left, expected = rows.astype(np.float64)[:, order], np.empty((5, 150), int)
    scale = grid.scale[:, 0].astype(np.float64)
    for i in range(150):
        steps = np.clip(np.rint(left[:, i] / scale), grid.low, grid.high)
        expected[:, order[i]] = steps
        lost = (left[:, i] - steps * scale) / inverse[i, i]
        left -= np.outer(lost, inverse[i])
        inverse -= np.outer(inverse[:, i], inverse[i]) / inverse[i, i]
    np.testing.assert_array_equal(gptq_round(rows, hessian, grid), expected)


def test_inputs_that_were_always_zero_leave_the_nearest() -> None:
    rows = weights(4, 16)
    grid = fit_grid(rows, 4)
    np.testing.assert_array_equal(gptq_round(rows, np.zeros((16, 16)), grid), grid.nearest(rows))


def test_a_column_that_was_always_zero_changes_nothing_else() -> None:
    x, rows = correlated(32), weights(6, 32)
    x[:, 5] = 0
    grid = fit_grid(rows, 4)
    found = gptq_round(rows, x.T @ x, grid)
    nearest = grid.nearest(rows)
    np.testing.assert_array_equal(found[:, 5], nearest[:, 5])
    assert (found != nearest).any()


def test_never_worse_than_the_nearest_in_any_row() -> None:
    # a grid far too small saturates: what one column can't hold, the next can't make up for
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 2)) @ random.standard_normal((2, 6))
    x += 0.05 * random.standard_normal((50, 6))
    rows = random.standard_normal((8, 6)).astype(np.float32)
    whole = fit_grid(rows, 4)
    grid = Grid(whole.scale * np.float32(0.3), whole.zero_point, whole.low, whole.high)
    hessian = x.T @ x
    found = gptq_round(rows, hessian, grid)
    before = output_error(rows, grid.values(grid.nearest(rows)), hessian)
    after = output_error(rows, grid.values(found), hessian)
    assert (after <= before).all()
    assert (after == before).any() and (after < before).any()


def test_output_error_is_that_of_the_samples() -> None:
    x, rows = correlated(20), weights(3, 20)
    stored = np.round(rows, 2)
    errors = output_error(rows, stored, x.T @ x)
    assert errors.shape == (3,)
    assert errors.sum() == pytest.approx(true_error(x, rows, stored), rel=1e-9)


@pytest.mark.parametrize(
    ("hessian", "reason"),
    [
        (np.eye(5), r"hessian \[5, 5\] for 6 columns"),
        (np.full((6, 6), np.nan), "NaN or Inf"),
        (np.diag([1.0, 1, 1, 1, 1, -9]), "isn't positive definite"),
    ],
)
def test_a_wrong_hessian_is_named(hessian: np.ndarray, reason: str) -> None:
    rows = weights(2, 6)
    with pytest.raises(ValueError, match=reason):
        gptq_round(rows, hessian, fit_grid(rows, 4))
