"""What the samples show by themselves, as findings: too few, repeats, blanks, clipping, classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from calibrators import audit
from calibrators.audit import Look
from deploy.artifacts.audit import Finding

# a convention, not measured: half and a quarter of what the smallest usual sets, 128, hold
_FEW = 32
_RATHER_FEW = 64
_NAMED = 8
# of the set: above it repeats shift what calibration sees
_MANY_REPEATS = 0.1
# unrelated pictures have about 1
_LITTLE_VARIETY = 0.1
# of a sample's values at the ends, and how far above the set's median that has to be
_CLIPPED = 0.5
_STANDS_OUT = 0.3
_OVER = 5.0


def sample_findings(looks: Sequence[Look], classes: int | None) -> list[Finding]:
    """Findings over all samples; classes: how many the model tells apart, where that is known."""
    checks: tuple[Callable[[Sequence[Look]], Finding | None], ...] = (
        _count,
        _constant,
        _variety,
        _repeats,
        _near_repeats,
        _clipped,
    )
    found = [finding for check in checks if (finding := check(looks)) is not None]
    balance = _balance(looks, classes)
    return [*found, balance] if balance is not None else found


def _count(looks: Sequence[Look]) -> Finding | None:
    if len(looks) >= _RATHER_FEW:
        return None
    return Finding(
        "too few samples",
        "warn" if len(looks) < _FEW else "note",
        f"{_amount(len(looks))} for calibration",
        "a range that no sample reached cuts off what comes later",
        "give 100 to 300 that look like what the engine will see",
    )


def _constant(looks: Sequence[Look]) -> Finding | None:
    blank = [each for each in looks if each.constant]
    if not blank:
        return None
    return Finding(
        "constant inputs",
        "warn",
        f"{_part(blank, looks)} hold{'s' if len(blank) == 1 else ''} one value only",
        "a blank input shows no layer what real ones hold; it is often a file that failed to load",
        "replace or leave out these samples",
        _names(blank),
    )


def _variety(looks: Sequence[Look]) -> Finding | None:
    spread = audit.variety(looks)
    if spread >= _LITTLE_VARIETY:
        return None
    return Finding(
        "little variety",
        "warn",
        f"two samples differ by {spread:.3f} of what they hold (unrelated ones by about 1)",
        "ranges of what is nearly one sample don't fit others",
        "choose samples of other scenes, days or sources",
    )


def _repeats(looks: Sequence[Look]) -> Finding | None:
    groups = audit.repeats(looks)
    again = [each for group in groups for each in group[1:]]
    if not again:
        return None
    pair = f"{groups[0][1].name} is {groups[0][0].name}"
    return Finding(
        "repeated samples",
        "warn" if len(again) > _MANY_REPEATS * len(looks) else "note",
        f"{_part(again, looks)} repeat{'s' if len(again) == 1 else ''} another in every byte "
        f"({pair})",
        "a repeat shows nothing new and weighs what it holds twice",
        "leave them out, or give others in their place",
        _names(again),
    )


def _near_repeats(looks: Sequence[Look]) -> Finding | None:
    pairs = audit.near_repeats(looks)
    if not pairs:
        return None
    again = [second for _, second in pairs]
    return Finding(
        "nearly equal samples",
        "warn" if len(again) > 3 * _MANY_REPEATS * len(looks) else "note",
        f"{_part(again, looks)} nearly equal{'s' if len(again) == 1 else ''} an earlier one "
        f"({pairs[0][1].name} and {pairs[0][0].name})",
        "frames of one scene show the ranges of that scene",
        "take fewer of each scene, unless the engine will see just that",
        _names(again),
    )


def _clipped(looks: Sequence[Look]) -> Finding | None:
    shares = audit.clipped(looks)
    middle = float(np.median(shares)) if len(shares) else 0.0
    odd = [
        each
        for each, share in zip(looks, shares, strict=True)
        if share > max(_CLIPPED, middle + _STANDS_OUT) and not each.constant
    ]
    if not odd:
        return None
    return Finding(
        "saturated inputs",
        "warn" if len(odd) > _MANY_REPEATS * len(looks) else "note",
        f"{_part(odd, looks)} {'has' if len(odd) == 1 else 'have'} over half of the values at the "
        f"ends of the range (the median sample {middle:.1%})",
        "overexposed, black or cut values are not what most inputs hold",
        "look at these samples; leave out what the engine won't see",
        _names(odd),
    )


def _balance(looks: Sequence[Look], classes: int | None) -> Finding | None:
    found = audit.classes(looks)
    if found is None or found.total < 2:
        return None
    known = max(classes or 0, len(found.counts))
    possible = min(known, found.total)
    top = max(found.counts, key=lambda label: found.counts[label])
    mean = found.total / possible
    lopsided = found.counts[top] > _OVER * mean and found.counts[top] > _OVER
    # with five samples for each class, one without any is no accident
    missing = known - len(found.counts) if found.total >= _OVER * known else 0
    if known < 2 or not (lopsided or missing or found.effective < possible / 2):
        return None
    observed = f"labels as varied as {found.effective:.1f} equal classes of {known}"
    observed += f"; class {top} has {found.counts[top]} of {found.total} samples"
    observed += f", {missing} class{'es have' if missing > 1 else ' has'} none" if missing else ""
    return Finding(
        "class imbalance",
        "warn" if lopsided or found.effective < possible / 2 else "note",
        observed,
        "ranges follow the classes that are there, and cut off what only the others reach",
        "take about as many samples of each class",
    )


def _part(some: Sequence[Look], looks: Sequence[Look]) -> str:
    return f"{len(some)} of {_amount(len(looks))}"


def _amount(count: int) -> str:
    return f"{count:,} sample{'s' if count != 1 else ''}"


def _names(some: Sequence[Look]) -> tuple[str, ...]:
    return tuple(each.name for each in some[:_NAMED])
