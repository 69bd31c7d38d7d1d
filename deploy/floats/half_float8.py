"""A graph with float8 Q/DQ for a strongly typed compiler: float16 all around the 8 bits.

    Q -> DQ -> Conv -> Q   =>   Cast(16) -> Q -> DQ -> Conv -> Q,   all of it float16

TensorRT's FP8 kernels sum in float32 and write float8 or 16 bits; NVIDIA's own tool gives them
float16 scales too (Model Optimizer, high_precision_dtype = fp16). Our scales are numbers of float16
already (`calibrators.float8`), so nothing is lost. What float16 can't hold stays float32, with its
Q/DQ, and so do inputs and outputs.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from calibrators.float8 import LARGEST
from deploy.artifacts.model import Decision, Model
from deploy.floats.convert_float import narrow
from deploy.floats.float_rules import HALVES, Half, Rules
from deploy.floats.half_rest import reasons_without_qdq
from deploy.floats.mixed_floats import Writer
from deploy.quantizable import LAYERS
from deploy.surgery.graph import constant, label, producer, to_graph, to_model
from deploy.surgery.movement import moves

_QDQ = ("QuantizeLinear", "DequantizeLinear")


def half_float8(model: Model) -> Model:
    """The graph computing in float16, and a reason for every node that stays in float32."""
    half = HALVES["fp16"]
    graph = to_graph(model)
    graph.toposort()
    reasons = reasons_without_qdq(graph, model, Rules(half, model.opset))
    _with_what_is_too_large(graph, reasons, half)
    _with_their_pairs(graph, reasons)
    chosen = narrow(graph, reasons)
    kept = [
        Decision("half_float8", "fp16", "skipped", label(node), reasons[id(node)])
        for node in graph.nodes
        if id(node) in reasons and node.op not in _QDQ
    ]
    writer = Writer(graph, half, model.opset, chosen, True)
    writer.write()
    made = to_model(graph, model, ())
    done = f"{len(chosen)} nodes in float16, {writer.count} casts, {len(kept)} kept in float32"
    applied = Decision("half_float8", "fp16", "applied", model.name, done)
    return made.derive(made.proto, [applied, *kept])


def _with_what_is_too_large(graph: gs.Graph, reasons: dict[int, str], half: Half) -> None:
    """A value that float16 may not hold, as its scale says, is float32 from the layer that makes it
    to those that read it."""
    for node in graph.nodes:
        scale = constant(node.inputs[1]) if node.op == "QuantizeLinear" else None
        size = 0.0 if scale is None else float(scale.max()) * LARGEST
        if size * half.headroom <= half.largest:
            continue
        why = f"{node.inputs[0].name!r} reaches {size:.3g}, too near {half.name}'s {half.largest:g}"
        readers = [r for t in node.outputs for pair in t.outputs for r in pair.outputs[0].outputs]
        for found in (node, *readers, *_makers(node.inputs[0])):
            reasons.setdefault(id(found), why)


def _makers(tensor: gs.Tensor) -> list[gs.Node]:
    """What computes a value, back to the layers with weights."""
    found: list[gs.Node] = []
    waiting = [tensor]
    while waiting:
        maker = producer(waiting.pop())
        if maker is not None and maker.op not in _QDQ:
            found.append(maker)
            waiting += [] if maker.op in LAYERS else maker.inputs
    return found


def _with_their_pairs(graph: gs.Graph, reasons: dict[int, str]) -> None:
    """A layer that stays float32 keeps the Q/DQ it reads in float32, and these their other
    readers: a Cast in between would part a layer from its 8 bits."""
    waiting = [n for n in graph.nodes if n.op in LAYERS and id(n) in reasons]
    while waiting:
        node = waiting.pop()
        for pair in _pairs(node):
            reasons.setdefault(id(pair), f"{label(node)} reads it in float32")
            for reader in pair.outputs[0].outputs:
                if reader.op in LAYERS and id(reader) not in reasons:
                    reasons[id(reader)] = f"it shares 8 bits with {label(node)}, a float32 layer"
                    waiting.append(reader)


def _pairs(node: gs.Node) -> list[gs.Node]:
    """The Q and DQ in front of a layer, behind what only moves values."""
    found = []
    for tensor in node.inputs[:2]:
        source = producer(tensor)
        while source is not None and (source.op in _QDQ or moves(source)):
            found += [source] if source.op in _QDQ else []
            if source.op == "QuantizeLinear":
                break
            source = producer(source.inputs[0])
    return found
