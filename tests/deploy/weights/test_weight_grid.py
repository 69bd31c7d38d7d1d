"""Scales and zero points of weights, per row and per group."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.ranges import weight_params
from deploy.weights.grid import fit_grid, noise


def rows_of(rows: int = 6, columns: int = 64, seed: int = 3) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, columns)) + 0.2).astype(np.float32)


def loss(rows: np.ndarray, **form: object) -> float:
    grid = fit_grid(rows, **form)  # type: ignore[arg-type]
    return noise(rows, grid.values(grid.nearest(rows)))


def test_int8_per_row_is_what_int8_layers_get() -> None:
    rows = rows_of()
    grid, params = fit_grid(rows, 8), weight_params(rows, 0)
    np.testing.assert_array_equal(grid.scale[:, 0], params.scale)
    np.testing.assert_array_equal(grid.nearest(rows), params.quantize(rows))
    np.testing.assert_array_equal(
        grid.values(grid.nearest(rows)), params.dequantize(params.quantize(rows))
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_every_integer_of_the_type_and_no_other(bits: int) -> None:
    rows = rows_of(columns=4096)
    symmetric, shifted = fit_grid(rows, bits), fit_grid(rows, bits, symmetric=False)
    top = 2 ** (bits - 1)
    assert (symmetric.low, symmetric.high) == (-top + (bits == 8), top - 1)
    assert (shifted.low, shifted.high) == (0, 2 * top - 1)
    assert not symmetric.zero_point.any()
    for grid in (symmetric, shifted):
        found = grid.nearest(rows)
        assert grid.low <= found.min() and found.max() <= grid.high
    assert shifted.nearest(rows).min() == 0
    assert shifted.nearest(rows).max() == 2 * top - 1
    assert np.abs(symmetric.nearest(rows)).max() == top - (bits == 8)


def test_smaller_groups_and_zero_points_lose_less() -> None:
    rows = rows_of() ** 3
    per_row = loss(rows, bits=4)
    assert loss(rows, bits=4, group=16) < 0.5 * per_row
    assert loss(np.abs(rows), bits=4, symmetric=False) < 0.6 * loss(np.abs(rows), bits=4)


def test_a_group_has_its_own_scale() -> None:
    rows = np.concatenate([rows_of(columns=32), 1e-3 * rows_of(columns=32, seed=4)], axis=1)
    grid = fit_grid(rows, 4, group=32)
    assert grid.scale.shape == (6, 2)
    assert (grid.scale[:, 1] < 0.01 * grid.scale[:, 0]).all()
    small = rows[:, 32:]
    assert noise(small, grid.values(grid.nearest(rows))[:, 32:]) < 0.02 * noise(small, 0 * small)


def test_few_integers_clip_an_outlier() -> None:
    rows = rows_of(rows=1, columns=512)
    rows[0, 7] = 6.0
    grid = fit_grid(rows, 4)
    assert float(grid.scale[0, 0]) * 7 < 6.0
    whole = fit_grid(rows, 8).scale * np.float32(127 / 7)
    clumsy = np.clip(np.rint(rows / whole), -8, 7) * whole
    assert loss(rows, bits=4) < 0.9 * noise(rows, clumsy)


def test_important_columns_lose_less() -> None:
    rows = rows_of(columns=256)
    rows[:, 0] = 5.0
    importance = np.ones(256)
    importance[0] = 1e6
    plain, aware = fit_grid(rows, 4), fit_grid(rows, 4, importance=importance)
    gap = [np.abs(g.values(g.nearest(rows))[:, 0] - 5.0).max() for g in (plain, aware)]
    assert gap[1] < 0.2 * gap[0]


def test_rows_of_zeros_stay_zero() -> None:
    rows = np.zeros((2, 8), np.float32)
    for symmetric in (True, False):
        grid = fit_grid(rows, 4, symmetric=symmetric, group=4)
        assert (grid.scale == 1).all()
        np.testing.assert_array_equal(grid.values(grid.nearest(rows)), rows)


def test_a_group_has_to_divide_the_row() -> None:
    with pytest.raises(ValueError, match="64 columns don't split into groups of 48"):
        fit_grid(rows_of(), 4, group=48)
