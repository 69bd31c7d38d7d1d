"""Calibration samples beside those that judge: prepared alike, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from deploy.audit.moments import Moments, joined, sample_moments
from deploy.audit.unlike_judged import unlike_judged
from deploy.data import open_data
from deploy.load import load, read
from deploy.recipe import Recipe
from tests.deploy.audit.test_audit import ASSETS, RIGHT

MEAN = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


def pictures(seed: int, count: int = 24) -> list[np.ndarray]:
    """0..1, each of its own brightness and contrast."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        x = random.normal(random.uniform(0.3, 0.6), random.uniform(0.15, 0.3), (1, 3, 9, 13))
        found.append(np.clip(x, 0, 1).astype(np.float32))
    return found


def of(arrays: Sequence[np.ndarray], name: str = "x") -> dict[str, Moments]:
    return joined(sample_moments({name: x}, 1) for x in arrays)


def normed(x: np.ndarray) -> np.ndarray:
    return (x - MEAN) / STD


class TestPictures:
    def test_prepared_alike(self) -> None:
        assert unlike_judged(of(pictures(1)), of(pictures(2)), "x") is None

    @pytest.mark.parametrize(
        "change", [normed, lambda x: 2 * x - 1, lambda x: x - MEAN, lambda x: x / 0.25]
    )
    def test_another_norm(self, change: Any) -> None:
        ours, theirs = of(pictures(1)), of([change(x) for x in pictures(2)])
        for found in (unlike_judged(ours, theirs, "x"), unlike_judged(theirs, ours, "x")):
            assert found is not None and found.severity == "warn"
            assert "input 'x', channel " in found.observed
            assert "--scale, --mean and --std are applied to --data and" in found.advice

    @pytest.mark.parametrize("factor", [255, 1 / 255])
    def test_another_scale(self, factor: float) -> None:
        found = unlike_judged(of(pictures(1)), of([x * factor for x in pictures(2)]), "x")
        assert found is not None
        assert "pixels of 0..255 beside 0..1: check --scale" in found.advice

    def test_too_few_to_tell(self) -> None:
        ours, theirs = pictures(1), [normed(x) for x in pictures(2)]
        assert unlike_judged(of(ours[:3]), of(theirs), "x") is None
        assert unlike_judged(of(ours), of(theirs[:3]), "x") is None

    def test_what_may_be_chance(self) -> None:
        """Few samples that differ much among themselves, as two blinks of a dark room."""
        ours = [np.full((1, 3, 2, 2), v) + np.eye(2) * 0.01 for v in (0.0, 0.1, 0.9, 0.1)]
        theirs = [np.full((1, 3, 2, 2), v) + np.eye(2) * 0.01 for v in (1.0, 0.9, 0.8, 1.0)]
        assert unlike_judged(of(ours), of(theirs), "x") is None


class TestOthers:
    def test_loudness_may_differ(self) -> None:
        random = np.random.default_rng(4)
        ours = [random.normal(0, 0.12, (1, 512)) for _ in range(64)]
        theirs = [random.normal(0, 0.26, (1, 512)) for _ in range(32)]
        assert unlike_judged(of(ours), of(theirs)) is None
        assert unlike_judged(of(ours), of(theirs), "x") is not None

    def test_the_worst_of_several_inputs_is_named(self) -> None:
        random = np.random.default_rng(5)

        def both(factor: float) -> dict[str, Moments]:
            rows = [{n: random.normal(size=(1, 32)) for n in "ab"} for _ in range(16)]
            return joined(sample_moments({**row, "b": factor * row["b"]}, 1) for row in rows)

        found = unlike_judged(both(1), both(40))
        assert found is not None and found.observed.startswith("input 'b': ")

    def test_constants_and_ids_are_not_compared(self) -> None:
        zeros, noise = [np.zeros((1, 8))] * 8, [np.ones((1, 8)) * i for i in range(8)]
        assert unlike_judged(of(zeros), of(noise)) is None
        assert sample_moments({"ids": np.arange(9), "none": np.zeros((1, 0))}, 1) == {}

    def test_other_numbers_of_channels(self) -> None:
        gray = [x[:, :1] for x in pictures(1)]
        assert unlike_judged(of(gray), of([normed(x) for x in pictures(2)])) is None
        assert of([*gray, *pictures(2)]) == {}

    def test_nothing_to_compare_with(self) -> None:
        assert unlike_judged(of(pictures(1)), {}) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("few", [8, 300])
def test_splits_of_one_set_are_alike(name: str, few: int) -> None:
    path = ASSETS / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip("shared/assets is not beside the repository")
    keys = dict(RIGHT[name])
    split = str(keys["data"]).replace("calib_500", "test_400").replace("calib_200", "test_300")
    keys |= {"data": str(ASSETS / "data" / keys["data"])}
    keys |= {"eval_data": str(ASSETS / "data" / split)}
    loaded = load(read(path), {})
    data = open_data(Recipe.read(None, {"samples": 300, **keys}), loaded)
    assert data.calibration is not None
    ours, theirs = (
        joined(sample_moments(s.feeds, 1) for s in samples)
        for samples in (data.calibration.first(few), data.evaluation.spread(128))
    )
    assert unlike_judged(ours, theirs, "input") is None
