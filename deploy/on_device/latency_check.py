"""How long one inference takes on this device, with the clocks it ran at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

_WARM_UP_RUNS = 20
_WARM_UP_S = 1.0
MOST_SECONDS = 30.0
_FEWEST_RUNS = 20


def time_calls(
    call: Callable[[], object],
    runs: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    most_seconds: float = MOST_SECONDS,
) -> list[float]:
    """Seconds of each of `runs` calls, one after the other, after warming up.

    Warming up lasts 20 calls or a second, whichever is longer: clocks rise under load. After
    `most_seconds` no more is timed than 20 calls.
    """
    begun, warmed = clock(), 0
    while warmed < _WARM_UP_RUNS or clock() - begun < _WARM_UP_S:
        call()
        warmed += 1
    seconds: list[float] = []
    end = clock() + most_seconds
    while len(seconds) < runs and (len(seconds) < _FEWEST_RUNS or clock() < end):
        start = clock()
        call()
        seconds.append(clock() - start)
    return seconds


def latency_row(seconds: list[float], how: str, batch: int = 1) -> dict[str, Any]:
    """Median, 90th percentile and smallest in ms, and samples per second at the median."""
    ordered = sorted(seconds)
    median = percentile(ordered, 50)
    return {
        "median_ms": 1e3 * median,
        "p90_ms": 1e3 * percentile(ordered, 90),
        "min_ms": 1e3 * ordered[0],
        "runs": len(ordered),
        "throughput_per_s": batch / median if median else None,
        "how": how,
    }


def percentile(ordered: list[float], percent: float) -> float:
    """Linear between the two nearest, of values in rising order (NumPy's default)."""
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def moved_clocks(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Frequencies that differ by over 5 % between two readings, as "gpu: 1377 -> 905 MHz"."""
    old, new = _frequencies(before), _frequencies(after)
    return [
        f"{name}: {old[name]:.0f} -> {new[name]:.0f} MHz"
        for name in sorted(old)
        if name in new and abs(new[name] - old[name]) > 0.05 * max(old[name], 1.0)
    ]


def _frequencies(clocks: Mapping[str, Any]) -> dict[str, float]:
    """Current frequencies in MHz."""
    found = {}
    for name, row in clocks.get("devfreq", {}).items():
        if isinstance(row.get("cur_freq"), (int, float)):
            found[name] = row["cur_freq"] / 1e6
    for name in ("clocks.sm", "clocks.mem"):
        value = clocks.get("nvidia_smi", {}).get(name)
        if isinstance(value, (int, float)):
            found[name] = float(value)
    return found
