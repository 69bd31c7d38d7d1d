"""An older opset for the graph, where every operator in it means the same there.

The counterpart of `deploy.surgery.opset.raise_for`: vendors that have stopped at an opset (TensorRT
8.5 and 8.6 at 17) refuse a model with a newer label even when no operator in it has changed.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, label
from deploy.surgery.opset import (
    _AXES_MOVED_AT,
    _ONNX,
    _SAME_SINCE,
    _all_graphs,
    _all_nodes,
    _is_onnx,
    _unlike_itself,
    _version,
)


def lower_to(graph: gs.Graph, highest: int) -> str | None:
    """Give the graph the opset `highest` if it has a newer one; None, or why it keeps its own.

    Nothing is changed when any node (bodies of If, Loop and Scan included) would compute something
    else, or doesn't exist, at the older opset.
    """
    now = int(graph.opset)
    if now <= highest:
        return None
    if graph.functions:
        return f"the model's own functions are written for opset {now}"
    nodes = [node for node in _all_nodes(graph) if _is_onnx(node)]
    for node in nodes:
        obstacle = _obstacle(node, now, highest)
        if obstacle is not None:
            return obstacle
    for node in nodes:
        _write_for(node, highest)
    others = [entry for entry in graph.import_domains or () if entry.domain not in _ONNX]
    for part in _all_graphs(graph):
        part.opset = highest
        part.import_domains = [onnx.helper.make_opsetid("", highest), *others]
    return None


def _obstacle(node: gs.Node, now: int, then: int) -> str | None:
    """Why the node can't be written for the older opset; None when it can."""
    version = _version(node.op, then)
    if not version:
        return f"{node.op} ({label(node)!r}) begins with a later opset"
    if version == _version(node.op, now):
        return None
    if node.op in _AXES_MOVED_AT and _AXES_MOVED_AT[node.op] > then:
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        fixed = axes is None or axes.is_empty() or constant(axes) is not None
        still = fixed and not node.attrs.get("noop_with_empty_axes", 0)
        return None if still else f"the axes of {label(node)!r} are computed at run time"
    if node.op == "Split":
        return None if _split_sizes(node) else f"the sizes of {label(node)!r} are not known"
    if version < _SAME_SINCE.get(node.op, then + 1) or _unlike_itself(node):
        return f"{node.op} ({label(node)!r}) means something else there"
    return _unknown(node, then)


def _unknown(node: gs.Node, then: int) -> str | None:
    """An attribute, input or type of the node that the older operator doesn't have."""
    schema = onnx.defs.get_schema(node.op, then, "")
    new = [name for name in node.attrs if name not in schema.attributes]
    if new:
        return f"{node.op} ({label(node)!r}) has {new[0]!r}, which is newer"
    if node.op == "Pad" and node.attrs.get("mode") == "wrap" and then < 19:
        return f"Pad ({label(node)!r}) has the mode 'wrap', which is newer"
    if len(node.inputs) > schema.max_input:
        return f"{node.op} ({label(node)!r}) has {len(node.inputs)} inputs, which is newer"
    return None


def _split_sizes(node: gs.Node) -> list[int] | None:
    """How long each part of a Split is; None when that is computed at run time."""
    if len(node.inputs) > 1:
        return [0] * len(node.outputs)  # given already
    axis = int(node.attrs.get("axis", 0))
    sizes = [None if t.shape is None else t.shape[axis] for t in node.outputs]
    known = [size for size in sizes if isinstance(size, int)]
    return known if len(known) == len(sizes) else None


def _write_for(node: gs.Node, then: int) -> None:
    """Axes as an attribute again, and the sizes of a Split as an input, as the older operators
    have them."""
    if node.op == "Split" and node.attrs.pop("num_outputs", None) is not None:
        sizes = np.asarray(_split_sizes(node), np.int64)
        node.inputs.append(gs.Constant(f"{node.outputs[0].name}/Split_sizes", sizes))
    if _AXES_MOVED_AT.get(node.op, 0) <= then:
        return
    node.attrs.pop("noop_with_empty_axes", None)
    if len(node.inputs) > 1:
        axes = constant(node.inputs[1])
        del node.inputs[1]
        if axes is not None and axes.size:
            node.attrs["axes"] = [int(axis) for axis in np.asarray(axes).reshape(-1)]
