"""The order in which candidates are called; nothing here measures time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from tiny_models import FakeEngine

from deploy import bench
from deploy.bench import latency, throughput

FEEDS = {"x": np.zeros((2, 3), "f4")}
BOTH = {"a": FEEDS, "b": FEEDS}


class Timed(FakeEngine):
    """gpu_ms: what a clock of its own says of every run."""

    gpu_ms: float | None = None

    def _timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        call = self._prepare(feeds)

        def timed() -> float | None:
            call()
            return self.gpu_ms

        return timed


def engines(log: list[str]) -> dict[str, Timed]:
    return {
        name: Timed(lambda x: {"y": x}, {"y": (None, 3)}, log=log, name=name) for name in ("a", "b")
    }


class Clock:
    """Every look costs one second."""

    def __init__(self, step: float = 1.0) -> None:
        self.ticks = itertools.count()
        self.step = step

    def perf_counter(self) -> float:
        return self.step * next(self.ticks)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(bench, "time", fake)
    return fake


def test_rounds_call_every_candidate_twice_in_turn() -> None:
    log: list[str] = []
    found = latency(engines(log), BOTH, rounds=3, budget_s=1e9)
    assert log == ["prepare a", "prepare b", *"aaaaa", *"bbbbb", *("aabb" * 3)]
    assert list(found) == ["a", "b"]
    assert found["a"].rounds == found["b"].rounds == 3


def test_figures_are_milliseconds_per_timed_call() -> None:
    found = latency(engines([]), BOTH, rounds=3, budget_s=1e9)["a"]
    # one tick of the fake clock between its two looks around the second call
    assert (found.median_ms, found.p90_ms, found.p99_ms) == (1000.0, 1000.0, 1000.0)


@pytest.mark.parametrize("both", [True, False])
def test_the_devices_own_clock_where_all_have_it(both: bool) -> None:
    made = engines([])
    for name in made if both else ["a"]:
        made[name].gpu_ms = 0.25
    found = latency(made, BOTH, rounds=3, budget_s=1e9)
    assert {row.of_device for row in found.values()} == {both}
    assert found["a"].median_ms == (0.25 if both else 1000.0)


def test_the_budget_ends_it_but_not_before_twenty_rounds() -> None:
    log: list[str] = []
    assert latency(engines(log), BOTH, rounds=500, budget_s=1.0)["a"].rounds == 20
    # each round looks four times, from the 20th on once more
    assert latency(engines(log), BOTH, rounds=500, budget_s=150.0)["a"].rounds == 34


def test_throughput_takes_turns() -> None:
    log: list[str] = []
    found = throughput(engines(log), BOTH, rounds=2, slice_s=0.3)
    calls = [name for name, _ in itertools.groupby(e for e in log if e.startswith("prepare"))]
    # a warm-up and an estimate each, then the rounds in turn
    assert [c[-1] for c in calls] == ["a", "b", "a", "b", "a", "b"]
    counts = [
        (name, len(list(run))) for name, run in itertools.groupby(e for e in log if len(e) == 1)
    ]
    # 20 calls took one fake second: a slice of .3 s is 6, and never below 20
    assert counts == [("a", 25), ("b", 25), ("a", 20), ("b", 20), ("a", 20), ("b", 20)]
    assert found["a"].rounds == 2


def test_throughput_counts_samples_not_calls(clock: Clock) -> None:
    found = throughput(engines([]), BOTH, rounds=3, slice_s=2.0)["b"]
    # 40 calls of two samples in one fake second
    assert found.median_per_s == 80.0
