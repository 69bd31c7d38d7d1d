"""A Q/DQ graph for a strongly typed compiler: 16 bits where it stores floats between INT8 layers.

    DQ -> Conv -> AveragePool -> Q   =>   DQ -> Conv -> Cast(16) -> AveragePool -> Cast(32) -> Q

Layers that read integers stay as they are, between float32 scales. A scale in float16 ends at 6e-8:
that turned weights into 0 in MobileNetV2 (-0.6 dB) and made the parser refuse ResNet20, and with
float32 scales TensorRT-RTX 1.7.1 chooses the same INT8 kernels. What it computes inside such a
layer's kernels (activation, sum, requantization) isn't stored, so a Cast there would only round.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision, Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import RecipeError
from deploy.floats.float_rules import HALVES, SHAPE_ONLY, Rules, floats
from deploy.floats.mixed_floats import Writer, in_opset_of, reasons_for_float32, regions
from deploy.quantizable import LAYERS
from deploy.surgery.graph import label, producer, to_graph, to_model
from deploy.surgery.movement import MONOTONE, moves
from deploy.surgery.without_qdq import remove_qdq

_QDQ = ("QuantizeLinear", "DequantizeLinear")
# what runs on integers when both sides are integers, besides what only moves data
_POOLS = ("AveragePool", "GlobalAveragePool")
# computed value by value: a compiler puts these into the kernel of what they stand by
_POINTWISE = (
    *("Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "ThresholdedRelu", "Softplus"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Gelu", "Mish", "Tanh", "Erf", "Softsign"),
    *(
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Pow",
        "Max",
        "Min",
        "Sum",
        "Mean",
        "Where",
        "BatchNormalization",
    ),
    *("Neg", "Abs", "Sqrt", "Reciprocal", "Exp", "Log", "Sign", "Floor", "Ceil", "Round", "Cast"),
)


def half_rest(model: Model, precision: str = "fp16", *, ranges: Ranges | None = None) -> Model:
    """The Q/DQ graph with what isn't INT8 in "fp16" or "bf16", and a reason for what can't be.

    Inputs, outputs, scales and INT8 layers keep float32. ranges: of the float graph it was made
    from; without them what can leave the range of 16 bits stays float32. RecipeError for another
    precision.
    """
    if precision not in HALVES:
        raise RecipeError(f"precision {precision!r}; the rest becomes {' or '.join(HALVES)}")
    half = HALVES[precision]
    model = in_opset_of(half, model)
    graph = to_graph(model)
    graph.toposort()
    reasons = reasons_without_qdq(graph, model, Rules(half, model.opset, ranges))
    for node in graph.nodes:
        if _is_int8(node):
            reasons.pop(id(node), None)
    integer = _in_integers(graph.nodes)
    able = [n for n in graph.nodes if id(n) not in reasons and id(n) not in integer]
    able = [n for n in able if floats(n.inputs) and n.op not in (*SHAPE_ONLY, *_QDQ)]
    stored = [n for region in regions(able) if _stores(region, integer) for n in region]
    kept = [
        Decision("half_rest", precision, "skipped", label(node), reasons[id(node)])
        for node in graph.nodes
        if id(node) in reasons
    ]
    if not stored:
        why = f"no value between INT8 layers is stored as a float that {half.name} would halve"
        return model.derive(
            model.proto, [Decision("half_rest", precision, "skipped", model.name, why), *kept]
        )
    writer = Writer(graph, half, model.opset, {id(n) for n in stored}, True)
    writer.write()
    made = to_model(graph, model, ())
    done = (
        f"{len(stored)} nodes in {half.name}, {writer.count} casts, {len(kept)} kept in float32; "
        "INT8 layers keep float32 scales"
    )
    applied = Decision("half_rest", precision, "applied", model.name, done)
    return made.derive(made.proto, [applied, *kept])


def reasons_without_qdq(graph: gs.Graph, model: Model, rules: Rules) -> dict[int, str]:
    """By node id, why it stays float32: as the graph without its Q/DQ says.

    graph: of that model, its nodes in topological order.
    """
    plain = to_graph(model)
    plain.toposort()
    twins = {id(twin): node for node, twin in zip(graph.nodes, plain.nodes, strict=True)}
    remove_qdq(plain)
    plain.cleanup(remove_unused_graph_inputs=False)
    found = {id(twins[key]): why for key, why in reasons_for_float32(plain, rules).items()}
    for node in graph.nodes:
        if node.op in _QDQ:
            found.pop(id(node), None)
    return found


def _in_integers(nodes: list[gs.Node]) -> set[int]:
    """Ids of what runs on integers: INT8 layers, what moves values that are quantized behind it (a
    compiler quantizes them in front), and pools with integers on both sides."""
    found = {id(n) for n in nodes if _is_int8(n)}
    fed = _fed_by_integers(nodes)
    for node in reversed(nodes):
        readers = [r for t in node.outputs for r in t.outputs]
        into = all(r.op == "QuantizeLinear" or id(r) in found for r in readers)
        pool = node.op in _POOLS and id(node) in fed
        if readers and into and (pool or moves(node, MONOTONE)):
            found.add(id(node))
    return found


def _fed_by_integers(nodes: list[gs.Node]) -> set[int]:
    """Ids of what moves or pools nothing but what a DequantizeLinear gives."""
    found: set[int] = set()
    for node in nodes:
        sources = [producer(t) for t in floats(node.inputs)]
        fed = all(s is not None and (s.op == "DequantizeLinear" or id(s) in found) for s in sources)
        if fed and (node.op in _POOLS or moves(node, MONOTONE)):
            found.add(id(node))
    return found


def _is_int8(node: gs.Node) -> bool:
    """Whether both factors of a layer come out of a DequantizeLinear."""
    return node.op in LAYERS and all(_dequantized(t) for t in node.inputs[:2])


def _dequantized(tensor: gs.Tensor) -> bool:
    source = producer(tensor)
    while source is not None and moves(source):
        source = producer(source.inputs[0])
    return source is not None and source.op == "DequantizeLinear"


def _stores(region: Iterable[gs.Node], integer: set[int]) -> bool:
    """Whether a group of float nodes puts values into memory as floats: a kernel of its own reads
    or writes them, or one is quantized for one reader and a float for another."""
    return any(
        not (node.op in _POINTWISE or moves(node)) or _read_both_ways(node, integer)
        for node in region
    )


def _read_both_ways(node: gs.Node, integer: set[int]) -> bool:
    readers = [r for t in floats(node.outputs) for r in t.outputs]
    quantized = [r.op == "QuantizeLinear" or id(r) in integer for r in readers]
    return any(quantized) and not all(quantized)
