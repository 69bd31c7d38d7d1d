"""Seeded inputs in place of data."""

from __future__ import annotations

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.noise import FREE_SIZE, free_dimensions, seeded_feeds

IMAGE = TensorSpec("x", np.dtype("f4"), (None, 3, None, 7), ("N", "", "H", ""))
STATE = TensorSpec("s", np.dtype("f4"), (2, None, 5), ("", "N", ""))
IDS = TensorSpec("ids", np.dtype("i8"), (None, 4), ("N", ""))


def test_free_axes_get_a_size_and_the_batch_one() -> None:
    feeds = seeded_feeds([IMAGE, STATE, IDS])
    assert feeds["x"].shape == (1, 3, FREE_SIZE, 7)
    assert feeds["s"].shape == (2, 1, 5), "the batch's name on another axis is the batch too"
    assert feeds["ids"].dtype == np.int64 and (feeds["ids"] == 1).all()


def test_the_same_number_gives_the_same_values() -> None:
    first, again, other = (seeded_feeds([IMAGE], number)["x"] for number in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_made_up_sizes_are_known() -> None:
    assert free_dimensions([IMAGE])
    assert not free_dimensions([IDS])
