"""What every calibrator promises; finds the calibrators by their files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import calibrators.algorithms
from calibrators.ranges import Range

NAMES = sorted(
    path.stem
    for path in Path(next(iter(calibrators.algorithms.__path__))).glob("*.py")
    if not path.stem.startswith("_")
)
Make = Callable[[], Any]

# derandomized: the same examples every time
PROPERTY = settings(derandomize=True, deadline=None, max_examples=30, database=None)
TENSORS = hnp.arrays(
    np.float32,
    st.integers(1, 40),
    elements=st.floats(-float(2.0**100), float(2.0**100), width=32)
    | st.floats(-1.0, 1.0, width=32)
    | st.sampled_from([0.0, -0.0]),
)


@pytest.fixture(params=NAMES)
def make(request: pytest.FixtureRequest) -> Make:
    return maker(str(request.param))


def maker(name: str) -> Make:
    public = "".join(part.capitalize() for part in name.split("_"))
    found: Make = getattr(importlib.import_module(f"calibrators.algorithms.{name}"), public)
    return found


def range_of(make: Make, arrays: Sequence[np.ndarray]) -> Range:
    calibrator = make()
    for x in arrays:
        calibrator.observe(x)
    found = calibrator.range()
    assert isinstance(found, Range)
    return found


def per_sample(make: Make) -> bool:
    """Whether one call of observe means one sample, so that cutting differently means something."""
    return bool(getattr(make, "per_sample", False))


def body(size: int = 3000, outlier: float = 40.0) -> np.ndarray:
    """Normal values with one outlier: what clipping calibrators cut."""
    x = np.random.default_rng(17).standard_normal(size).astype("f4")
    x[size // 3] = outlier
    return x


def test_the_known_ones_are_found() -> None:
    assert {"entropy", "minmax"} <= set(NAMES)


def test_says_what_it_is(make: Make) -> None:
    assert make.__doc__ and make().observe.__doc__ and make().range.__doc__


@pytest.mark.parametrize("name", NAMES)
@PROPERTY
@given(x=TENSORS, data=st.data())
def test_order_batches_and_shards_change_nothing(
    name: str, x: np.ndarray, data: st.DataObject
) -> None:
    make = maker(name)
    shuffled = x[data.draw(st.permutations(range(x.size)))]
    cuts = sorted(data.draw(st.lists(st.integers(0, x.size), max_size=5)))
    batches = np.split(shuffled, cuts)
    expected = range_of(make, batches if per_sample(make) else [x])
    for samples in (batches, batches[::-1]):
        assert range_of(make, samples) == expected
    for count in (1, 2, 5):
        shards = [make() for _ in range(count)]
        for i, batch in enumerate(batches):
            shards[i % count].observe(batch)
        order = data.draw(st.permutations(range(count)))
        total = make()
        for i in order:
            total.merge(shards[i])
        assert total.range() == expected
        assert repr(total.range()) == repr(expected)  # -0.0 and 0.0 too


@pytest.mark.parametrize("name", NAMES)
@PROPERTY
@given(x=TENSORS)
def test_lies_within_what_was_seen(name: str, x: np.ndarray) -> None:
    found = range_of(maker(name), [x])
    assert float(x.min()) <= found.low <= found.high <= float(x.max())


def test_large_tensors_too(make: Make) -> None:
    x = body()
    if per_sample(make):
        parts = np.array_split(x, 7)
        assert range_of(make, parts) == range_of(make, parts[::-1])
        return
    expected = range_of(make, [x.reshape(50, 6, 10)])
    ordered = x[np.argsort(np.abs(x))]
    for arrays in (
        [ordered],
        [ordered[::-1]],
        np.array_split(ordered, 7),
        [x[i::4] for i in range(4)],
    ):
        assert range_of(make, arrays) == expected


def test_merging_is_associative(make: Make) -> None:
    def of(x: np.ndarray) -> Any:
        calibrator = make()
        calibrator.observe(x)
        return calibrator

    a, b, c = np.split(body(), [100, 2000])
    left, right = of(a), of(b)
    left.merge(of(b))
    left.merge(of(c))
    right.merge(of(c))
    outer = of(a)
    outer.merge(right)
    assert left.range() == outer.range() == range_of(make, [a, b, c])


def test_asking_changes_nothing(make: Make) -> None:
    calibrator = make()
    calibrator.observe(body()[:500])
    assert calibrator.range() == calibrator.range()
    calibrator.observe(body()[500:])
    assert calibrator.range() == range_of(make, [body()[:500], body()[500:]])


def test_the_observed_array_is_left_alone(make: Make) -> None:
    x = body()
    x.flags.writeable = False
    assert range_of(make, [x, x]).high <= 40.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_refuses_nan_and_infinity(make: Make, bad: float, dtype: str) -> None:
    calibrator = make()
    calibrator.observe(np.array([1.0, 2.0], dtype))
    before = calibrator.range()
    with pytest.raises(ValueError, match="holds NaN or Inf"):
        calibrator.observe(np.array([[1.0], [bad], [9.0]], dtype))
    assert calibrator.range() == before


def test_refuses_to_answer_when_nothing_was_observed(make: Make) -> None:
    calibrator = make()
    with pytest.raises(ValueError, match="nothing was observed"):
        calibrator.range()
    calibrator.observe(np.zeros((0, 3), "f4"))
    calibrator.merge(make())
    with pytest.raises(ValueError, match="nothing was observed"):
        calibrator.range()


def test_zeros(make: Make) -> None:
    assert range_of(make, [np.zeros((2, 3), "f4")]) == Range(0.0, 0.0)


@pytest.mark.parametrize("value", [3.5, -3.5, 1e-30, -1e30])
def test_one_element(make: Make, value: float) -> None:
    x = np.array(value, "f4")
    assert range_of(make, [x]) == Range(float(x), float(x))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_float_types_give_the_same(make: Make, dtype: str) -> None:
    x = body().astype("f2")  # exact in all three
    assert range_of(make, [x.astype(dtype)]) == range_of(make, [x])


def test_huge_dynamic_range(make: Make) -> None:
    x = np.array([1e-30, -1e-30, 1.0, 1e30, -1e20], "f4")
    found = range_of(make, [x])
    if not per_sample(make):
        assert found == range_of(make, [x[i : i + 1] for i in (3, 0, 4, 2, 1)])
    assert float(x.min()) <= found.low <= 0.0 < found.high <= float(x.max())
