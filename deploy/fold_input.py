"""An engine that takes raw images: uint8[N, H, W, C] in RGB, as a camera or a decoder gives them.

Color order, scale, mean, std and layout move into the graph, as Transpose, Cast, Gather, Sub and
Mul. The fusions then absorb what they can without changing a number: the scale and the order of the
channels go into the first convolution's weights; the mean stays a Sub in front of it where the
convolution pads (a pad of zero after normalizing is not a pad of zero before), else it becomes
bias. It pays because the host neither converts nor copies the image to four times its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from calibrators.preprocess import Preprocess
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Decision, Model, TensorSpec
from deploy.backends import reference
from deploy.errors import BuildError, RecipeError
from deploy.surgery.graph import to_graph, to_model


def fold_input(model: Model, preprocess: Preprocess) -> Model:
    """The model with its image input as raw uint8 of the same name; resize and crop stay outside.

    RecipeError unless exactly one input is a float32 image with the channels of the recipe.
    """
    name = _image_input(model, preprocess)
    graph = to_graph(model)
    old = next(value for value in graph.inputs if value.name == name)
    batch, *sizes = old.shape
    if preprocess.layout == "NCHW":
        sizes = [*sizes[1:], sizes[0]]
    raw = gs.Variable(name, np.uint8, [batch, *sizes])
    graph.inputs = [raw if value is old else value for value in graph.inputs]
    old.name = f"{name}/normalized"
    graph.nodes.extend(_normalizing(raw, old, preprocess))
    reason = "raw uint8 images go in; color order, scale, mean, std and layout are in the graph"
    return to_model(graph, model, [Decision("fold_input", "fold_input", "applied", name, reason)])


def _image_input(model: Model, preprocess: Preprocess) -> str:
    channel = 1 if preprocess.layout == "NCHW" else 3
    images = [
        spec
        for spec in model.inputs
        if spec.dtype == np.float32
        and len(spec.shape) == 4
        and spec.shape[channel] == preprocess.channels
    ]
    if len(images) != 1:
        found = ", ".join(str(spec) for spec in model.inputs)
        raise RecipeError(
            f"--fold-input: {len(images)} of the inputs ({found}) are float32 images of "
            f"{preprocess.channels} channels in {preprocess.layout}; it takes exactly one, see "
            "--layout and --color"
        )
    return images[0].name


def _normalizing(raw: gs.Variable, out: gs.Tensor, preprocess: Preprocess) -> list[gs.Node]:
    """(x - mean / scale) * (scale / std), in the recipe's color order and layout."""
    first = preprocess.layout == "NCHW"
    per_channel = (1, -1, 1, 1) if first else (1, 1, 1, -1)
    scale = 1 / 255 if preprocess.scale is None else preprocess.scale
    mean = np.asarray(preprocess.mean or (0.0,), np.float64)
    std = np.asarray(preprocess.std or (1.0,), np.float64)
    middle = (mean / scale).astype(np.float32).reshape(per_channel)
    factor = (scale / std).astype(np.float32).reshape(per_channel)
    steps: list[tuple[str, dict[str, object], np.ndarray | None]] = []
    if first:
        steps.append(("Transpose", {"perm": [0, 3, 1, 2]}, None))
    steps.append(("Cast", {"to": int(onnx.TensorProto.FLOAT)}, None))
    if preprocess.color == "BGR":
        steps.append(("Gather", {"axis": 1 if first else 3}, np.asarray([2, 1, 0])))
    if middle.any():
        steps.append(("Sub", {}, middle))
    steps.append(("Mul", {}, factor))
    nodes: list[gs.Node] = []
    value: gs.Tensor = raw
    for index, (op, attrs, constant) in enumerate(steps):
        label = f"{raw.name}/{op}"
        inputs = [value] if constant is None else [value, gs.Constant(f"{label}_by", constant)]
        value = out if index == len(steps) - 1 else gs.Variable(label)
        nodes.append(gs.Node(op, label, attrs, inputs, [value]))
    return nodes


def exact_engine(source: Model, fed_like: Model, preprocess: Preprocess) -> Engine:
    """The untouched model in float32, fed as `fed_like` is: raw images where it takes them."""
    exact = reference.build_exact(source)
    return FromRawImages(exact, fed_like, preprocess) if preprocess.raw else exact


class FromRawImages(Engine):
    """An engine of the untouched model, fed with raw images: what parity compares with."""

    def __init__(self, engine: Engine, folded: Model, preprocess: Preprocess) -> None:
        super().__init__(folded.inputs, engine.outputs)
        self._engine = engine
        self._preprocess = preprocess
        self._image = _changed(engine.inputs, folded.inputs)

    def save(self, folder: Path) -> None:
        raise BuildError("the reference for raw images is not an engine to save")

    def close(self) -> None:
        super().close()
        self._engine.close()

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._engine.run(self._normalized(feeds))

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        return self._engine.prepare(self._normalized(feeds))

    def _normalized(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        images = [self._preprocess.normalized(image) for image in feeds[self._image]]
        return {**feeds, self._image: np.stack(images)}


def _changed(old: tuple[TensorSpec, ...], new: tuple[TensorSpec, ...]) -> str:
    return next(a.name for a, b in zip(old, new, strict=True) if a.dtype != b.dtype)
