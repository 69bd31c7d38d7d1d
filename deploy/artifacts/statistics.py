"""What calibration has seen so far: mergeable in any order, and the ranges that follow from it.

A shard of the samples gives Statistics wherever it is observed; they pickle, and merging them in
any order gives what observing all samples in one place would have given, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from calibrators.histogram import Histogram
from calibrators.ranges import Range
from deploy.artifacts.ranges import Picture, Ranges, Source, TensorRange
from deploy.errors import CalibrationError

# a tensor on a sample: exact low and high, float32[1], and a part of its values, each of which
# stands for so many
Glance = tuple[np.ndarray, np.ndarray, np.ndarray, int]

_BARS = 64


class Statistics:
    """Per observed tensor its statistics, and the hash of every sample that was seen.

    names: tensor -> the observed one that holds the same values (itself, for most).
    """

    def __init__(
        self,
        model_sha256: str,
        settings: Mapping[str, Any],
        names: Mapping[str, str],
        make: Callable[[], Any],
    ) -> None:
        self.model_sha256 = model_sha256
        self.settings = dict(settings)
        self.names = dict(names)
        self.sample_sha256: list[str] = []
        self.tensors = {name: TensorStatistics(make) for name in dict.fromkeys(names.values())}

    def merge(self, other: Statistics) -> None:
        """Add another shard's; CalibrationError when it is of another model or settings."""
        mine = (self.model_sha256, self.settings, self.names)
        if mine != (other.model_sha256, other.settings, other.names):
            raise CalibrationError(
                f"statistics of model {other.model_sha256[:12]} with {other.settings} can't be "
                f"merged into those of {self.model_sha256[:12]} with {self.settings}; observe all "
                "shards with one model and one calibrator"
            )
        self.sample_sha256 += other.sample_sha256
        for name, tensor in self.tensors.items():
            tensor.merge(other.tensors[name])

    def ranges(self) -> Ranges:
        """The range of every tensor; CalibrationError when there is nothing to take one from."""
        if not self.sample_sha256:
            raise CalibrationError("no samples to calibrate on; check --data and --samples")
        infinite = {name: t.infinite for name, t in self.tensors.items() if t.infinite}
        found = {n: t.range(n) for n, t in self.tensors.items() if n not in infinite}
        source = Source(self.model_sha256, tuple(sorted(self.sample_sha256)), self.settings)
        return Ranges(
            {name: found[root] for name, root in self.names.items() if root in found},
            source,
            {name: infinite[root] for name, root in self.names.items() if root in infinite},
        )


class TensorStatistics:
    """One tensor: the calibrator that decides, and a histogram, its own or for the report alone.

    A calibrator that keeps a `histogram` has it filled here, every value weighted by how many it
    stands for. Any other one observes each sample's extremes and part of its values. infinite: on
    how many samples it held Inf, which leaves it without a range.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self.calibrator = make()
        own = getattr(self.calibrator, "histogram", None)
        self.fills = isinstance(own, Histogram)
        self.histogram: Histogram = own if isinstance(own, Histogram) else Histogram()
        self.infinite = 0

    def observe(self, samples: Sequence[Glance]) -> None:
        """Some samples: counting many at once costs little more than one."""
        if not self.fills:
            for low, high, values, _ in samples:
                self.calibrator.observe(np.concatenate([low, high, values]))
        by_step: dict[int, list[np.ndarray]] = {}
        for low, high, values, step in samples:
            if step > 1:
                by_step.setdefault(1, []).extend((low, high))
            by_step.setdefault(step, []).append(values)
        for step, arrays in by_step.items():
            self.histogram.observe(np.concatenate(arrays), step)

    def merge(self, other: TensorStatistics) -> None:
        """Add the other's."""
        self.calibrator.merge(other.calibrator)
        self.infinite += other.infinite
        if not self.fills:
            self.histogram.merge(other.histogram)

    def range(self, name: str) -> TensorRange:
        """What the calibrator chose, what was seen and how that was distributed."""
        seen = self.histogram
        if seen.count == 0:
            raise CalibrationError(f"tensor {name!r} had no elements in any sample; check --shape")
        start, width, counts = seen.picture(_BARS)
        chosen: Range = self.calibrator.range()
        reason = getattr(self.calibrator, "reason", None)
        return TensorRange(
            chosen,
            Range(seen.low, seen.high),
            Picture(start, width, tuple(counts)),
            seen.outside(min(chosen.low, 0.0), max(chosen.high, 0.0)),
            str(reason()) if reason is not None else "",
        )


def merged(shards: Sequence[Statistics]) -> Statistics:
    """All shards as one; the first is added to. CalibrationError when they don't belong together
    or there are none."""
    if not shards:
        raise CalibrationError("no statistics to merge; observe at least one shard")
    total, *others = shards
    for shard in others:
        total.merge(shard)
    return total
