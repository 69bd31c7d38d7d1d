"""How many rows of different requests are run as one: as many as the engine computes the same
numbers for, and as pay off, both found by running it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deploy.artifacts.stored_arrays import stored_arrays
from deploy.errors import BundleError
from deploy.serving.compiled import Compiled, Runner
from deploy.serving.ports import Port

_log = logging.getLogger("deploy.serving")
SIZES = (2, 4, 8, 16, 32)
# a row has to get cheaper by so much to be worth the longer wait of the others
_WORTH = 0.9
_BUDGET_S = 0.5
# merged rows against single ones: bf16's last bits move when another kernel is chosen
_SAME_DB = 25.0


def most_rows(compiled: Compiled, samples: Path, wanted: int) -> int:
    """The limit of merging; 1 where rows can't be merged.

    samples: the bundle's own (.npz); numbers of the right shape where it has none.
    wanted: take this instead of measuring; what the numbers forbid stays forbidden.
    """
    if compiled.rows != "merge" or wanted == 1:
        return 1
    runner = compiled.runner()
    row = _row(compiled.inputs, samples)
    try:
        if not _independent(runner, row):
            _log.warning("rows of one run depend on each other, so requests are run one by one")
            return 1
        return wanted or _fastest(runner, row)
    except RuntimeError:
        # numbers of our own making may be no input at all, an index out of range say
        _log.warning("the engine can't be tried on %s, so requests are run one by one", samples)
        return wanted or 1


def _row(inputs: tuple[Port, ...], samples: Path) -> list[dict[str, np.ndarray]]:
    """Two different rows."""
    stored = _stored(inputs, samples)
    if stored:
        return stored
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(2):
        row = {}
        for port in inputs:
            shape = tuple(8 if d is None else d for d in (1, *port.shape[1:]))
            whole = port.kind.dtype.kind in "iub"
            x = rng.integers(0, 2, shape) if whole else rng.normal(size=shape)
            row[port.name] = x.astype(port.kind.dtype)
        rows.append(row)
    return rows


def _stored(inputs: tuple[Port, ...], samples: Path) -> list[dict[str, np.ndarray]]:
    try:
        # the folder may be from elsewhere: its headers are checked before room is made
        found = stored_arrays(samples)
        arrays = {port.name: found[port.name] for port in inputs}
    except (BundleError, KeyError):
        return []
    if any(
        len(x) < 2
        or x.dtype != port.kind.dtype
        or any(d is not None and d != n for d, n in zip(port.shape, x.shape, strict=False))
        for port, x in zip(inputs, arrays.values(), strict=True)
    ):
        return []
    return [{name: x[i : i + 1] for name, x in arrays.items()} for i in range(2)]


def _independent(runner: Runner, rows: list[dict[str, np.ndarray]]) -> bool:
    """Whether two rows at once give what each gives alone."""
    alone = [runner.run(row) for row in rows]
    both = runner.run(_merged(rows))
    for name, x in both.items():
        apart = [one[name] for one in alone]
        if x.shape[0] != 2 or any(one.shape[1:] != x.shape[1:] for one in apart):
            return False
        if not _same(np.concatenate(apart), x):
            return False
    return True


def _same(alone: np.ndarray, merged: np.ndarray) -> bool:
    if alone.dtype.kind != "f":
        return np.array_equal(alone, merged)
    finite = np.isfinite(alone) & np.isfinite(merged)
    noise = float(np.sum((alone[finite].astype(float) - merged[finite]) ** 2))
    signal = float(np.sum(alone[finite].astype(float) ** 2))
    return bool((np.isfinite(alone) == np.isfinite(merged)).all()) and (
        noise <= signal * 10 ** (-_SAME_DB / 10)
    )


def _fastest(runner: Runner, rows: list[dict[str, np.ndarray]]) -> int:
    started = time.perf_counter()
    best, best_s = 1, _seconds(runner, rows[0])
    for size in SIZES:
        repeated = [rows[i % 2] for i in range(size)]
        per_row = _seconds(runner, _merged(repeated)) / size
        if per_row > best_s * _WORTH:
            break
        best, best_s = size, per_row
        if time.perf_counter() - started > _BUDGET_S:
            break
    return best


def _seconds(runner: Runner, feeds: Mapping[str, np.ndarray]) -> float:
    runner.run(feeds)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        runner.run(feeds)
        times.append(time.perf_counter() - started)
    return min(times)


def _merged(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
