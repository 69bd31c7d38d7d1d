"""Latency and throughput of engines, the candidates always interleaved in one run.

A shared machine drifts by more than what two engines differ: only figures from the same rounds
can be compared, as ratios, and medians are what to quote.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploy.artifacts.engine import Engine
from deploy.on_device.latency_check import Timings

_WARM_UP = 5
_FEWEST_ROUNDS = 20
_NOISE = 0.03


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call, one call at a time. of_device: by the device's own clock."""

    median_ms: float
    p90_ms: float
    p99_ms: float
    rounds: int
    of_device: bool = False


@dataclass(frozen=True)
class Comparison:
    """The fastest other candidate, and how many times as fast as it the own engine is."""

    other: str
    times: float

    @property
    def tie(self) -> bool:
        """Whether the two can't be told apart: one model compiled twice differs by as much."""
        return abs(self.times - 1) < _NOISE

    def words(self, own: str) -> str:
        """A sentence when the own engine isn't clearly the faster one; else ""."""
        ratio = f"{self.times:.2f}x"
        if self.tie:
            return f"{own} is as fast as {self.other} here ({ratio}, within the noise)"
        return f"{own} is slower than {self.other} here ({ratio})" if self.times < 1 else ""


def compared(medians_ms: Mapping[str, float], own: str) -> Comparison | None:
    """The own engine against the fastest other one; None when it is alone."""
    others = {name: ms for name, ms in medians_ms.items() if name != own}
    if own not in medians_ms or not others:
        return None
    best = min(others, key=lambda name: (others[name], name))
    return Comparison(best, others[best] / medians_ms[own])


@dataclass(frozen=True)
class Throughput:
    """Samples per second with as many calls in flight as the engine has streams."""

    median_per_s: float
    rounds: int


def latency(
    engines: Mapping[str, Engine],
    feeds: Mapping[str, Mapping[str, np.ndarray]],
    *,
    rounds: int = 200,
    budget_s: float = 4.0,
) -> dict[str, Latency]:
    """Per candidate, over `rounds` rounds or until `budget_s` is spent (20 rounds at least).

    Each round calls every candidate twice and times the second call, so that each is measured
    with its own data in the caches, not the previous candidate's. A GPU's own clock is taken where
    every candidate has it, as where they raced: the host's has Python's calls in it.
    """
    calls = {name: engine.timed(feeds[name]) for name, engine in engines.items()}
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    times = {name: Timings([], []) for name in calls}
    end = time.perf_counter() + budget_s
    for done in range(rounds):
        if done >= _FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            of_device = call()
            times[name].wall_s.append(time.perf_counter() - start)
            if of_device is not None:
                times[name].gpu_ms.append(of_device)
    told = all(seen.gpu_ms for seen in times.values())
    return {name: _latency(seen, of_device=told) for name, seen in times.items()}


def throughput(
    engines: Mapping[str, Engine],
    feeds: Mapping[str, Mapping[str, np.ndarray]],
    *,
    rounds: int = 7,
    slice_s: float = 0.3,
) -> dict[str, Throughput]:
    """Samples per second: `rounds` slices of about `slice_s` each, the candidates in turn."""
    runs = {}
    for name, engine in engines.items():
        engine.run_many(feeds[name], _WARM_UP)
        start = time.perf_counter()
        engine.run_many(feeds[name], 20)
        each = (time.perf_counter() - start) / 20
        runs[name] = max(20, int(slice_s / each))
    rates: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run_many(feeds[name], runs[name])
            batch = next(iter(feeds[name].values())).shape[:1]
            samples = runs[name] * (batch[0] if batch else 1)
            rates[name].append(samples / (time.perf_counter() - start))
    return {name: Throughput(float(np.median(seen)), rounds) for name, seen in rates.items()}


def _latency(seen: Timings, *, of_device: bool) -> Latency:
    ms = np.asarray(seen.gpu_ms) if of_device else np.asarray(seen.wall_s) * 1e3
    median, p90, p99 = np.percentile(ms, [50, 90, 99])
    return Latency(float(median), float(p90), float(p99), int(ms.size), of_device)
