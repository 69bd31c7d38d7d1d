"""Small models, seeded samples and a fake engine for the tests of the back half of the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model, TensorSpec
from deploy.artifacts.ranges import Ranges
from deploy.calibrate import calibrate
from deploy.quantize import quantize
from deploy.target import Quantization, Target

node = helper.make_node
ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
Shape = Sequence[int | str]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape | tuple[int, Shape]],
    outputs: Mapping[str, Shape | tuple[int, Shape]],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
) -> Model:
    """A checked model with inferred shapes; a value is a shape, or (element type, shape)."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [_value(name, what) for name, what in inputs.items()],
        [_value(name, what) for name, what in outputs.items()],
        [numpy_helper.from_array(w, name) for name, w in (weights or {}).items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto)
    proto = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    return Model(proto, "tiny")


def _value(name: str, what: Shape | tuple[int, Shape]) -> onnx.ValueInfoProto:
    if len(what) == 2 and isinstance(what[1], (list, tuple)):
        return helper.make_tensor_value_info(name, what[0], what[1])
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, what)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Seeded normal values, shifted so that nothing is symmetric."""
    values = np.random.default_rng(seed).standard_normal(shape) + 0.1
    return (scale * values).astype(np.float32)


def conv(batch: int | str = "N") -> Model:
    """One 3x3 convolution with bias on float32[N, 3, 5, 7]."""
    weights = {"w": normal(4, 3, 3, 3, seed=1), "b": normal(4, seed=2)}
    return model(
        [node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        {"x": [batch, 3, 5, 7]},
        {"y": [batch, 4, 5, 7]},
        weights,
    )


def residual(batch: int | str = "N") -> Model:
    """conv -> relu -> conv -> + -> relu -> pool -> gemm: float32[N, 3, 6, 8] to float32[N, 5]."""
    weights = {
        "w1": normal(4, 3, 3, 3, seed=1, scale=0.3),
        "b1": normal(4, seed=2),
        "w2": normal(4, 4, 3, 3, seed=3, scale=0.3),
        "w3": normal(5, 4, seed=4),
        "b3": normal(5, seed=5),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], name="relu1"),
        node("Conv", ["r1", "w2"], ["c2"], name="conv2", pads=[1, 1, 1, 1]),
        node("Add", ["r1", "c2"], ["s"], name="add"),
        node("Relu", ["s"], ["r2"], name="relu2"),
        node("GlobalAveragePool", ["r2"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flatten"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="head", transB=1),
    ]
    return model(nodes, {"x": [batch, 3, 6, 8]}, {"y": [batch, 5]}, weights)


def samples_of(model_: Model, count: int, seed: int = 9) -> list[Sample]:
    """Seeded samples; every one has another scale, so each of them matters for a range."""
    found = []
    for index in range(count):
        random = np.random.default_rng([seed, index])
        feeds = {}
        for spec in model_.inputs:
            shape = [1, *(d or 1 for d in spec.shape[1:])]
            if spec.dtype.kind == "f":
                values = random.standard_normal(shape) * (1 + index / count) + 0.2
            else:
                values = random.integers(0, 5, shape)
            feeds[spec.name] = np.asarray(values, spec.dtype)
        found.append(Sample(f"sample {index}", feeds))
    return found


def ranges_of(model_: Model, count: int = 8, calibrator: str = "minmax") -> Ranges:
    return calibrate(model_, samples_of(model_, count), calibrator)


def target(**quantization: object) -> Target:
    """The cpu target, its quantization changed."""
    form = Quantization.model_validate(quantization)
    # Q/DQ as they are placed; what lets data move as integers has tests of its own
    update = {"quantization": form, "quantized_fusions": ()}
    return Target.load("cpu").model_copy(update=update)


def quantized(model_: Model, **quantization: object) -> Model:
    return quantize(model_, ranges_of(model_), target(**quantization))


def weights_of(model_: Model) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model_.proto.graph.initializer}


class FakeEngine(Engine):
    """Computes its outputs with a Python function, one array per sample's row."""

    def __init__(
        self,
        compute: Callable[[np.ndarray], Mapping[str, np.ndarray]],
        outputs: Mapping[str, tuple[int | None, ...]],
        batch: int | None = None,
        log: list[str] | None = None,
        name: str = "fake",
    ) -> None:
        specs = [TensorSpec(n, np.dtype(np.float32), shape) for n, shape in outputs.items()]
        super().__init__((TensorSpec("x", np.dtype(np.float32), (batch, 3)),), tuple(specs))
        self.compute = compute
        self.log = log if log is not None else []
        self.name = name

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.log.append(f"run {self.name}")
        return dict(self.compute(feeds["x"]))

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        self.log.append(f"prepare {self.name}")
        return lambda: self.log.append(self.name)
