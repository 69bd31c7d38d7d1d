"""Inputs beyond what any usual preparation gives."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.audit.absurd_values import absurd_values
from deploy.audit.moments import joined, sample_moments

RANDOM = np.random.default_rng(3)


def found_in(scale: float, **others: np.ndarray) -> str:
    rows = [{"x": scale * RANDOM.normal(size=(1, 3, 5, 7)), **others} for _ in range(6)]
    finding = absurd_values(joined(sample_moments(row, 1) for row in rows))
    return finding.line() if finding is not None else ""


@pytest.mark.parametrize("scale", [1e7, 1e30])
def test_beyond_anything_usual(scale: float) -> None:
    assert f"input 'x' holds values of about {scale:.0e}" in found_in(scale)
    assert "check --scale and --std" in found_in(scale)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 255.0, 32768.0])
def test_usual_values(scale: float) -> None:
    assert found_in(scale) == ""


def test_a_mask_of_two_values_is_meant() -> None:
    mask = np.where(np.arange(12) < 7, 0, np.finfo(np.float32).min).astype(np.float32)[None]
    assert found_in(1.0, mask=mask) == ""
    assert "input 'mask'" in found_in(1.0, mask=mask * np.linspace(0.3, 1, 12, dtype=np.float32))


def test_nothing_fed_that_counts() -> None:
    assert absurd_values({}) is None
