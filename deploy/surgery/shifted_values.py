"""A constant added to a value, where it is made and where it is padded: exact, in float."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.channel_layers import Names, add_to_bias
from deploy.surgery.channel_scales import clip_bounds
from deploy.surgery.graph import producer


def shift_activation(node: gs.Node, shift: float, names: Names) -> tuple[float, float]:
    """Let a Relu or Clip right behind a layer give out its values plus `shift`; the low end it had
    and the one it has now."""
    maker, bounds = producer(node.inputs[0]), (0.0, np.inf)
    assert maker is not None
    add_to_bias(maker, np.full(node.outputs[0].shape[1], shift), names)
    if node.op == "Clip":
        known = clip_bounds(node)
        assert known is not None
        bounds = known
    dtype = node.inputs[0].dtype or np.float32
    node.op = "Clip"
    node.attrs.clear()
    node.inputs = [node.inputs[0]]
    for end, bound in zip(("low", "high"), bounds, strict=True):
        name = names.fresh(f"{node.outputs[0].name}/{end}")
        node.inputs.append(gs.Constant(name, np.asarray(bound + shift, dtype)))
    return bounds[0], bounds[0] + shift


def shift_input(graph: gs.Graph, tensor: gs.Tensor, shift: float, names: Names) -> gs.Node:
    """Let all readers of a graph's input read it plus `shift`: the Add that now makes what they
    read."""
    readers = list({id(node): node for node in tensor.outputs}.values())
    moved = gs.Variable(names.fresh(f"{tensor.name}/shifted"), tensor.dtype, tensor.shape)
    amount = gs.Constant(names.fresh(f"{tensor.name}/shift"), np.asarray(shift, tensor.dtype))
    for reader in readers:
        reader.inputs = [moved if value is tensor else value for value in reader.inputs]
    add = gs.Node("Add", moved.name, {}, [tensor, amount], [moved])
    graph.nodes.insert(0, add)
    return add


def pad_in_front(graph: gs.Graph, node: gs.Node, value: float, names: Names) -> gs.Node:
    """The Pad that gives a convolution, which pads no more itself, its map padded with `value`."""
    pads = [int(amount) for amount in node.attrs["pads"]]
    begins, ends = pads[: len(pads) // 2], pads[len(pads) // 2 :]
    source = node.inputs[0]
    name = names.fresh(f"{node.outputs[0].name}/padded")
    padded = gs.Variable(name, source.dtype, _grown(source.shape, begins, ends))
    amounts = gs.Constant(names.fresh(f"{name}/amounts"), np.array([0, 0, *begins, 0, 0, *ends]))
    filler = gs.Constant(names.fresh(f"{name}/value"), np.asarray(value, source.dtype))
    pad = gs.Node("Pad", name, {}, [source, amounts, filler], [padded])
    node.inputs[0] = padded
    node.attrs["pads"] = [0] * len(pads)
    graph.nodes.insert(graph.nodes.index(node), pad)
    return pad


def _grown(shape: list[object] | None, begins: list[int], ends: list[int]) -> list[object] | None:
    if shape is None:
        return None
    sizes = zip(shape[2:], begins, ends, strict=True)
    # a size that is free stays so, under no name: it isn't the one it was
    return [*shape[:2], *(n + b + e if isinstance(n, int) else None for n, b, e in sizes)]
