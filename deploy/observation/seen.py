"""What tensors held, read from the outputs of an observed graph or from whole activations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from deploy.observation.finite import LIMIT
from deploy.observation.probes import Outlets, Port, Probe

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Seen:
    """One tensor on one sample. low, high: float32[C], or [1] for the whole tensor.

    values: a part of the values, each standing for `step` of them; empty if not asked for.
    infinite: it held Inf, and was allowed to; nothing else is told then.
    """

    low: np.ndarray
    high: np.ndarray
    values: np.ndarray
    step: int
    infinite: bool = False


_NONE = np.zeros(0, np.float32)
INFINITE = Seen(_NONE, _NONE, _NONE, 1, infinite=True)


class Readout:
    """Takes the outputs of a run apart: which of them belong to which probe."""

    def __init__(self, probes: Sequence[Probe], outlets: Sequence[Outlets]) -> None:
        self.outlets = outlets
        self.pairs = list(zip(probes, outlets, strict=True))
        self.told = sorted({name for outlet in outlets for name in outlet.told()})
        # whether some tensors have no mean, as extremes prove them finite
        self.proves = any(outlet.proven for outlet in outlets)
        ports = [p for o in outlets for p in (o.low, o.high, o.mean) if p is not None]
        joined = {p.name for p in ports if p.stop is not None}
        self._starts = {
            name: np.array(sorted({p.start for p in ports if p.name == name})) for name in joined
        }
        self._place = {
            (name, int(start)): i
            for name, starts in self._starts.items()
            for i, start in enumerate(starts)
        }

    def finite(self, out: Outputs) -> bool:
        """Whether nothing in the outputs speaks of NaN or Inf; means of huge values do, too."""
        return all(np.isfinite(out[name]).all() for name in self.told)

    def small(self, out: Outputs) -> bool:
        """Whether all that was observed is finite and within the limit that proofs rest on."""
        return all(
            out[name].min(initial=0) >= -LIMIT and out[name].max(initial=0) <= LIMIT
            for name in self.told
        )

    def missed(self, out: Outputs, count: int) -> list[str]:
        """Tensors whose low end is neither computed nor seen to be their bound."""
        return [p.tensor for p, o in self.pairs if not _bound_seen(o, out, count)]

    def seen(self, out: Outputs, count: int) -> list[dict[str, Seen]]:
        """Per sample, what each tensor held."""
        tops = {
            name: np.maximum.reduceat(out[name].reshape(len(out[name]), -1), starts, axis=1)
            for name, starts in self._starts.items()
        }
        return [
            {probe.tensor: self._of(probe, outlet, out, tops, i) for probe, outlet in self.pairs}
            for i in range(count)
        ]

    def _of(self, probe: Probe, outlet: Outlets, out: Outputs, tops: Outputs, index: int) -> Seen:
        row = slice(index, index + 1) if outlet.rowed else ...
        values = out[outlet.values][row].reshape(-1) if outlet.values else _NONE
        if outlet.high is None:
            if not values.size:
                return Seen(_NONE, _NONE, values, 1)
            return Seen(values.min(keepdims=True), values.max(keepdims=True), values, 1)
        step = int(out[outlet.told_step][0]) if outlet.step is None else outlet.step

        def end(port: Port, *, lowest: bool = False) -> np.ndarray:
            if probe.axis is None and port.stop is not None:
                place = self._place[port.name, port.start]
                return tops[port.name][index if outlet.rowed else 0, place : place + 1]
            x = _at(port, out)
            # what else than the channels is left is reduced here
            by_channel = x[row].reshape(-1, 1 if probe.axis is None else _channels(x, probe.axis))
            return np.asarray(by_channel.min(axis=0) if lowest else by_channel.max(axis=0))

        high = end(outlet.high)
        if outlet.low is None:
            return Seen(np.full(1, outlet.bound, np.float32), high, values, step)
        if outlet.low_negated:
            return Seen(-end(outlet.low), high, values, step)
        return Seen(end(outlet.low, lowest=True), high, values, step)


def seen_whole(probe: Probe, x: np.ndarray) -> Seen:
    """The same from all of a sample's values, which may hold NaN or Inf."""
    x = x.astype(np.float32, copy=False)
    if not x.size:
        return Seen(_NONE, _NONE, _NONE, 1)
    flat = x.reshape(-1)
    step = -(-flat.size // probe.values) if probe.values else 1
    values = flat[::step] if probe.values else _NONE
    others = tuple(i for i in range(x.ndim) if i != probe.axis)
    if probe.axis is None:
        return Seen(flat.min(keepdims=True), flat.max(keepdims=True), values, step)
    return Seen(x.min(axis=others), x.max(axis=others), values, step)


def _bound_seen(outlet: Outlets, out: Outputs, count: int) -> bool:
    """Whether the tensor's low end is known: computed, or its bound is among each row's values."""
    if outlet.bound is None:
        return True
    values = out[outlet.values]
    if not outlet.rowed:
        return bool(values.min() == outlet.bound)
    return bool((values.reshape(len(values), -1)[:count].min(axis=1) == outlet.bound).all())


def _at(port: Port, out: Outputs) -> np.ndarray:
    x = out[port.name]
    return x if port.stop is None else x[:, port.start : port.stop]


def _channels(x: np.ndarray, axis: int) -> int:
    """How many channels a reduced output [C], [N, C] or [N, C, 1, 1] has."""
    return int(x.shape[0] if x.ndim == 1 or axis == 0 else x.shape[1])
