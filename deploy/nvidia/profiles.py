"""The sizes a dynamic input may have, as a TensorRT optimization profile wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deploy.artifacts.model import TensorSpec

# the batch sizes an engine of dynamic batch takes, and the one it is fastest at
_BATCH = (1, 8, 32)
# how far another free dimension may lie from the one in the samples
_AROUND = 4


def profiles(
    inputs: Sequence[TensorSpec], seen: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, list[int]]]:
    """Per input with a free dimension its smallest, usual and largest shape.

    seen: the shape of some samples per input, the first dimension counting them. A free first
    dimension is the batch, 1 to 32; any other may be a quarter to four times that of the samples.
    """
    found = {}
    for spec in inputs:
        if None not in spec.shape:
            continue
        usual = list(seen.get(spec.name, ()))
        rows = [
            _dimension(size, axis, usual[axis] if axis < len(usual) else 64)
            for axis, size in enumerate(spec.shape)
        ]
        low, middle, high = (list(part) for part in zip(*rows, strict=True))
        found[spec.name] = {"min": low, "opt": middle, "max": high}
    return found


def _dimension(size: int | None, axis: int, usual: int) -> tuple[int, int, int]:
    if size is not None:
        return size, size, size
    if axis == 0:
        return _BATCH
    return max(1, usual // _AROUND), usual, usual * _AROUND
