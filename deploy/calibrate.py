"""Ranges of every float activation, from real samples, in one pass and constant memory.

The runtime sees one sample at a time (or the batch the model fixes), whatever `batch_size` is:
a matrix kernel for seven rows rounds differently than one for one row, so only this makes ranges
independent of the batch size. Each worker keeps statistics of its own, which merge exactly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx

from calibrators.histogram import Histogram
from calibrators.ranges import Range
from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Picture, Ranges, Source, TensorRange
from deploy.backends import reference
from deploy.batches import batches, feeds_of, fixed_batch, groups, rows
from deploy.errors import CalibrationError

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
_BARS = 64
# enough of a tensor for a picture; the range itself always sees every value
_PICTURE_VALUES = 4096


def calibrate(
    model: Model,
    samples: Iterable[Sample],
    calibrator: str,
    *,
    batch_size: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> Ranges:
    """A range per float activation of the model (weights and constants left out).

    samples: read once, in any order. batch_size: samples in memory at a time; never changes the
    result. CalibrationError names the sample and tensor that can't be used.
    """
    make = registry.load("calibrator", calibrator)
    tensors = float_tensors(model)
    if not tensors:
        raise CalibrationError(f"{model.name}: no float tensor to calibrate; use --fp32")
    hashes: list[str] = []
    workers = reference.cores()
    with reference.build_observer(model, tensors) as engine:
        crew = _Crew(engine, make, tensors)
        together = max(batch_size, workers) * fixed_batch(model.inputs)
        with ThreadPoolExecutor(workers) as pool:
            for chunk in groups(samples, together):
                hashes.extend(sample.sha256() for sample in chunk)
                list(pool.map(crew.observe, batches(chunk, model.inputs)))
                advance(len(chunk))
    if not hashes:
        raise CalibrationError("no samples to calibrate on; check --data and --samples")
    source = Source(model.sha256, tuple(sorted(hashes)), settings_of(calibrator))
    return Ranges(crew.ranges(), source)


def source_of(model: Model, samples: Iterable[Sample], calibrator: str) -> Source:
    """What ranges made now would be made from: compare with `Ranges.why_not`."""
    registry.path("calibrator", calibrator)
    hashes = sorted(sample.sha256() for sample in samples)
    return Source(model.sha256, tuple(hashes), settings_of(calibrator))


def settings_of(calibrator: str) -> dict[str, Any]:
    """What besides model and samples decides the numbers."""
    return {"calibrator": calibrator}


def float_tensors(model: Model) -> list[str]:
    """Names of all float activations: inputs and every node's outputs."""
    graph = model.proto.graph
    weights = {i.name for i in graph.initializer}
    computed = {o for node in graph.node if node.op_type != "Constant" for o in node.output}
    typed = [*graph.input, *graph.value_info, *graph.output]
    names = [
        value.name
        for value in typed
        if value.type.tensor_type.elem_type in _FLOATS
        and value.name not in weights
        and (value.name in computed or any(value.name == i.name for i in graph.input))
    ]
    return list(dict.fromkeys(names))


class _Crew:
    """Observes batches from several threads; every thread has statistics of its own."""

    def __init__(self, engine: Engine, make: Callable[[], Any], tensors: Sequence[str]) -> None:
        self.engine = engine
        self.make = make
        self.tensors = tensors
        self.local = threading.local()
        self.all: list[_Statistics] = []

    def observe(self, batch: tuple[list[Sample], int]) -> None:
        samples, size = batch
        if not hasattr(self.local, "statistics"):
            self.local.statistics = _Statistics(self.tensors, self.make)
            self.all.append(self.local.statistics)
        feeds = feeds_of(samples, size)
        values = self.engine.run(feeds) | feeds
        for name in self.tensors:
            for index, sample in enumerate(samples):
                x = rows(values[name], index, size)
                try:
                    self.local.statistics.observe(name, x)
                except ValueError as error:
                    raise CalibrationError(
                        f"tensor {name!r} {error} on sample {sample.name}; leave the sample out "
                        "or mend the model, no range can cover it"
                    ) from None

    def ranges(self) -> dict[str, TensorRange]:
        total = _Statistics(self.tensors, self.make)
        for part in self.all:
            total.merge(part)
        return {name: total.range(name) for name in self.tensors}


class _Statistics:
    """Per tensor: the calibrator that decides, and a small histogram for the report."""

    def __init__(self, tensors: Sequence[str], make: Callable[[], Any]) -> None:
        self.calibrators = {name: make() for name in tensors}
        self.pictures = {name: Histogram() for name in tensors}
        self.seen = dict.fromkeys(tensors, (np.inf, -np.inf))

    def observe(self, name: str, x: np.ndarray) -> None:
        if x.size == 0:
            return
        self.calibrators[name].observe(x)
        flat = x.reshape(-1)
        self.pictures[name].observe(flat[:: -(-flat.size // _PICTURE_VALUES)])
        low, high = self.seen[name]
        self.seen[name] = (min(low, float(flat.min())), max(high, float(flat.max())))

    def merge(self, other: _Statistics) -> None:
        for name, calibrator in other.calibrators.items():
            if other.seen[name][0] > other.seen[name][1]:
                continue
            self.calibrators[name].merge(calibrator)
            self.pictures[name].merge(other.pictures[name])
            low, high = other.seen[name]
            self.seen[name] = (min(self.seen[name][0], low), max(self.seen[name][1], high))

    def range(self, name: str) -> TensorRange:
        low, high = self.seen[name]
        if low > high:
            raise CalibrationError(f"tensor {name!r} had no elements in any sample; check --shape")
        start, width, counts = self.pictures[name].picture(_BARS)
        picture = Picture(start, width, tuple(counts))
        return TensorRange(self.calibrators[name].range(), Range(low, high), picture)
