"""The weights of a graph's layers: what each is multiplied with, along which axis, by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.surgery.graph import constant, is_output, label
from deploy.weights.second_moments import Reader, Window

# operator -> the input that holds its weights
_WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Conv": 1, "Gather": 0}
_FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, eq=False)
class LayerWeight:
    """A float32 weight of one or more layers that all agree on its output channels.

    axis: of the output channels. end: "first" or "last" where no other layer lies before or behind.
    """

    tensor: gs.Constant
    values: np.ndarray
    nodes: tuple[gs.Node, ...]
    axis: int
    end: str = ""

    @property
    def name(self) -> str:
        return str(self.tensor.name)

    @property
    def ops(self) -> tuple[str, ...]:
        return tuple(str(node.op) for node in self.nodes)

    @property
    def columns(self) -> int:
        """How many products one output sums."""
        return int(self.values.size // self.values.shape[self.axis])

    @property
    def matrix(self) -> bool:
        """Whether it is one matrix, whose other axis can be cut into blocks."""
        return self.values.ndim == 2 and "Conv" not in self.ops

    @property
    def readers(self) -> tuple[Reader, ...]:
        """What the weight is multiplied with; empty where that can't be observed."""
        found = [_reader(node) for node in self.nodes]
        return tuple(r for r in found if r is not None) if None not in found else ()

    def rows(self) -> np.ndarray:
        """float32[output channels, columns]."""
        return np.moveaxis(self.values, self.axis, 0).reshape(self.values.shape[self.axis], -1)

    def shaped(self, rows: np.ndarray) -> np.ndarray:
        """Rows put back into the weight's own shape."""
        moved = np.moveaxis(self.values, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, self.axis))

    def hessian(self, moments: Mapping[Reader, np.ndarray]) -> np.ndarray | None:
        """float64[groups, k, k]: the sum over all readers; None when one wasn't measured."""
        parts = [moments.get(reader) for reader in self.readers]
        known = [part for part in parts if part is not None]
        return None if len(known) < len(parts) or not known else np.sum(known, axis=0)

    def replace(self, other: gs.Tensor) -> None:
        """Let every layer read another tensor instead."""
        for node in self.nodes:
            node.inputs[_WEIGHT_INPUT[node.op]] = other


def layer_weights(
    graph: gs.Graph, layers: Sequence[str], smallest_bytes: int
) -> tuple[list[LayerWeight], list[Decision]]:
    """The weights that can be stored in fewer bits, and a reason for each that can't."""
    ends = _ends(graph)
    found: list[LayerWeight] = []
    skipped: list[Decision] = []
    for tensor in _weights(graph):
        reason = _refusal(tensor, layers, smallest_bytes)
        if reason is not None:
            skipped.append(Decision("compress", "weights", "skipped", tensor.name, reason))
            continue
        nodes = tuple({id(node): node for node in tensor.outputs}.values())
        end = next((ends[id(node)] for node in nodes if id(node) in ends), "")
        values = np.asarray(tensor.values)
        found.append(LayerWeight(tensor, values, nodes, _output_axis(nodes[0]), end))
    return found, skipped


def _weights(graph: gs.Graph) -> list[gs.Constant]:
    """Every tensor that is some layer's weight, once, in the order of the layers."""
    read = [_weight(node) for node in graph.nodes]
    return list({id(tensor): tensor for tensor in read if tensor is not None}.values())


def _weight(node: gs.Node) -> gs.Constant | None:
    """The float weight of a layer, of whatever type; None for other nodes."""
    index = _WEIGHT_INPUT.get(node.op)
    if index is None or node.domain not in (None, "", "ai.onnx") or len(node.inputs) <= index:
        return None
    values = constant(node.inputs[index])
    if values is None or values.dtype.name not in _FLOATS or values.ndim < 2:
        return None
    if isinstance(node.inputs[1 - index], gs.Constant):
        return None
    if node.op == "Gather" and (values.ndim != 2 or node.attrs.get("axis", 0) != 0):
        return None
    return node.inputs[index]


def _refusal(tensor: gs.Constant, layers: Sequence[str], smallest_bytes: int) -> str | None:
    """Why a weight stays float; None when every reader can have it compressed."""
    readers = list(tensor.outputs)
    kind = np.asarray(tensor.values).dtype
    if kind != np.float32:
        return f"its values are {kind}; integers are made of float32 only"
    for node in readers:
        if _weight(node) is not tensor:
            return f"{label(node)!r} reads it as well, and needs it in float"
        if node.op not in layers:
            return f"weights of {node.op} stay float on this target"
    if len({_output_axis(node) for node in readers}) > 1:
        return "its layers have their output channels along different axes"
    if is_output(tensor):
        return "it is an output of the model"
    size = int(np.asarray(tensor.values).nbytes)
    if size < smallest_bytes:
        return f"{size} bytes, below {smallest_bytes}: nothing to gain"
    return None


def _output_axis(node: gs.Node) -> int:
    if node.op == "MatMul":
        return len(node.inputs[1].shape) - 1
    return 1 if node.op == "Gemm" and not node.attrs.get("transB", 0) else 0


def _reader(node: gs.Node) -> Reader | None:
    """What a layer multiplies with its weight; None where that isn't a plain tensor or window."""
    source = str(node.inputs[0].name)
    if node.op == "MatMul" or (node.op == "Gemm" and not node.attrs.get("transA", 0)):
        return Reader(source)
    kernel = tuple(node.inputs[1].shape[2:])
    if node.op != "Conv" or len(kernel) != 2 or node.attrs.get("auto_pad", "NOTSET") != "NOTSET":
        return None
    window = Window(
        kernel,
        tuple(node.attrs.get("strides", (1, 1))),
        tuple(node.attrs.get("dilations", (1, 1))),
        tuple(node.attrs.get("pads", (0, 0, 0, 0))),
        int(node.attrs.get("group", 1)),
    )
    return Reader(source, window)


def _ends(graph: gs.Graph) -> dict[int, str]:
    """By node id: "first" for layers with no layer before them, "last" for none behind."""
    graph.toposort()
    layers = [node for node in graph.nodes if _weight(node) is not None]
    first, last = _outermost(graph.nodes), _outermost(list(reversed(graph.nodes)), back=True)
    ends = {id(node): "last" for node in layers if id(node) in last}
    return ends | {id(node): "first" for node in layers if id(node) in first}


def _outermost(nodes: Sequence[gs.Node], *, back: bool = False) -> set[int]:
    """Ids of the layers that are met first on every way through the nodes, in this order."""
    passed: set[int] = set()
    found: set[int] = set()
    for node in nodes:
        near, far = (node.outputs, node.inputs) if back else (node.inputs, node.outputs)
        behind = any(id(tensor) in passed for tensor in near)
        is_layer = _weight(node) is not None
        if is_layer and not behind:
            found.add(id(node))
        if is_layer or behind:
            passed.update(id(tensor) for tensor in far)
    return found
