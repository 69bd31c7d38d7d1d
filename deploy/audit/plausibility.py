"""How well a way to prepare the samples suits a model, without asking what is on them.

Three measures, each taken over the same samples for every way:

    off_centre   mean over the layers of the median over a layer's channels of |mean| / std of what
                 a convolution gives. Training with batch normalization keeps it low, also where
                 the normalization was folded away; where it is still there, its own running mean
                 and variance are what the values are compared with. Blind to the order of colours.
    steadiness   do the class scores stay with a picture when it moves a little, more than they
                 agree between pictures? Mean of p(x) . p(moved x) less that of p(x) . p(other x
                 moved). Mere confidence is no measure: pixels of 0..255 where 0..1 were wanted
                 make a network certain, of one class for all.
    agreement    with the labels, where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibrators.samples import Sample
from deploy.artifacts.model import Model, copy_proto
from deploy.audit.hypotheses import Hypothesis
from deploy.backends import reference
from deploy.batches import feeds_of, fixed_batch, rows

# a channel that hardly varies would drown all others
_MOST = 50.0
_FEWEST_LAYERS = 3
# from here on ReduceMean takes its axes as an input
_AXES_AS_INPUT = 18


@dataclass(frozen=True)
class Image:
    """The input that takes pictures: its name and the axis of its channels."""

    name: str
    axis: int


@dataclass(frozen=True)
class Scored:
    """Per sample, [N]: steadiness; the probability of the top class; whether that is the label."""

    steadiness: np.ndarray
    confidence: np.ndarray
    right: np.ndarray


Change = Callable[[np.ndarray], np.ndarray]


class OffCentre:
    """Measures how far inner layers are from where training kept them, if they are `enough`."""

    def __init__(self, model: Model, image: Image) -> None:
        self.layers = _layers(model)
        self.image = image
        self._model = model
        self.enough = len(self.layers) >= _FEWEST_LAYERS

    def of(self, ways: Sequence[Hypothesis], samples: Sequence[Sample]) -> list[float]:
        """One figure per way, the lower the likelier."""
        with reference.ReferenceEngine(_with_moments(self._model, self.layers), threads=1) as run:
            engine = _Runner(run, self._model, self.image)
            return [self._one(engine.all(samples, _feeding(way, self.image))) for way in ways]

    def _one(self, found: Sequence[Mapping[str, np.ndarray]]) -> float:
        figures = []
        for name, known in self.layers.items():
            mean = np.mean([f[f"{name}/mean"].astype(np.float64) for f in found], axis=(0, 1))
            square = np.mean([f[f"{name}/square"].astype(np.float64) for f in found], axis=(0, 1))
            std = np.sqrt(np.maximum(square - mean**2, 1e-12 + 1e-9 * square))
            if known is None:
                off = np.abs(mean) / std
            else:
                off = np.abs(mean - known[0]) / known[1] + np.abs(np.log(std / known[1]))
            figures.append(float(np.median(np.minimum(off, _MOST))))
        return float(np.mean(figures))


def scored(
    model: Model, image: Image, scores: str, ways: Sequence[Hypothesis], samples: Sequence[Sample]
) -> list[Scored]:
    """What the class scores in output `scores` say of each way."""
    labels = np.array([-1 if each.label is None else each.label for each in samples])
    with reference.ReferenceEngine(model, threads=1) as run:
        engine = _Runner(run, model, image)
        return [_scored(engine, way, scores, samples, labels) for way in ways]


def _scored(
    engine: _Runner, way: Hypothesis, scores: str, samples: Sequence[Sample], labels: np.ndarray
) -> Scored:
    feeding = _feeding(way, engine.image)
    wide = 3 if engine.image.axis == 1 else 2

    def moved(x: np.ndarray) -> np.ndarray:
        return _moved(feeding(x), wide)

    p, q = (
        _probabilities(np.stack([f[scores].reshape(-1) for f in engine.all(samples, change)]))
        for change in (feeding, moved)
    )
    right = p.argmax(axis=1) == labels
    return Scored(_steadiness(p, q), p.max(axis=1), right)


def _steadiness(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    alike = p @ q.T
    own = np.diagonal(alike)
    return np.asarray(own - (alike.sum(axis=1) - own) / max(len(alike) - 1, 1))


class _Runner:
    """Runs every sample with its picture changed; threads work on different samples."""

    def __init__(self, engine: reference.ReferenceEngine, model: Model, image: Image) -> None:
        self.engine = engine
        self.image = image
        self.batch = fixed_batch(model.inputs)

    def all(self, samples: Sequence[Sample], change: Change) -> list[dict[str, np.ndarray]]:
        def one(sample: Sample) -> dict[str, np.ndarray]:
            picture = change(sample.feeds[self.image.name])
            fed = Sample(sample.name, {**sample.feeds, self.image.name: picture})
            out = self.engine.run(feeds_of([fed], self.batch))
            return {name: rows(x, 0, self.batch) for name, x in out.items()}

        with ThreadPoolExecutor(reference.cores()) as pool:
            return list(pool.map(one, samples))


def _feeding(way: Hypothesis, image: Image) -> Change:
    return lambda x: way.feed(x, image.axis)


def _moved(x: np.ndarray, axis: int) -> np.ndarray:
    """Moved by a 16th of the width, the edge repeated."""
    size = x.shape[axis]
    at = np.maximum(np.arange(size) - max(1, size // 16), 0)
    return np.ascontiguousarray(np.take(x, at, axis=axis))


def _probabilities(scores: np.ndarray) -> np.ndarray:
    """float64[N, classes] that sum to 1: the scores themselves if they do, else their softmax."""
    p = scores.astype(np.float64)
    if (p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-3):
        return p
    p = np.exp(p - p.max(axis=1, keepdims=True))
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def _layers(model: Model) -> dict[str, tuple[np.ndarray, np.ndarray] | None]:
    """Outputs of 2-D convolutions -> the running mean and std of the normalization that reads
    them, None where it was folded away. Depthwise or not, but never the model's own outputs:
    nothing normalizes those."""
    graph = model.proto.graph
    ends = {value.name for value in graph.output}
    given = _constants(graph)
    norms = {n.input[0]: n for n in graph.node if n.op_type == "BatchNormalization"}
    found: dict[str, tuple[np.ndarray, np.ndarray] | None] = {}
    for node in graph.node:
        if node.op_type == "Conv" and _rank(given, node) == 4 and node.output[0] not in ends:
            norm = norms.get(node.output[0])
            found[node.output[0]] = None if norm is None else _running(norm, given)
    return found


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Weights by name, however the exporter stores them."""
    found = {i.name: i for i in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return found


def _rank(given: Mapping[str, onnx.TensorProto], node: onnx.NodeProto) -> int:
    weight = given.get(node.input[1])
    return 0 if weight is None else len(weight.dims)


def _running(
    norm: onnx.NodeProto, given: Mapping[str, onnx.TensorProto]
) -> tuple[np.ndarray, np.ndarray] | None:
    if any(name not in given for name in norm.input[3:5]):
        return None
    mean, variance = (
        numpy_helper.to_array(given[name]).astype(np.float64) for name in norm.input[3:5]
    )
    return mean, np.sqrt(np.maximum(variance, 1e-10))


def _with_moments(model: Model, layers: Mapping[str, object]) -> Model:
    """The model giving out, per layer and channel, the mean of the values and of their squares."""
    proto = copy_proto(model.proto)
    graph = proto.graph
    del graph.output[:]
    by_input = model.opset >= _AXES_AS_INPUT
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "audit/axes"))
    for name in layers:
        graph.node.append(helper.make_node("Mul", [name, name], [f"{name}/squared"]))
        for value, out in ((name, f"{name}/mean"), (f"{name}/squared", f"{name}/square")):
            inputs = [value, "audit/axes"] if by_input else [value]
            mean = helper.make_node("ReduceMean", inputs, [out], keepdims=0)
            if not by_input:
                mean.attribute.append(helper.make_attribute("axes", [2, 3]))
            graph.node.append(mean)
            graph.output.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, None))
    return model.derive(proto, ())
