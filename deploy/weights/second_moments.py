"""E[x x^T] of what layers multiply with their weights: what error-compensating rounding needs.

Samples are read one at a time and summed in float64 in their order, so that memory doesn't grow
with them and the same samples give the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.batches import batches, feeds_of, rows
from deploy.errors import CalibrationError
from deploy.surgery.graph import infer

# vectors multiplied at once: few enough that they don't grow with the samples
_TOGETHER = 1024


@dataclass(frozen=True)
class Window:
    """How a convolution reads its input: which patches, in how many groups of channels."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1


@dataclass(frozen=True)
class Reader:
    """A layer that multiplies the tensor `source`: its rows, or the patches of a window."""

    source: str
    window: Window | None = None

    def vectors(self, x: np.ndarray) -> np.ndarray:
        """float32[groups, k, n]: the vectors that are multiplied with the weights."""
        return patches(x, self.window) if self.window else x.reshape(-1, x.shape[-1]).T[None]


def second_moments(
    model: Model, samples: Iterable[Sample], readers: Sequence[Reader]
) -> dict[Reader, np.ndarray]:
    """float64[groups, k, k] per reader: the mean over samples of its sums of v v^T.

    One pass in the samples' order. CalibrationError for no samples, and for NaN or Inf, with the
    sample's and the tensor's name.
    """
    wanted = list(dict.fromkeys(readers))
    sums = {reader: _Sum() for reader in wanted}
    count = 0
    names = list(dict.fromkeys(reader.source for reader in wanted))
    described = model.derive(infer(model.proto), ())
    with reference.build_observer(described, names) as engine:
        for chunk, size in batches(samples, model.inputs):
            feeds = feeds_of(chunk, size)
            values = engine.run(feeds) | feeds
            for index, sample in enumerate(chunk):
                count += 1
                parts = {name: rows(values[name], index, size) for name in names}
                _check(parts, sample)
                for reader, total in sums.items():
                    total.add(reader.vectors(parts[reader.source]))
    if not count:
        raise CalibrationError("no samples to measure layer inputs on; check --data and --samples")
    return {reader: total.result() / count for reader, total in sums.items()}


def patches(x: np.ndarray, window: Window) -> np.ndarray:
    """float32[groups, k, n]: every patch of x that a convolution multiplies with its weights.

    x: float32[N, C, H, W]; k = C / groups * kernel height * kernel width, in the order of the
    weights' own reshape(O, -1). A depthwise convolution has one group per channel.
    """
    top, left, bottom, right = window.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    pairs = zip(window.kernel, window.dilations, strict=True)
    span = tuple((size - 1) * step + 1 for size, step in pairs)
    spans = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    (down, across), (tall, wide) = window.strides, window.dilations
    spans = spans[:, :, ::down, ::across, ::tall, ::wide]
    n, c, h, w, kh, kw = spans.shape
    split = spans.reshape(n, window.groups, c // window.groups, h, w, kh, kw)
    return split.transpose(1, 2, 5, 6, 0, 3, 4).reshape(window.groups, -1, n * h * w)


class _Sum:
    """The sum of v v^T, taken over many vectors at once: a product of few rereads all of it."""

    def __init__(self) -> None:
        self.total: np.ndarray | None = None
        self.waiting: list[np.ndarray] = []

    def add(self, vectors: np.ndarray) -> None:
        self.waiting.append(vectors)
        if sum(v.shape[2] for v in self.waiting) >= _TOGETHER:
            self._multiply()

    def result(self) -> np.ndarray:
        if self.waiting:
            self._multiply()
        assert self.total is not None
        return self.total

    def _multiply(self) -> None:
        exact = np.concatenate(self.waiting, axis=2).astype(np.float64)
        part = exact @ exact.transpose(0, 2, 1)
        self.total = part if self.total is None else self.total + part
        self.waiting = []


def _check(values: Mapping[str, np.ndarray], sample: Sample) -> None:
    for name, x in values.items():
        if not np.isfinite(x).all():
            raise CalibrationError(
                f"tensor {name!r} holds NaN or Inf on sample {sample.name}; leave the sample out "
                "or mend the model"
            )
