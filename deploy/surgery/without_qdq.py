"""A Q/DQ graph without its Q/DQ: the float graph that a calibration cache describes."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, producer


def remove_qdq(graph: gs.Graph) -> int:
    """Let every reader of a DequantizeLinear read what was quantized; how many were taken out.

    Integers that are stored become the floats they stand for. Values keep their names.
    """
    removed = 0
    for node in [n for n in graph.nodes if n.op == "DequantizeLinear"]:
        source = producer(node.inputs[0])
        if source is not None and source.op == "QuantizeLinear":
            original: gs.Tensor | None = source.inputs[0]
        else:
            original = _floats(node)
        if original is None:
            continue
        out = node.outputs[0]
        for reader in list(out.outputs):
            for index in [i for i, t in enumerate(reader.inputs) if t is out]:
                reader.inputs[index] = original
        graph.outputs = [original if t is out else t for t in graph.outputs]
        removed += 1
    return removed


def _floats(node: gs.Node) -> gs.Constant | None:
    """The constant a DequantizeLinear of stored integers gives; None where they aren't stored."""
    integers, scale = constant(node.inputs[0]), constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    zero = np.zeros((), np.float32) if given is None else constant(given)
    if integers is None or scale is None or zero is None:
        return None
    if scale.ndim:
        shape = [1] * integers.ndim
        shape[int(node.attrs.get("axis", 1))] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape if zero.ndim else ())
    # float32 holds the 8 bits of either kind; of int32 biases it wouldn't hold all
    exact = np.float32 if integers.itemsize == 1 else np.int64
    steps = (integers.astype(exact) - zero.astype(exact)).astype(scale.dtype)
    return gs.Constant(node.outputs[0].name, np.asarray(steps * scale))
