"""Ranges of the float activations, from real samples, in one pass and constant memory.

`statistics_of` observes a shard of the samples, wherever it lies; statistics merge exactly, and
`ranges()` of all of them is the result. `calibrate` does both in one go.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnx

from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges, Source
from deploy.artifacts.statistics import Statistics
from deploy.errors import CalibrationError
from deploy.observation.graph import FLOATS
from deploy.observation.observe import Observer
from deploy.observation.overlap import overlapped
from deploy.observation.probes import Probe
from deploy.observation.seen import Seen

# values looked at per tensor and sample for a distribution; extremes see every value
_VALUES = 4096

# one output, with the values of the one input in another order or shape
_MOVERS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity"}
_MOVERS |= {"DepthToSpace", "SpaceToDepth"}
# an activation or normalization that every runtime computes inside the layer in front of it
_ABSORBED = {"Relu", "Clip", "BatchNormalization"}
_ABSORBING = {"Conv", "ConvTranspose", "Gemm", "Add", "BatchNormalization"}


def calibrate(
    model: Model,
    samples: Iterable[Sample],
    calibrator: str,
    *,
    batch_size: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> Ranges:
    """A range per float activation that a placement may quantize (see `calibrated_tensors`).

    samples: read once, in any order. batch_size: samples whose values are counted together; never
    changes the result. CalibrationError names the sample and tensor that can't be used.
    """
    return statistics_of(
        model, samples, calibrator, batch_size=batch_size, advance=advance
    ).ranges()


def statistics_of(
    model: Model,
    samples: Iterable[Sample],
    calibrator: str,
    *,
    batch_size: int = 1,
    advance: Callable[[int], None] = lambda count: None,
) -> Statistics:
    """What these samples, all or a shard of them, show: pickles, and merges in any order."""
    make = registry.load("calibrator", calibrator)
    names = calibrated_tensors(model)
    if not names:
        raise CalibrationError(f"{model.name}: no float tensor to calibrate; use --fp32")
    probes = [Probe(name, None, _VALUES) for name in dict.fromkeys(names.values())]
    with (
        Observer(model, probes, infinite=inner(model, names)) as observer,
        ThreadPoolExecutor(1) as aside,
    ):
        # beside the first sample's reading, and the engine's making
        hashed = aside.submit(lambda: model.sha256)
        found = Statistics("", settings_of(calibrator), names, make)
        crew = _Crew(observer, found, batch_size)
        overlapped(samples, model.inputs, crew.work, advance)
        crew.finish()
        found.model_sha256 = hashed.result()
    return found


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
        if value.type.tensor_type.elem_type in FLOATS
        and value.name not in weights
        and (value.name in computed or any(value.name == i.name for i in graph.input))
    ]
    return list(dict.fromkeys(names))


def calibrated_tensors(model: Model) -> dict[str, str]:
    """Every tensor that gets a range -> the tensor observed for it, which holds the same values.

    Left out is what no INT8 form of a graph quantizes: a value between a convolution, Gemm or Add
    and the ReLU, Clip or BatchNormalization that alone reads it. Observing those would also stop
    ONNX Runtime from fusing the two. What only moves values shares the range of its source.
    """
    graph = model.proto.graph
    floats = float_tensors(model)
    made = {o: node for node in graph.node for o in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    kept = {value.name for value in graph.output}
    # bodies of If and Loop read by name, too: with one around, nothing is taken for inner
    nested = any(a.type == onnx.AttributeProto.GRAPH for n in graph.node for a in n.attribute)
    wanted = [
        name
        for name in floats
        if name in kept or nested or not _absorbed(made.get(name), readers.get(name, []))
    ]
    return {name: _root(name, made, set(wanted)) for name in wanted}


def inner(model: Model, names: Mapping[str, str]) -> frozenset[str]:
    """Of what is observed, `calibrated_tensors`, that which is neither fed in nor given out: Inf
    there is the model's own business as long as its outputs are finite."""
    graph = model.proto.graph
    outer = {names.get(value.name) for value in (*graph.input, *graph.output)}
    return frozenset(set(names.values()) - outer)


def _absorbed(maker: onnx.NodeProto | None, readers: list[onnx.NodeProto]) -> bool:
    if maker is None or maker.op_type not in _ABSORBING or len(readers) != 1:
        return False
    return readers[0].op_type in _ABSORBED and readers[0].input[0] in maker.output


def _root(name: str, made: Mapping[str, onnx.NodeProto], wanted: set[str]) -> str:
    """The tensor whose values these are; observed itself only when that is possible."""
    root = name
    while root in made and made[root].op_type in _MOVERS and made[root].input[0] in wanted:
        root = made[root].input[0]
    return root


class _Crew:
    """Adds what several threads observe to one set of statistics."""

    def __init__(self, observer: Observer, statistics: Statistics, together: int) -> None:
        self.observer = observer
        self.statistics = statistics
        self.together = together
        self.lock = threading.Lock()
        self.waiting: list[dict[str, Seen]] = []
        self.locks = {name: threading.Lock() for name in statistics.tensors}

    def work(self, group: list[Sample], size: int) -> None:
        """Observe samples, and count what waits if that is enough."""
        seen = self.observer.observe(group, size)
        hashes = [sample.sha256() for sample in group]
        ready: list[dict[str, Seen]] = []
        with self.lock:
            self.statistics.sample_sha256 += hashes
            self.waiting += seen
            if len(self.waiting) >= self.together:
                ready, self.waiting = self.waiting, ready
        self.count(ready)

    def finish(self) -> None:
        """Count what still waits."""
        self.count(self.waiting)
        self.waiting = []

    def count(self, samples: list[dict[str, Seen]]) -> None:
        for name, tensor in self.statistics.tensors.items():
            held = [sample[name] for sample in samples if sample[name].low.size]
            infinite = sum(sample[name].infinite for sample in samples)
            if held or infinite:
                with self.locks[name]:
                    tensor.observe([(s.low, s.high, s.values, s.step) for s in held])
                    tensor.infinite += infinite
