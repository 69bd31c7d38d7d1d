"""How far the outputs of two runs over the same samples are apart, and which of them is worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploy.ladder.tensors import Difference, Values, differences


def between(expected: Sequence[Values], got: Sequence[Values]) -> dict[str, Difference]:
    """Every output of numbers, sample by sample."""
    names = [
        name for name in expected[0] if name in got[0] and expected[0][name].dtype.kind in "fiub"
    ]
    return differences(expected, got, names, [1] * len(expected))


def worst(found: Mapping[str, Difference]) -> float:
    """The least SQNR."""
    return min((one.sqnr_db for one in found.values()), default=-200.0)


def nearest(found: Mapping[str, float], least: Mapping[str, float]) -> tuple[float, float]:
    """Of the output nearest to its bound, or furthest below it: what it has, and the bound."""
    gaps = {n: found[n] - least[n] for n in found if n in least}
    if not gaps:
        return min(found.values(), default=-200.0), -200.0
    worst = min(gaps, key=lambda n: gaps[n])
    return found[worst], least[worst]
