"""A model stored in float16 or bfloat16, as the float32 model integers are made from.

    x f16 -> Conv(W f16) -> y f16   =>   x f16 -> Cast -> Conv(W f32) -> Cast -> y f16

Q/DQ goes around float32 only, and so do the rewrites that make INT8 good. float32 holds every
float16 and bfloat16 number, so no weight changes; what the model rounds between its layers because
it is stored so isn't rounded any more. float64 is left: it doesn't fit, and vendors lack it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import helper

from deploy.artifacts.model import Decision, Model, copy_proto, graphs
from deploy.floats.widen import retype, stored_tensors
from deploy.quantizable import LAYERS
from deploy.surgery.graph import infer, is_output, producer, read_instead, to_graph, to_model

_FLOAT = onnx.TensorProto.FLOAT
STORED: dict[int, str] = {
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
}


def widen(model: Model) -> Model:
    """The model computing in float32; names and types of inputs and outputs stay.

    Unchanged where no layer computes in a smaller float type.
    """
    kinds = computed_kinds(model)
    if not kinds:
        return model.derive(model.proto, ())
    names = " and ".join(STORED[kind] for kind in sorted(kinds))
    proto = copy_proto(model.proto)
    _forget_other_types(proto)
    ports, casts = _apart(proto.graph, kinds)
    weights = sum(t.data_type in kinds for t in stored_tensors(proto))
    retype(proto, kinds)
    for port in (*proto.graph.input, *proto.graph.output):
        if port.name in ports:
            port.type.tensor_type.elem_type = ports[port.name]
    given = [node for node in casts if node.input[0] in ports]
    nodes = [*given, *proto.graph.node, *(node for node in casts if node not in given)]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    graph = to_graph(model.derive(proto, ()))
    dropped = _drop_casts(graph)
    reason = (
        f"stored in {names}, integers are made from it in float32: {weights} weights and constants "
        f"widened without loss, {dropped} Casts between float types dropped; "
        f"{_kept(ports)}; judged against the model as it was given"
    )
    return to_model(graph, model, [Decision("widen", names, "applied", model.name, reason)])


def computed_kinds(model: Model) -> set[int]:
    """The smaller float types in which layers with weights compute, by ONNX number."""
    # most models have none, and inference takes time
    if not any(kind in STORED for kind in _mentioned(model.proto)):
        return set()
    graph = infer(model.proto).graph
    types = {v.name: v.type.tensor_type.elem_type for v in _values(graph)}
    types |= {w.name: w.data_type for w in graph.initializer}
    tables = {w.name for w in graph.initializer if len(w.dims) == 2}
    found: set[int] = set()
    for node in graph.node:
        if node.op_type in LAYERS or (node.op_type == "Gather" and node.input[0] in tables):
            found |= {types.get(name, 0) for name in node.input}
    return found & STORED.keys()


def in_words(model: Model) -> str:
    """What became of the float type, for the line of a build."""
    return "; ".join(decision.reason for decision in model.decisions) or "nothing to do"


def _mentioned(proto: onnx.ModelProto) -> Iterable[int]:
    yield from (t.data_type for t in stored_tensors(proto))
    for graph in graphs(proto.graph):
        yield from (v.type.tensor_type.elem_type for v in _values(graph))


def _values(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    return [*graph.input, *graph.output, *graph.value_info]


def _forget_other_types(proto: onnx.ModelProto) -> None:
    """Leave inner sequences and optionals to inference: their elements' type changes."""
    for graph in graphs(proto.graph):
        for index, value in reversed(list(enumerate(graph.value_info))):
            if not value.type.HasField("tensor_type"):
                del graph.value_info[index]


def _apart(graph: onnx.GraphProto, kinds: set[int]) -> tuple[dict[str, int], list[onnx.NodeProto]]:
    """Give what is behind inputs, and in front of outputs, of those types a name of its own; the
    types of these ports, and the Casts that join them again."""
    weights = {weight.name for weight in graph.initializer}
    inputs, outputs = (
        {v.name: v.type.tensor_type.elem_type for v in ports if v.name not in weights}
        for ports in (graph.input, graph.output)
    )
    ports = {name: kind for name, kind in (inputs | outputs).items() if kind in kinds}
    inner = {name: f"{name}/float32" for name in ports}
    made = {name for node in graph.node for name in node.output}
    for each in graphs(graph):
        for node in each.node:
            node.input[:] = [inner.get(name, name) for name in node.input]
            if each is graph:
                node.output[:] = [inner.get(name, name) for name in node.output]
        # a branch may give out a value from outside
        for value in each.output if each is not graph else ():
            value.name = inner.get(value.name, value.name)
    casts = []
    for name, kind in ports.items():
        ends, to = ((inner[name], name), kind) if name in made else ((name, inner[name]), _FLOAT)
        casts.append(helper.make_node("Cast", [ends[0]], [ends[1]], f"{inner[name]}/Cast", to=to))
    return ports, casts


def _drop_casts(graph: gs.Graph) -> int:
    """Let the readers of a Cast from float32 to float32 read its input; how many there were."""
    dropped = 0
    for node in list(graph.nodes):
        if node.op != "Cast" or node.attrs.get("to") != _FLOAT:
            continue
        source, made = node.inputs[0], node.outputs[0]
        if source.dtype != np.float32:
            continue
        if is_output(made):
            maker = producer(source)
            if maker is None or is_output(source):
                continue
            node.outputs.clear()
            maker.outputs[[t is source for t in maker.outputs].index(True)] = made
            source, made = made, source
        read_instead(made, source)
        dropped += 1
    return dropped


def _kept(ports: dict[str, int]) -> str:
    if not ports:
        return "inputs and outputs are as they were"
    listed = ", ".join(f"{name} {STORED[kind]}" for name, kind in ports.items())
    return f"inputs and outputs keep their types behind a Cast ({listed})"
