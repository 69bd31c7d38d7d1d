"""A network of every kind of layer, and the noise of its INT8 forms measured the plain way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from helpers import run
from onnx import TensorProto
from tiny_models import model, node, normal, ranges_of, samples_of, target

from calibrators.ranges import Range
from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.artifacts.precision import LayerNoise
from deploy.artifacts.ranges import Ranges
from deploy.sensitivity.alone import Effort, sensitivity
from deploy.target import Target

CPU = target()


def chain(batch: int | str = "N") -> Model:
    """Four convolutions, a residual sum and a head: float32[N, 3, 9, 7] to float32[N, 6]."""
    weights = {
        "w0": normal(8, 3, 3, 3, seed=1, scale=0.2),
        "b0": normal(8, seed=2),
        "w1": normal(8, 1, 3, 3, seed=3, scale=0.3),
        "w2": normal(8, 8, 1, 1, seed=4, scale=0.3),
        "w3": normal(8, 8, 3, 3, seed=5, scale=0.1),
        "w4": normal(8, 6, seed=6, scale=0.4),
        "b4": normal(6, seed=7),
    }
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c1"], name="deep", group=8, pads=[1, 1, 1, 1]),
        node("Conv", ["c1", "w2"], ["c2"], name="point"),
        node("Add", ["c2", "r0"], ["s"], name="sum"),
        node("Relu", ["s"], ["r1"]),
        node("Conv", ["r1", "w3"], ["c3"], name="late", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["c3"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w4", "b4"], ["y"], name="head"),
    ]
    return model(nodes, {"x": [batch, 3, 9, 7]}, {"y": [batch, 6]}, weights)


def noises(
    model_: Model,
    ranges: Ranges | None = None,
    samples: Sequence[Sample] | None = None,
    to: Target = CPU,
) -> dict[str, LayerNoise]:
    found = sensitivity(
        model_, ranges or ranges_of(model_), to, samples or samples_of(model_, 12), Effort()
    )
    return {layer.layer: layer for layer in found.layers}


def widened(ranges: Ranges, name: str, times: float) -> Ranges:
    """As a calibrator that was caught by an outlier of that tensor would say."""
    old = ranges.tensors[name]
    wide = replace(old, range=Range(old.range.low * times, old.range.high * times))
    return Ranges({**ranges.tensors, name: wide}, ranges.source)


def outputs(model_: Model, samples: Sequence[Sample]) -> np.ndarray:
    return np.stack([run(model_, s.feeds)[model_.outputs[0].name] for s in samples])


def noise_db(
    exact: Model, other: Model, samples: Sequence[Sample], *, constant: bool = True
) -> float:
    """Noise over signal in dB; constant: the part that every sample has counts too."""
    truth = outputs(exact, samples).astype(np.float64)
    error = outputs(other, samples) - truth
    power = np.sum(error**2) if constant else np.sum(error.var(axis=0, ddof=1)) * len(samples)
    return float(10 * np.log10(power / np.sum(truth**2)))


def heads(scale: float) -> Model:
    """Two float heads, one `scale` times as large, and one of integers."""
    nodes = [
        node("Conv", ["x", "w0"], ["c"], name="trunk", pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "w1"], ["y1"], name="left"),
        node("Conv", ["r", "w2"], ["y2"], name="right"),
        node("ArgMax", ["y1"], ["y3"], name="classes", axis=1),
    ]
    weights = {
        "w0": normal(4, 3, 3, 3, seed=1),
        "w1": normal(5, 4, 1, 1, seed=2),
        "w2": normal(2, 4, 1, 1, seed=3, scale=scale),
    }
    sizes = {"y1": ["N", 5, 6, 8], "y2": ["N", 2, 6, 8]}
    integers = {"y3": (TensorProto.INT64, ["N", 1, 6, 8])}
    return model(nodes, {"x": ["N", 3, 6, 8]}, {**sizes, **integers}, weights)
