"""A graph in two float types: what stays in float32 and why, and as few Casts as the rest takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from deploy.artifacts.model import Model
from deploy.floats.float_rules import (
    SHAPE_ONLY,
    Half,
    Rules,
    floats,
    gives,
    integers_as_floats,
    takes,
)
from deploy.surgery.graph import constant, to_graph, to_model
from deploy.surgery.opset import raise_for

# Conv, the pools and some activations take it since this opset
_OPSET_OF = {"bfloat16": 22}


def in_opset_of(half: Half, model: Model) -> Model:
    """The model in an opset whose operators take the type; itself where its own do, or where an
    operator would change its meaning."""
    wanted = _OPSET_OF.get(half.name, 0)
    if model.opset >= wanted:
        return model
    graph = to_graph(model)
    obstacle = raise_for(graph, wanted, half.name, ())
    return model if obstacle is not None else to_model(graph, model, model.decisions)


def reasons_for_float32(graph: gs.Graph, rules: Rules) -> dict[int, str]:
    """By node id, why it stays in float32; nodes without float32 inputs have none."""
    captured = {id(t) for sub in _bodies(graph) for node in sub.nodes for t in node.inputs}
    found = {}
    for node in graph.nodes:
        if not floats(node.inputs):
            why = integers_as_floats(node)
            if why is not None:
                rules.unfit |= {t.name: why for t in floats(node.outputs)}
            continue
        reason = rules.refusal(node)
        if reason is None and any(id(t) in captured for t in (*node.inputs, *node.outputs)):
            reason = "its value is read inside a loop or branch, in float32"
        if reason is not None and node.op not in SHAPE_ONLY:
            found[id(node)] = reason
    return found


def _bodies(graph: gs.Graph) -> Iterable[gs.Graph]:
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield value
                yield from _bodies(value)


def regions(nodes: list[gs.Node]) -> list[list[gs.Node]]:
    """The nodes in groups that hand values to each other."""
    group = {id(node): id(node) for node in nodes}

    def root(key: int) -> int:
        while group[key] != key:
            group[key] = key = group[group[key]]
        return key

    for node in nodes:
        for source in (p for t in node.inputs for p in t.inputs if id(p) in group):
            group[root(id(source))] = root(id(node))
    found: dict[int, list[gs.Node]] = {}
    for node in nodes:
        found.setdefault(root(id(node)), []).append(node)
    return list(found.values())


@dataclass
class Writer:
    """Gives every value the type of the node that computes it, and one Cast per other type."""

    graph: gs.Graph
    half: Half
    opset: int
    narrow: set[int]
    keep_io: bool
    count: int = 0
    # by tensor and wanted type
    others: dict[tuple[int, bool], gs.Tensor] = field(default_factory=dict)

    def write(self) -> None:
        nodes = list(self.graph.nodes)
        # all is decided before a type is changed: then nothing is float32 that looks like it
        reads = [
            (node, index, tensor, self._reads_half(node, index))
            for node in nodes
            if node.op not in SHAPE_ONLY
            for index, tensor in enumerate(node.inputs)
            if floats([tensor])
        ]
        outputs = [t for t in floats(self.graph.outputs) if t.inputs]
        halved = self._halve(nodes)
        for tensor in outputs:
            if self.keep_io == (id(tensor) in halved):
                self._port(tensor)
                halved ^= {id(tensor)}
        for node, index, tensor, narrow in reads:
            if narrow != (id(tensor) in halved):
                node.inputs[index] = self._other(tensor, narrow)

    def _reads_half(self, node: gs.Node, index: int) -> bool:
        return id(node) in self.narrow and takes(node, index, self.opset, self.half)

    def _halve(self, nodes: list[gs.Node]) -> set[int]:
        """Give 16 bits to what is computed, or comes in, in them; the ids of those values."""
        values = [
            tensor
            for node in nodes
            if id(node) in self.narrow
            for index, tensor in enumerate(node.outputs)
            if floats([tensor]) and gives(node, index, self.opset, self.half)
        ]
        if not self.keep_io:
            values += floats(self.graph.inputs)
        for tensor in values:
            self._retype(tensor, narrow=True)
        return {id(tensor) for tensor in values}

    def _retype(self, tensor: gs.Tensor, *, narrow: bool) -> None:
        wide, half = np.dtype(np.float32), self.half
        known = half.onnx_type == onnx.TensorProto.FLOAT16
        tensor.dtype = wide if not narrow else np.dtype(np.float16) if known else half.onnx_type

    def _other(self, tensor: gs.Tensor, narrow: bool) -> gs.Tensor:
        """The value in that type: a weight stored in it, or one Cast for all readers."""
        key = (id(tensor), narrow)
        if key not in self.others:
            values = constant(tensor)
            if values is None:
                self.others[key] = self._variable(tensor, narrow)
                self._cast(tensor, self.others[key], narrow=narrow)
            else:
                self.others[key] = self._stored(tensor.name, values)
        return self.others[key]

    def _port(self, tensor: gs.Tensor) -> None:
        """An output of the model takes the other type under its name, behind a Cast."""
        narrow = self.keep_io
        inner = self._variable(tensor, narrow)
        node = tensor.inputs[0]
        node.outputs[[t is tensor for t in node.outputs].index(True)] = inner
        self._retype(tensor, narrow=not narrow)
        self._cast(inner, tensor, narrow=not narrow)
        self.others[id(tensor), narrow] = inner

    def _variable(self, like: gs.Tensor, narrow: bool) -> gs.Variable:
        name = f"{like.name}/{self.half.name if narrow else 'float32'}"
        made = gs.Variable(name, None, like.shape)
        self._retype(made, narrow=narrow)
        return made

    def _stored(self, name: str, values: np.ndarray) -> gs.Constant:
        name = f"{name}/{self.half.name}"
        return gs.Constant(
            name, LazyValues(onnx.numpy_helper.from_array(values.astype(self.half.dtype), name))
        )

    def _cast(self, source: gs.Tensor, made: gs.Tensor, *, narrow: bool) -> None:
        to = self.half.onnx_type if narrow else onnx.TensorProto.FLOAT
        self.graph.nodes.append(gs.Node("Cast", f"{made.name}/Cast", {"to": to}, [source], [made]))
        self.count += 1
