from __future__ import annotations

import numpy as np
import pytest

from deploy.on_device.latency_check import (
    Timings,
    latency_row,
    moved_clocks,
    percentile,
    time_calls,
)


class Clock:
    """Time that moves only when something runs."""

    def __init__(self, step_s: float) -> None:
        self.now, self.step_s, self.calls = 0.0, step_s, 0

    def __call__(self) -> float:
        return self.now

    def work(self) -> None:
        self.calls += 1
        self.now += self.step_s


def test_times_after_warming_up() -> None:
    clock = Clock(0.002)
    (timings,) = time_calls([clock.work], 50, clock=clock)
    assert timings.wall_s == pytest.approx([0.002] * 50)
    assert timings.gpu_ms == []
    # a second of warming up comes first
    assert clock.calls in (550, 551)


def test_a_slow_engine_is_warmed_up_by_calls_and_cut_short() -> None:
    clock = Clock(1.0)
    (timings,) = time_calls([clock.work], 500, clock=clock, most_seconds=5)
    assert len(timings.wall_s) == 20
    assert clock.calls == 40


def test_calls_take_turns_and_tell_the_gpus_time() -> None:
    clock = Clock(0.01)
    order: list[str] = []

    def call(name: str, gpu_ms: float) -> float:
        clock.work()
        order.append(name)
        return gpu_ms

    calls = [lambda: call("a", 1.5), lambda: call("b", 2.5)]
    first, second = time_calls(calls, 4, clock=clock)
    assert order[-8:] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert (first.gpu_ms, second.gpu_ms) == ([1.5] * 4, [2.5] * 4)
    assert first.wall_s == second.wall_s == pytest.approx([0.01] * 4)


def test_percentiles_are_numpys() -> None:
    values = sorted(np.random.default_rng(1).exponential(size=37).tolist())
    for percent in (0, 50, 90, 100):
        assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_the_reports_row() -> None:
    row = latency_row(Timings([0.004, 0.001, 0.002], [1.5, 0.5]), "wall time", batch=8)
    assert row == {
        "median_ms": pytest.approx(2.0),
        "p90_ms": pytest.approx(3.6),
        "min_ms": pytest.approx(1.0),
        "gpu_median_ms": pytest.approx(1.0),
        "runs": 3,
        "throughput_per_s": pytest.approx(4000.0),
        "how": "wall time",
    }
    assert latency_row(Timings([0.004], []), "wall time")["gpu_median_ms"] is None


def test_clocks_that_moved() -> None:
    before = {
        "devfreq": {"gpu": {"cur_freq": 1377000000}, "emc": {"cur_freq": 2133000000}},
        "nvidia_smi": {"clocks.sm": 1980, "clocks.mem": "[N/A]"},
    }
    after = {
        "devfreq": {"gpu": {"cur_freq": 905000000}, "emc": {"cur_freq": 2130000000}},
        "nvidia_smi": {"clocks.sm": 1980},
    }
    assert moved_clocks(before, after) == ["gpu: 1377 -> 905 MHz"]
    assert moved_clocks({}, after) == []
