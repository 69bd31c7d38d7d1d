"""Numbers as people read them: three significant digits, SI units that stay on their line."""

from __future__ import annotations

import math

# what deploy.metrics reports for identical tensors, and negated for NaN, Inf or another shape
_LIMIT_DB = 200.0
_SPACE = "\N{NO-BREAK SPACE}"
_STEPS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))


def significant(value: float) -> str:
    """Three significant digits: 14.0, 0.0445, 1,210."""
    if value == 0:
        return "0"
    rounded = float(f"{abs(value):.2e}")
    digits = max(0, 2 - math.floor(math.log10(rounded)))
    return f"{value:,.{min(digits, 12)}f}"


def scaled(value: float, unit: str) -> str:
    """`scaled(13992273, "B")` is "14.0 MB"."""
    for prefix, step in _STEPS:
        # 999.5 and more would be written as 1,000 of the smaller unit
        if abs(value) >= step * 0.9995:
            return f"{significant(value / step)}{_SPACE}{prefix}{unit}"
    return f"{value:,.0f}{_SPACE}{unit}".rstrip()


def size(count: float) -> str:
    """Bytes: "14.0 MB"."""
    return scaled(count, "B")


def ms(value: float) -> str:
    """Milliseconds: "1.02 ms"."""
    return f"{significant(value)}{_SPACE}ms"


def duration(value_ms: float) -> str:
    """Milliseconds, or microseconds where those are few: "12.1 µs"."""
    return ms(value_ms) if value_ms >= 0.1 else f"{significant(1e3 * value_ms)}{_SPACE}µs"


def percent(value: float) -> str:
    """A value that is in percent already: "82.50 %"."""
    return f"{value:.2f}{_SPACE}%"


def share(fraction: float) -> str:
    """A part of a whole, where a very small part is still not nothing."""
    if fraction == 0:
        return "0"
    return (
        f"<{_SPACE}0.01{_SPACE}%" if fraction < 1e-4 else f"{significant(100 * fraction)}{_SPACE}%"
    )


def decibel(value: float) -> str:
    """An SQNR; the ends of the scale in words."""
    if value >= _LIMIT_DB:
        return "identical"
    if value <= -_LIMIT_DB:
        return "not comparable"
    return f"{value:.1f}{_SPACE}dB"


def plain(value: float) -> str:
    """A value of a tensor; 1e308 stands for a difference that is not finite."""
    return "not finite" if abs(value) >= 1e308 else f"{value:.4g}"


def ratio(value: float) -> str:
    """How many times: "2.01x"; more digits where two would hide which side of 1 it is."""
    digits = next((d for d in (2, 3, 4, 6) if value == 1 or round(value, d) != 1), 6)
    return f"{value:.{digits}f}x"


def amount(count: int, noun: str) -> str:
    """ "1 sample", "3 samples", "1,257 samples"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
