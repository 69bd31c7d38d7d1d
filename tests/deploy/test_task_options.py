"""The error of a drop against its formula, and what tasks have in common."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.task_options import jackknifed, sigmoid


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 2, 17)
    error = jackknifed(values.tolist(), lambda part: float(np.mean(part)))
    assert error == pytest.approx(values.std(ddof=1) / np.sqrt(17))


def test_more_samples_than_groups_go_into_groups_in_turn() -> None:
    heard: list[int] = []

    def drop(part: list[int]) -> float:
        heard.append(len(part))
        return float(np.mean(part))

    values = np.random.default_rng(1).normal(0, 1, 400)
    error = jackknifed(values.tolist(), drop)
    assert heard == [380] * 20
    assert 0.6 < error / (values.std() / 20) < 1.5


def test_one_sample_tells_no_error() -> None:
    assert jackknifed([4.0], lambda part: part[0]) == 0.0


def test_sigmoid_of_anything() -> None:
    x = np.array([-1e4, -1.0, 0.0, 1.0, 1e4])
    assert sigmoid(x) == pytest.approx([0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1])
