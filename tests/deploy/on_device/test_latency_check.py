from __future__ import annotations

import numpy as np
import pytest

from deploy.on_device.latency_check import latency_row, moved_clocks, percentile, time_calls


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
    seconds = time_calls(clock.work, 50, clock=clock)
    assert seconds == pytest.approx([0.002] * 50)
    # a second of warming up comes first
    assert clock.calls in (550, 551)


def test_a_slow_engine_is_warmed_up_by_calls_and_cut_short() -> None:
    clock = Clock(1.0)
    assert len(time_calls(clock.work, 500, clock=clock, most_seconds=5)) == 20
    assert clock.calls == 40


def test_percentiles_are_numpys() -> None:
    values = sorted(np.random.default_rng(1).exponential(size=37).tolist())
    for percent in (0, 50, 90, 100):
        assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


def test_the_reports_row() -> None:
    row = latency_row([0.004, 0.001, 0.002], "wall time", batch=8)
    assert row == {
        "median_ms": pytest.approx(2.0),
        "p90_ms": pytest.approx(3.6),
        "min_ms": pytest.approx(1.0),
        "runs": 3,
        "throughput_per_s": pytest.approx(4000.0),
        "how": "wall time",
    }


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
