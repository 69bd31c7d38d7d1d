"""Minmax: exactly the extremes."""

from __future__ import annotations

import numpy as np

from calibrators.algorithms.minmax import Minmax
from calibrators.ranges import Range


def test_takes_every_value_outliers_included() -> None:
    calibrator = Minmax()
    calibrator.observe(np.array([[0.25, -1.5], [3.0, 2.0]], "f4"))
    calibrator.observe(np.array([1000.0], "f4"))
    assert calibrator.range() == Range(-1.5, 1000.0)


def test_does_not_widen_to_zero() -> None:
    # holding zero is for the integer form to do: see activation_params
    calibrator = Minmax()
    calibrator.observe(np.array([4.0, 2.0], "f4"))
    assert calibrator.range() == Range(2.0, 4.0)
