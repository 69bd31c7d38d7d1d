"""What the precision map shows, as plain JSON: every node of the deployed graph with its numbers.

The graph is the float one that the engine was made from: Q/DQ pairs are not nodes of it, they are
the type that a node is drawn in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.artifacts.model import Model, graphs
from deploy.plugin.ops import DOMAIN
from deploy.report.map_boxes import MULTIPLY, boxes
from deploy.report.map_decisions import Node, name_of, owners
from deploy.report.map_kernels import kernels
from deploy.surgery.movement import MOVES
from deploy.target import QUANTIZED

if TYPE_CHECKING:
    from deploy.artifacts.ranges import Ranges

Content = Mapping[str, Any]

_SHAPES = ("Shape", "Size", "Constant", "ConstantOfShape", "Range", "Dropout")
# the vendors' names for types
_TYPES = {
    **dict.fromkeys(("i8", "u8", "int8", "uint8"), "int8"),
    **dict.fromkeys(("f16", "fp16", "half", "float16"), "fp16"),
    **dict.fromkeys(("f32", "fp32", "float", "float32"), "fp32"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("fp8", "f8e4m3"), "fp8"),
}


def graph_map(
    stages: Mapping[str, Model], content: Content, ranges: Ranges | None
) -> dict[str, Any]:
    """Nodes in the graph's order, the edges between them, and which are drawn as one box.

    content: what the report says otherwise; every figure comes from there. type: int8, fp8, fp16,
    bf16, fp32, plugin, moves (data only) or unknown. type_from: "vendor" where its list of layers
    tells, "joined" where it doesn't name the node, which then belongs to the kernel of the one in
    front, "graph" where there is no such list.
    """
    exact = stages.get("equalized", stages["fused"])
    found = list(exact.proto.graph.node)
    writer = {name: i for i, node in enumerate(found) for name in node.output if name}
    run_by = kernels(found, stages.get("quantized"), content["layers"])
    known = _Known.of(content, exact)
    nodes = [_node(node, run_by.get(i), known) for i, node in enumerate(found)]
    edges = sorted({(writer[t], i) for i, n in enumerate(found) for t in _reads(n) if t in writer})
    outputs = {spec.name: writer[spec.name] for spec in exact.outputs if spec.name in writer}
    _merge(nodes, edges, set(outputs.values()))
    touched = owners(stages, exact)
    for index, decision in enumerate(content["decisions"]):
        at = touched.get(decision["subject"])
        if at is not None and decision["outcome"] != "note":
            nodes[at]["decisions"].append(index)
    return {
        "stage": "equalized" if "equalized" in stages else "fused",
        "listed": bool(content["layers"]),
        "nodes": nodes,
        "edges": [list(edge) for edge in edges],
        "boxes": boxes(nodes, edges, set(outputs.values())),
        "inputs": {
            spec.name: [i for i, node in enumerate(found) if spec.name in _reads(node)]
            for spec in exact.inputs
        },
        "outputs": outputs,
        "ranges": _ranges(ranges, {t for node in found for t in (*node.input, *node.output)}),
    }


@dataclass(frozen=True)
class _Known:
    """The report's rows by what they are about: a layer's name, a tensor, a weight."""

    costs: Mapping[str, Mapping[str, Any]]
    asked: Mapping[str, Mapping[str, Any]]
    errors: Mapping[str, float]
    noise: Mapping[str, float]
    stored: Mapping[str, str]
    shapes: Mapping[str, Sequence[int]]
    rest: str

    @classmethod
    def of(cls, content: Content, exact: Model) -> _Known:
        choice, device = content["choice"], content["device"]
        noise = choice["sensitivity"] if choice is not None else ()
        return cls(
            costs={row["name"]: row for row in content["roofline"]["built"]["layers"]},
            asked={row["layer"]: row for row in content["precision_layers"]},
            errors={row["tensor"]: row["sqnr_db"] for row in content["layer_errors"]},
            noise={row["layer"]: row["noise_db"] for row in noise},
            stored={row["weight"]: row["stored"] for row in content["weights"]},
            shapes={tensor.name: tensor.dims for tensor in exact.proto.graph.initializer},
            rest=device["rest"] if device is not None else "fp32",
        )


def _node(node: Node, kernel: Mapping[str, Any] | None, known: _Known) -> dict[str, Any]:
    label = name_of(node)
    cost, asked = known.costs.get(label), known.asked.get(label)
    errors = [known.errors[name] for name in node.output if name in known.errors]
    kind, told_by = _type(node, kernel, cost, known.rest)
    return {
        "name": label,
        "operator": node.op_type,
        "detail": _detail(node, known.shapes),
        "inputs": [name for name in node.input if name],
        "outputs": [name for name in node.output if name],
        "type": kind,
        "type_from": told_by,
        "reason": asked["reason"] if asked else "",
        "weight_sqnr_db": asked["weight_sqnr_db"] if asked else None,
        "sqnr_db": min(errors) if errors else None,
        "noise_db": known.noise.get(label),
        "cost": _cost(cost),
        "kernel": kernel,
        "stored": [known.stored[name] for name in node.input if name in known.stored],
        "decisions": [],
    }


def _cost(row: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """FLOPs, bytes, the roof that binds and the time it allows; None for what costs nothing."""
    at = next(iter(row["targets"].values()), None) if row is not None else None
    if row is None or at is None:
        return None
    return {"flops": row["flops"], "bytes": at["bytes"], "bound": at["bound"], "ms": at["ms"]}


def _type(
    node: Node,
    kernel: Mapping[str, Any] | None,
    cost: Mapping[str, Any] | None,
    rest: str,
) -> tuple[str, str]:
    """The type it computes in, and who says so."""
    told_by = "graph" if kernel is None else "vendor" if kernel["names_it"] else "joined"
    if node.domain == DOMAIN:
        return "plugin", told_by
    if node.op_type in MOVES or node.op_type in _SHAPES:
        return "moves", told_by
    if kernel is not None:
        first = kernel["precision"].split(" -> ")[0].split("+")[0].split(" ")[0].lower()
        if first in _TYPES:
            return _TYPES[first], told_by
    kind = cost["precision"] if cost is not None else "unknown"
    # the graph that a device gets is float32 where it isn't INT8, and built in what is asked for
    return rest if kind == "fp32" and rest in ("fp16", "bf16") else kind, "graph"


def _merge(
    nodes: Sequence[dict[str, Any]], edges: Sequence[tuple[int, int]], outputs: set[int]
) -> None:
    """What a layer in 8 bits takes in (BatchNormalization, then a Relu or Clip, each its only
    reader) has its type, where no vendor's list says otherwise: no value between them is stored."""
    readers: list[list[int]] = [[] for _ in nodes]
    for source, target in edges:
        readers[source].append(target)
    for index, node in enumerate(nodes):
        taken = node["operator"] in (*MULTIPLY, "Add") and node["type"] in QUANTIZED
        at, last = index, not taken
        while not last and len(readers[at]) == 1 and at not in outputs:
            at = readers[at][0]
            last = nodes[at]["operator"] in ("Relu", "Clip")
            if not last and nodes[at]["operator"] != "BatchNormalization":
                break
            if nodes[at]["type_from"] == "graph":
                nodes[at]["type"] = node["type"]


def _reads(node: Node) -> set[str]:
    """Every tensor that the node reads, those that the bodies of If, Loop and Scan read too."""
    found = set(node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for graph in graphs(body):
                found |= {name for inner in graph.node for name in inner.input}
    return found - {""}


def _detail(node: Node, shapes: Mapping[str, Sequence[int]]) -> str:
    """What tells a convolution from the others: "3×3", "3×3 /2", "3×3 dw" for a depthwise one."""
    found = {a.name: list(a.ints) if a.ints else a.i for a in node.attribute}
    kernel = found.get("kernel_shape")
    if not isinstance(kernel, list):
        return ""
    text = "×".join(str(size) for size in kernel)
    strides = found.get("strides")
    if isinstance(strides, list) and any(step != 1 for step in strides):
        text += f" /{'×'.join(str(step) for step in dict.fromkeys(strides))}"
    groups = found.get("group", 1)
    if not isinstance(groups, int) or groups < 2:
        return text
    weight = shapes.get(node.input[1]) or (0, 0)
    return f"{text} dw" if weight[1] == 1 else f"{text} g{groups}"


def _ranges(ranges: Ranges | None, tensors: set[str]) -> dict[str, list[float]]:
    """The range in use of every tensor of the graph that has one."""
    known = ranges.tensors if ranges is not None else {}
    return {
        name: [row.range.low, row.range.high]
        for name, row in sorted(known.items())
        if name in tensors
    }
