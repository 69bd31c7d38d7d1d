"""Samples into batches and back."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.samples import Sample
from deploy.artifacts.model import TensorSpec
from deploy.batches import batches, feeds_of, fixed_batch, groups, rows, whole_inputs


def spec(*shape: int | None) -> TensorSpec:
    return TensorSpec("x", np.dtype("f4"), shape)


@pytest.mark.parametrize(
    "specs, size",
    [
        ([spec(None, 3)], 1),
        ([spec(4, 3)], 4),
        ([spec(4, 3), spec(4, 7), spec()], 4),
        ([spec(None, 3), spec(4)], 1),  # the inputs don't share it
        ([spec()], 1),
        ([], 1),
    ],
)
def test_fixed_batch(specs: list[TensorSpec], size: int) -> None:
    assert fixed_batch(specs) == size


def test_groups_keep_the_order_and_the_rest() -> None:
    assert list(groups(iter(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(groups([], 3)) == []


def test_a_batch_that_is_not_full_repeats_its_last_sample() -> None:
    samples = [Sample(str(i), {"x": np.full((1, 2), i, "f4")}) for i in (1, 2)]
    assert feeds_of(samples, 4)["x"].tolist() == [[1, 1], [2, 2], [2, 2], [2, 2]]
    assert feeds_of(samples[:1], 1)["x"] is samples[0].feeds["x"]


def test_rows_are_one_sample_and_what_has_no_batch_axis_stays_whole() -> None:
    x = np.arange(8).reshape(4, 2)
    assert rows(x, 2, 4).tolist() == [[4, 5]]
    assert rows(x, 2, 1) is x
    assert rows(x, 2, 3) is x
    scalar = np.asarray(5)
    assert rows(scalar, 0, 4) is scalar


def test_a_setting_beside_batched_inputs_is_fed_once() -> None:
    x, rate = np.ones((1, 2), "f4"), np.asarray(16000)
    samples = [Sample(str(i), {"x": i * x, "rate": rate}) for i in (1, 2)]
    feeds = feeds_of(samples, 2)
    assert feeds["x"].tolist() == [[1, 1], [2, 2]]
    assert feeds["rate"].shape == () and int(feeds["rate"]) == 16000


def test_whole_inputs_have_no_batch_axis() -> None:
    def named(name: str, *shape: int | None) -> TensorSpec:
        return TensorSpec(name, np.dtype("f4"), shape)

    assert whole_inputs([named("x", None, 3), named("k"), named("w", 7, 3)]) == {"k", "w"}
    assert whole_inputs([named("x", 4, 3), named("y", 4)]) == set()


def test_batches_are_as_large_as_the_model_fixes() -> None:
    inputs = [spec(4, 3)]
    samples = [Sample(str(i), {"x": np.full((1, 3), i, "f4")}) for i in range(6)]
    assert [(len(group), size) for group, size in batches(samples, inputs)] == [(4, 4), (2, 4)]
    assert [(len(g), size) for g, size in batches(samples[:2], [spec(None, 3)])] == [(1, 1), (1, 1)]


def test_a_sample_with_all_of_the_first_axis_is_a_run_of_its_own() -> None:
    """A sequence-first network: [7, 1, 3] is no batch of seven, which only the data shows."""
    whole = [Sample(str(i), {"x": np.zeros((7, 1, 3), "f4")}) for i in range(2)]
    assert [(len(g), size) for g, size in batches(whole, [spec(7, 1, 3)])] == [(1, 1), (1, 1)]
