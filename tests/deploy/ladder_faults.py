"""One build's graphs, and twenty ways to break one of them between two stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
from helpers import MODELS
from onnx import numpy_helper
from tiny_models import DIGITS

from calibrators.ranges import Range
from calibrators.samples import Sample
from deploy.artifacts.model import Model, copy_proto
from deploy.artifacts.ranges import Ranges
from deploy.build import build, load_engine
from deploy.calibrate import calibrate
from deploy.correct import correct
from deploy.data import open_data
from deploy.equalize import equalize
from deploy.fuse import fuse
from deploy.ladder.climb import Shipped, Way
from deploy.load import load, read
from deploy.quantize import quantize
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.target import Target

CPU = Target.load("cpu")
STAGES = ("loaded", "simplified", "fused", "equalized", "uncorrected", "quantized")


@dataclass(frozen=True)
class Build:
    """A model's graphs by stage, the ranges, and samples to judge on."""

    graphs: Mapping[str, Model]
    ranges: Ranges
    samples: list[Sample]
    calibration: list[Sample]


@lru_cache(maxsize=4)
def built(
    model: Path,
    recipe_rows: tuple[tuple[str, object], ...],
    keys: tuple[tuple[str, str], ...] = (),
    target: Target = CPU,
) -> Build:
    """The line's stages on 64 calibration samples, judged on 4 others."""
    rows = {"samples": 64, "eval_samples": 4, "data_key": dict(keys), **dict(recipe_rows)}
    recipe = Recipe.read(None, rows)
    source = read(model)
    data = open_data(recipe, load(source, recipe.shape))
    assert data.calibration is not None
    graphs = {"source": source}
    calibration = list(data.calibration)
    return go_on(Build(graphs, None, list(data.evaluation), calibration), "source", recipe, target)  # type: ignore[arg-type]


def digits() -> Build:
    """The example's network."""
    rows = (("data", str(DIGITS / "calib.npz")), ("eval_data", str(DIGITS / "test.npz")))
    return built(DIGITS / "digits.onnx", rows)


CIFAR = {"eval_data": "cifar10/test_400.npz", "data": "cifar10/calib_500.npz", "scale": 1 / 255}


def real(name: str, recipe: Mapping[str, object]) -> Build:
    """A shared model on shared data, whose paths are relative to its folder."""
    rows = dict(recipe)
    for key in ("data", "eval_data"):
        rows[key] = str(MODELS.parent / "data" / str(rows[key]))
    keys = {"input": "x", "labels": "y"}
    return built(MODELS / f"{name}.onnx", tuple(rows.items()), tuple(keys.items()))


def go_on(start: Build, stage: str, recipe: Recipe | None = None, target: Target = CPU) -> Build:
    """All stages behind one, made again from what that gave."""
    graphs, samples = dict(start.graphs), start.calibration
    ranges = start.ranges
    make: dict[str, Callable[[], Model]] = {
        "loaded": lambda: load(graphs["source"], recipe.shape if recipe else {}),
        "simplified": lambda: simplify(graphs["loaded"]),
        "fused": lambda: fuse(graphs["simplified"], target.fusions),
        "equalized": lambda: equalize(
            graphs["fused"], samples, target.equalizations, symmetric=False
        ),
        "uncorrected": lambda: quantize(graphs["equalized"], ranges, target),
        "quantized": lambda: correct(
            graphs["uncorrected"], graphs["equalized"], samples, target.corrections
        ),
    }
    order = ("source", *STAGES)
    for name in order[order.index(stage) + 1 :]:
        if name == "uncorrected" and stage != "ranges":
            ranges = calibrate(graphs["equalized"], samples, "auto")
        graphs[name] = make[name]()
    return replace(start, graphs=graphs, ranges=ranges)


Edit = Callable[[onnx.GraphProto, onnx.NodeProto], None]


def broken(model: Model, output: str, edit: Edit) -> Model:
    """The model with the node that makes `output` changed."""
    proto = copy_proto(model.proto)
    node = next(n for n in proto.graph.node if output in n.output)
    edit(proto.graph, node)
    return Model(proto, model.name, model.decisions)


def weight(graph: onnx.GraphProto, name: str) -> onnx.TensorProto:
    return next(w for w in graph.initializer if w.name == name)


def changed(change: Callable[[np.ndarray], np.ndarray], index: int = 1) -> Edit:
    """Another value for a node's stored input; through its DequantizeLinear where it has one."""

    def edit(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        name, place = node.input[index], 0
        made = {o: n for n in graph.node for o in n.output}
        if name in made:
            name = made[name].input[place]
        stored = weight(graph, name)
        values = numpy_helper.to_array(stored).copy()
        stored.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), name))

    return edit


def pair_changed(change: Callable[[np.ndarray], np.ndarray], index: int, which: int) -> Edit:
    """Another scale (1) or zero point (2) for the DequantizeLinear in front of input `which`."""

    def edit(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        made = {o: n for n in graph.node for o in n.output}
        pair = made[node.input[which]]
        values = numpy_helper.to_array(weight(graph, pair.input[index]))
        name = f"{pair.output[0]}/broken"
        graph.initializer.append(
            numpy_helper.from_array(change(values.copy()).astype(values.dtype), name)
        )
        own = onnx.NodeProto()
        own.CopyFrom(pair)
        own.name, own.output[0], own.input[index] = name, f"{name}/out", name
        graph.node.insert(list(graph.node).index(node), own)
        node.input[which] = own.output[0]

    return edit


def coarser(factor: float) -> Edit:
    """The steps of an activation that is read, wider in QuantizeLinear and in all that undo it."""

    def edit(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        made = {o: n for n in graph.node for o in n.output}
        integers = made[node.input[0]].input[0]
        values = numpy_helper.to_array(weight(graph, made[integers].input[1]))
        wide = (values * factor).astype(values.dtype)
        graph.initializer.append(numpy_helper.from_array(wide, f"{integers}/broken"))
        for each in graph.node:
            if integers in (each.output[0], each.input[0] if each.input else ""):
                each.input[1] = f"{integers}/broken"

    return edit


def swapped(x: np.ndarray) -> np.ndarray:
    """The channels in another order."""
    return np.roll(x, 1, axis=0)


def turned(x: np.ndarray) -> np.ndarray:
    """Kernels with height and width exchanged, or a matrix with its rows reversed."""
    return np.swapaxes(x, -1, -2) if x.ndim == 4 and x.shape[-1] > 1 else x[::-1]


def replaced(op: str) -> Edit:
    """Another operator in its place."""

    def edit(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        node.op_type = op

    return edit


def padded(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    """The picture moved by one pixel: as much padding, on the wrong side."""
    pads = next(a for a in node.attribute if a.name == "pads")
    pads.ints[:] = [2, 1, 0, 1]


def saturated(ranges: Ranges, tensor: str, share: float) -> Ranges:
    """The ranges with one that covers only a part of what was seen."""
    found = ranges.tensors[tensor]
    low, high = found.range.low * share, found.range.high * share
    return Ranges({**ranges.tensors, tensor: replace(found, range=Range(low, high))}, ranges.source)


def shipped(model: Model, folder: Path, precision: str = "int8") -> Shipped:
    """An engine of a graph, opened; close it."""
    folder.mkdir(parents=True, exist_ok=True)
    build(model, CPU, precision, folder)  # type: ignore[arg-type]
    engine = load_engine(folder, CPU, precision)  # type: ignore[arg-type]
    return Shipped(engine, precision, folder)


def way_of(build_: Build, engine: Shipped | None = None) -> Way:
    return Way(build_.graphs, build_.ranges, engine)
