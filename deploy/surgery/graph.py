"""Between a `Model` and onnx-graphsurgeon's linked graph, where all surgery happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx
import onnx.checker
import onnx.shape_inference
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.logger import G_LOGGER

from deploy.artifacts.model import Decision, Model, graphs
from deploy.errors import ModelError, one_line

# kinds of value that graphsurgeon can hold and write; others (optional, map) it can only hold
_WRITTEN = ("tensor_type", "sequence_type", "sparse_tensor_type")

# operators whose output shape ONNX doesn't infer; nor does it for any of a domain of its own
_NOT_INFERRED = ("GroupNormalization",)

# its remarks go to standard output, where `--json` promises one object
G_LOGGER.severity = G_LOGGER.ERROR


def to_graph(model: Model) -> gs.Graph:
    """A linked copy of the model with shapes inferred and `Constant` nodes turned into weights."""
    graph = gs.import_onnx(infer(model.proto))
    for node in graph.nodes:
        values = _constant_values(node) if node.op == "Constant" else None
        # a constant that is a graph output keeps its node
        if values is not None and not any(node.outputs[0] is o for o in graph.outputs):
            _replace_value(node.outputs[0], gs.Constant(node.outputs[0].name, values))
    graph.cleanup(remove_unused_graph_inputs=False)
    for tensor in graph.outputs:
        tensor.is_model_output = True  # graphsurgeon's tensors don't know it
    _forget_unwritten_types(graph)
    return graph


def to_model(graph: gs.Graph, origin: Model, decisions: Iterable[Decision]) -> Model:
    """The graph as a checked model; ModelError when a rewrite broke a rule of ONNX."""
    graph.cleanup(remove_unused_graph_inputs=False).toposort()
    proto = gs.export_onnx(graph, do_type_check=False, ir_version=origin.proto.ir_version)
    # the shape of these outputs is known from before, or not at all
    unknown = [node for node in graph.nodes if node.op in _NOT_INFERRED or node.domain]
    kept = {tensor.name for node in unknown for tensor in node.outputs}
    # exported shapes were inferred before the rewrite: infer them again from the inputs alone
    for index, value in reversed(list(enumerate(proto.graph.value_info))):
        if value.name not in kept:
            del proto.graph.value_info[index]
    _keep_other_types(proto, origin.proto)
    proto = verified(proto, origin.name)
    return origin.derive(proto, decisions)


def _forget_unwritten_types(graph: gs.Graph) -> None:
    """Leave the types that graphsurgeon can't write to inference, and those of ports to the
    original."""
    for tensor in graph.tensors().values():
        if isinstance(tensor, gs.Variable) and tensor.type not in _WRITTEN:
            tensor.dtype = None
    for node in graph.nodes:
        for body in node.subgraphs():
            _forget_unwritten_types(body)


def _keep_other_types(proto: onnx.ModelProto, origin: onnx.ModelProto) -> None:
    """Give back what graphsurgeon loses: the types of inputs and outputs that aren't tensors,
    element shapes included, and the type that an Optional without a value has."""
    ports = {v.name: v.type for v in (*origin.graph.input, *origin.graph.output)}
    for value in (*proto.graph.input, *proto.graph.output):
        kept = ports.get(value.name)
        if kept is not None and not kept.HasField("tensor_type"):
            value.type.CopyFrom(kept)
    empty = {
        n.output[0]: n for g in graphs(origin.graph) for n in g.node if n.op_type == "Optional"
    }
    for graph in graphs(proto.graph) if empty else ():
        for node in graph.node:
            if node.op_type == "Optional" and not node.attribute and node.output[0] in empty:
                node.attribute.extend(empty[node.output[0]].attribute)


def infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every inferable shape written down (a copy)."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    # onnxslim describes an output a second time, without its shape, and graphsurgeon takes that
    outputs = {value.name for value in inferred.graph.output}
    for index, value in reversed(list(enumerate(inferred.graph.value_info))):
        if value.name in outputs:
            del inferred.graph.value_info[index]
    return inferred


def verified(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with shapes inferred, after the ONNX checker and strict inference accept it."""
    try:
        onnx.checker.check_model(proto)
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"{name}: a rewrite left an invalid graph: {one_line(error)}; report this, and build "
            "with a target file whose fusions leave out the last one"
        ) from None


def label(node: gs.Node) -> str:
    """The node's name, or its operator and first output where the exporter gave none."""
    return node.name or f"{node.op} -> {node.outputs[0].name if node.outputs else '?'}"


def producer(tensor: gs.Tensor) -> gs.Node | None:
    """The node that computes a tensor; None for inputs and weights."""
    return tensor.inputs[0] if tensor.inputs else None


def is_output(tensor: gs.Tensor) -> bool:
    """Whether the model gives this value out, so that its name and content must stay."""
    return bool(getattr(tensor, "is_model_output", False))


def constant(tensor: gs.Tensor) -> np.ndarray | None:
    """A weight's values; None when the tensor is computed at run time."""
    return np.asarray(tensor.values) if isinstance(tensor, gs.Constant) else None


def elements(tensor: gs.Tensor) -> int | None:
    """How many elements per sample: symbolic dimensions count as 1; None for unknown shapes."""
    if tensor.shape is None:
        return None
    return int(np.prod([d if isinstance(d, int) and d > 0 else 1 for d in tensor.shape]))


def rank(tensor: gs.Tensor) -> int | None:
    """How many dimensions a tensor has; None for unknown shapes."""
    return None if tensor.shape is None else len(tensor.shape)


def itemsize(tensor: gs.Tensor) -> int:
    """Bytes per element; 4, a float's, where the type is unknown."""
    if isinstance(tensor.dtype, int):  # those NumPy lacks (bfloat16, float8) are ONNX numbers
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype).itemsize
    return 4 if tensor.dtype is None else np.dtype(tensor.dtype).itemsize


def _constant_values(node: gs.Node) -> np.ndarray | None:
    """What a Constant node holds; None for strings and sparse tensors."""
    if isinstance(node.attrs.get("value"), gs.Constant):
        return np.asarray(node.attrs["value"].values)
    for kind, dtype in (("float", np.float32), ("int", np.int64)):
        for key in (f"value_{kind}", f"value_{kind}s"):
            if key in node.attrs:
                return np.asarray(node.attrs[key], dtype)
    return None


def _replace_value(old: gs.Tensor, new: gs.Tensor) -> None:
    read_instead(old, new)
    old.inputs.clear()


def read_instead(old: gs.Tensor, new: gs.Tensor) -> None:
    """All that read `old` read `new`."""
    for reader in list(old.outputs):
        for index, value in enumerate(reader.inputs):
            if value is old:
                reader.inputs[index] = new


def names_in_use(nodes: Sequence[gs.Node]) -> set[str]:
    """Every tensor name around those nodes."""
    return {t.name for n in nodes for t in (*n.inputs, *n.outputs)}
