"""How long one inference takes on this device, with the clocks it ran at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

# what is nearer than this counts as equal: medians of two runs differ by as much
TIE = 0.03
_WARM_UP_RUNS = 20
_WARM_UP_S = 1.0
MOST_SECONDS = 30.0
_FEWEST_RUNS = 20


class Timings(NamedTuple):
    """What every run of one call took: seconds by the host's clock, and milliseconds by the GPU's,
    none where it doesn't tell."""

    wall_s: list[float]
    gpu_ms: list[float]


def time_calls(
    calls: Sequence[Callable[[], float | None]],
    runs: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    most_seconds: float = MOST_SECONDS,
) -> list[Timings]:
    """Timings of each call, run by turns `runs` times, after warming up.

    What a call returns is the GPU's milliseconds. By turns, and every other time in reverse: what
    drifts, a clock or a temperature, touches all alike. Warming up lasts 20 rounds or a second,
    whichever is longer: clocks rise under load. After `most_seconds` for each call no more is timed
    than 20 rounds.
    """
    begun, warmed = clock(), 0
    while warmed < _WARM_UP_RUNS or clock() - begun < _WARM_UP_S:
        for call in calls:
            call()
        warmed += 1
    found = [Timings([], []) for _ in calls]
    turns = list(zip(calls, found))
    end = clock() + most_seconds * len(calls)
    done = 0
    while done < runs and (done < _FEWEST_RUNS or clock() < end):
        for call, timings in turns if done % 2 == 0 else reversed(turns):
            start = clock()
            gpu_ms = call()
            timings.wall_s.append(clock() - start)
            if gpu_ms is not None:
                timings.gpu_ms.append(gpu_ms)
        done += 1
    return found


def latency_row(timings: Timings, how: str, batch: int = 1) -> dict[str, Any]:
    """Median, 90th percentile and smallest in ms, the GPU's median (None where it isn't known), and
    samples per second at the median."""
    ordered = sorted(timings.wall_s)
    median = percentile(ordered, 50)
    return {
        "median_ms": 1e3 * median,
        "p90_ms": 1e3 * percentile(ordered, 90),
        "min_ms": 1e3 * ordered[0],
        "gpu_median_ms": percentile(sorted(timings.gpu_ms), 50) if timings.gpu_ms else None,
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
