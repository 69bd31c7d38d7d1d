"""Which output is nearest to its bound."""

from __future__ import annotations

import numpy as np
import pytest

from deploy.ladder.losses import between, nearest, worst


def test_each_output_is_held_against_its_own_bound() -> None:
    """A box regression at 12 dB is fine where 12 was foretold; scores at 36 aren't, of 40."""
    found, least = {"boxes": 12.5, "scores": 36.0}, {"boxes": 7.0, "scores": 35.0}
    assert nearest(found, least) == (36.0, 35.0)
    assert nearest(found, {"boxes": 13.0, "scores": 35.0}) == (12.5, 13.0)


def test_without_bounds_nothing_is_asked() -> None:
    assert nearest({"a": 3.0, "b": 2.0}, {}) == (2.0, -200.0)


def test_outputs_are_compared_sample_by_sample() -> None:
    right = [{"a": np.ones(4), "text": np.array(["x"])}, {"a": np.ones(4)}]
    got = [{"a": np.ones(4)}, {"a": np.full(4, 1.1)}]
    found = between(right, got)
    assert list(found) == ["a"]
    assert worst(found) == pytest.approx(10 * np.log10(8 / 0.04), abs=1e-6)
