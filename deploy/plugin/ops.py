"""Custom ops of the domain `onnx_deploy`, one folder each: in `plugins/`, or of the user's own.

A plugin's `op.py` gives `EXPANSION` (the op as a function of standard ONNX operators) or, where
that depends on the node, `expansion(shapes, **attributes)`; `infer_shape` and `run` (the NumPy
truth). Where a target has no kernel of it, the expansion runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

import onnx
import onnx.inliner
import onnx.parser
import onnx.shape_inference

from deploy import registry
from deploy.artifacts.model import copy_proto, graphs
from deploy.errors import ModelError, RecipeError, nearest, one_line

DOMAIN = "onnx_deploy"
# an expansion may use another plugin's op; one that comes back to itself would never end
_DEEPEST = 20

Shape = tuple[int | None, ...]


def op_types() -> dict[str, str]:
    """Folder name by ONNX operator name: `channel_shuffle` is the op `ChannelShuffle`."""
    return {op_type(name): name for name in registry.names("plugin")}


def op_type(name: str) -> str:
    """The ONNX operator that a folder's name stands for."""
    return "".join(part.capitalize() for part in name.split("_"))


def plugin_module(name: str) -> ModuleType:
    """A plugin's op.py, imported; RecipeError when it doesn't hold what every plugin has."""
    module = registry.module("plugin", name)
    missing = [each for each in ("infer_shape", "run") if not callable(getattr(module, each, None))]
    if not callable(getattr(module, "expansion", None)) and not hasattr(module, "EXPANSION"):
        missing.insert(0, "EXPANSION")
    if missing:
        raise RecipeError(
            f"{registry.path('plugin', name)}: has no {', no '.join(missing)}; plugins/README.md "
            "says what an op.py holds"
        )
    return module


def plugin_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes of this domain, those in bodies of If, Loop and Scan included."""
    return [node for graph in graphs(proto.graph) for node in graph.node if node.domain == DOMAIN]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values, strings as str."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def expand_plugins(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with every plugin op spelled out in standard operators; itself if it has none.

    ModelError for an op of the domain that no folder has, or that can't have these shapes.
    """
    if not plugin_nodes(proto):
        return proto
    known = op_types()
    expanded = copy_proto(proto)
    if not any(entry.domain == DOMAIN for entry in expanded.opset_import):
        expanded.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    for _ in range(_DEEPEST):
        nodes = plugin_nodes(expanded)
        if not nodes:
            return expanded
        first = nodes[0].op_type
        for node in nodes:
            if node.op_type not in known:
                raise ModelError(
                    f"{name}: unknown plugin op {node.op_type!r}{nearest(node.op_type, known)}; "
                    f"there are: {', '.join(known)}"
                )
        expanded = _with_some_inlined(expanded, nodes, name)
    raise ModelError(
        f"{name}: the expansion of {first!r} comes back to a plugin op {_DEEPEST} times "
        "over; spell it out in standard operators"
    )


def _with_some_inlined(
    expanded: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], name: str
) -> onnx.ModelProto:
    """The nodes whose input shapes are known inlined, or all of them where none has."""
    shapes = _shapes(expanded)
    known = [n for n in nodes if all(i in shapes for i in n.input if i)] or nodes
    functions: dict[str, str] = {}
    first = known[0].op_type
    labels = {n.output[0]: n.name or f"{n.op_type} -> {n.output[0]}" for n in known}
    own = {output for node in expanded.graph.node for output in node.output}
    for node in known:
        text = _expansion(node, [shapes.get(i) if i else None for i in node.input], name)
        if text not in functions:
            functions[text] = f"{node.op_type}_{len(functions)}"
            function = _function(node.op_type, text)
            function.name = functions[text]
            expanded.functions.append(function)
        node.op_type = functions[text]
    described = _describe(expanded, known)
    try:
        inlined = onnx.inliner.inline_local_functions(expanded, convert_version=True)
    # the inliner has no exception class of its own
    except (RuntimeError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(
            f"{name}: the expansion of {first!r} can't be brought to the model's opset: "
            f"{one_line(error)}; write the expansion at opset 13, or export the model at a later "
            "one"
        ) from None
    for index, value in reversed(list(enumerate(inlined.graph.value_info))):
        if value.name in described:
            del inlined.graph.value_info[index]
    _name_inlined(inlined.graph, labels, own - labels.keys())
    return inlined


def _name_inlined(graph: onnx.GraphProto, labels: Mapping[str, str], own: Collection[str]) -> None:
    """Call what a plugin op became after it: its name for the node that makes its first output.

    labels: that output -> the name. own: the outputs of all other nodes there were.
    """
    label = ""
    # a function's nodes stand where the op was, the one with its result last
    for node in reversed(graph.node):
        made = node.output[0] if node.output else ""
        label = labels.get(made, "" if made in own else label)
        if label and not node.name:
            node.name = label if made in labels else f"{label}/{made}"


def _describe(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Write down the types of what these nodes read and give, which the inliner needs to bring a
    function to the model's opset; the names of those that were added.

    A plugin's output has the type of its first input.
    """
    graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info)}
    kinds |= {w.name: w.data_type for w in graph.initializer}
    ports = (*proto.graph.input, *proto.graph.value_info, *proto.graph.output)
    known = {value.name for value in ports}
    added: set[str] = set()
    for node in nodes:
        wanted = {name: kinds.get(name, 0) for name in node.input}
        wanted |= dict.fromkeys(node.output, kinds.get(node.input[0], 0))
        for name, kind in wanted.items():
            if name and kind and name not in known | added:
                added.add(name)
                proto.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return added


def _function(kind: str, text: str) -> onnx.FunctionProto:
    try:
        return onnx.parser.parse_function(text)
    except onnx.parser.ParseError as error:
        file = registry.path("plugin", op_types()[kind])
        raise RecipeError(f"{file}: the expansion isn't ONNX text: {one_line(error)}") from None


def _expansion(node: onnx.NodeProto, shapes: Sequence[Shape | None], name: str) -> str:
    """The text of a function that computes what this node does."""
    module = plugin_module(op_types()[node.op_type])
    if not hasattr(module, "expansion"):
        return str(module.EXPANSION)
    try:
        return str(module.expansion(tuple(shapes), **attributes_of(node)))
    except (ValueError, TypeError) as error:
        label = node.name or node.output[0]
        raise ModelError(
            f"{name}: {node.op_type} {label!r} with inputs of shapes "
            f"{', '.join(map(str, shapes))}: {one_line(error)}; export it differently"
        ) from None


def _shapes(proto: onnx.ModelProto) -> Mapping[str, Shape]:
    """The shape of every value whose rank is known; free dimensions are None."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    found: dict[str, Shape] = {}
    for graph in graphs(inferred.graph):
        found.update((w.name, tuple(w.dims)) for w in graph.initializer)
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            if kind.HasField("shape"):
                dims = kind.shape.dim
                found[value.name] = tuple(d.dim_value if d.dim_value > 0 else None for d in dims)
    return found
