"""Which layers go back to float: decided from what each one alone costs, nothing is run here.

Both choices are a beginning of the list of layers, the noisiest first. Noise powers add up, so the
one in front takes away the most for a layer; all else alike, few layers in float cost little time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from deploy.artifacts.precision import LayerNoise
from deploy.placement import NOTHING, Exclude
from deploy.quantizable import LAYERS

# of all layers, how many `noisiest` takes at the most
_SHARE = 0.2
# how many it takes all the same, at the least and, of few layers, at the most
_LEAST, _FEW = 2, 3


def noisiest(
    sensitivity: Sequence[LayerNoise], *, gain_db: float = 4.0, most: int | None = None
) -> Exclude:
    """The fewest layers, two at the least, that lower the predicted noise by `gain_db`.

    sensitivity: the noisiest first, as measured. most: layers that may be left in float, whatever
    is gained; by default a fifth of them, and three where that is less. Something always stays
    INT8.
    """
    count = len(sensitivity)
    most = max(_FEW, int(_SHARE * count)) if most is None else most
    most = min(most, _longest(sensitivity))
    if most < 1:
        return NOTHING
    before = sensitivity[0].accumulated_db
    enough = (k for k in range(_LEAST, most) if before - _left(sensitivity, k) >= gain_db)
    length = next(enough, most)
    left = _left(sensitivity, length)
    return _beginning(
        sensitivity,
        length,
        f"without the {length} noisiest of {count} layers {left:.1f} dB are predicted instead of "
        f"{before:.1f}",
    )


def smallest_passing(
    sensitivity: Sequence[LayerNoise],
    passes: Callable[[Exclude], bool],
    *,
    already: Collection[str] = (),
    most: int = 10,
) -> Exclude | None:
    """The shortest beginning of the list that `passes` in float; None when none of those tried did.

    Lengths 1, 2, 4, … until one passes, then halves between it and the longest that didn't.
    already: layers that are float anyway; they are passed over. most: how often `passes` is asked;
    never twice for one length, and where nothing has passed before, the last time for as many
    layers as can be float while something stays INT8. More layers in float need not be better:
    what comes back has passed, and no shorter one that was tried has, but one that nobody tried
    may. The caller keeps what each answer came from, for a table of drop against latency.
    """
    sensitivity = [layer for layer in sensitivity if layer.layer not in already]
    longest = _longest(sensitivity)
    failed, passed, asked = 0, None, 0
    while asked < most and failed + 1 < (passed or longest + 1):
        if passed is not None:
            length = (failed + passed) // 2
        else:
            length = longest if asked == most - 1 else min(max(2 * failed, 1), longest)
        asked += 1
        if passes(_reverted(sensitivity, length)):
            passed = length
        else:
            failed = length
    return None if passed is None else _reverted(sensitivity, passed)


def _longest(sensitivity: Sequence[LayerNoise]) -> int:
    """How many may go before no layer with weights is left: sums alone aren't worth INT8."""
    weighing = [index for index, layer in enumerate(sensitivity) if layer.op in LAYERS]
    return weighing[-1] if weighing else 0


def _left(sensitivity: Sequence[LayerNoise], length: int) -> float:
    """dB of the noise that is predicted with the first `length` in float."""
    return sensitivity[length].accumulated_db


def _reverted(sensitivity: Sequence[LayerNoise], length: int) -> Exclude:
    why = f"back in float with the {length} noisiest of {len(sensitivity)} layers for the gate"
    return _beginning(sensitivity, length, why)


def _beginning(sensitivity: Sequence[LayerNoise], length: int, why: str) -> Exclude:
    return Exclude(
        layers={x.layer: f"noise {x.noise_db:.1f} dB alone; {why}" for x in sensitivity[:length]}
    )
