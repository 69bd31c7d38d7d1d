"""Convolutions of one input with the same geometry become one, and a Split of its output.

    Conv(x, W1), Conv(x, W2), ...   =>   Split(Conv(x, [W1; W2; ...]))

It pays where reading the input several times costs more than the Split; with more output than that
it is skipped. Measured in OpenVINO on a CPU: a tie on GoogLeNet (0.99-1.00), slower on SqueezeNet
(1.24-1.34). A target should list it only where it was measured to pay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.affine import bias_of
from deploy.surgery.graph import constant, elements
from deploy.surgery.rewrite import New, Replace, Skip


def merge_sibling_convs(node: gs.Node) -> Replace | Skip | None:
    """Merge this Conv, the first that reads its input, with the others like it."""
    if node.op != "Conv":
        return None
    source = node.inputs[0]
    geometry = _geometry(node)
    siblings = [conv for conv in source.outputs if _reads(conv, source, geometry)]
    if len(siblings) < 2 or siblings[0] is not node:
        return None
    weights = [constant(conv.inputs[1]) for conv in siblings]
    if any(weight is None for weight in weights):
        return Skip("the weights of Conv are computed at run time")
    if node.attrs.get("group", 1) != 1:
        return Skip("grouped convs read different channels")
    arrays = [np.asarray(weight) for weight in weights]
    biases = []
    for conv, weight in zip(siblings, arrays, strict=True):
        bias = bias_of(conv, len(weight))
        if isinstance(bias, Skip):
            return bias
        biases.append(bias)
    saved = _elements_saved(siblings)
    if saved is None:
        return Skip("the sizes around the convs are unknown, so the gain is too")
    if saved <= 0:
        return Skip(f"splitting the output would move {-saved} elements more than it saves")
    return _merged(siblings, arrays, np.concatenate(biases), saved)


def _reads(conv: gs.Node, source: gs.Tensor, geometry: dict[str, Any]) -> bool:
    return conv.op == "Conv" and conv.inputs[0] is source and _geometry(conv) == geometry


def _geometry(conv: gs.Node) -> dict[str, Any]:
    """What has to be the same; defaults are left out, however they are spelled."""
    kernel = None if conv.inputs[1].shape is None else tuple(conv.inputs[1].shape[2:])
    attrs = {key: list(v) if isinstance(v, list | tuple) else v for key, v in conv.attrs.items()}
    attrs.pop("kernel_shape", None)
    plain = {"group": 1, "auto_pad": "NOTSET"}
    kept = {key: v for key, v in attrs.items() if v != plain.get(key) and not _is_default(key, v)}
    return {**kept, "kernel": kernel, "dtype": str(conv.inputs[1].dtype)}


def _is_default(key: str, value: Any) -> bool:
    default = {"pads": 0, "strides": 1, "dilations": 1}.get(key)
    return default is not None and all(v == default for v in value)


def _elements_saved(siblings: list[gs.Node]) -> int | None:
    """Reads of the input that go away, less what the Split reads and writes."""
    read = elements(siblings[0].inputs[0])
    sizes = [elements(conv.outputs[0]) for conv in siblings]
    if read is None or None in sizes:
        return None
    return (len(siblings) - 1) * read - 2 * sum(n for n in sizes if n is not None)


def _merged(
    siblings: list[gs.Node], weights: list[np.ndarray], bias: np.ndarray, saved: int
) -> Replace:
    first = siblings[0]
    weight = np.concatenate(weights)
    biased = bool(bias.any())
    shape = first.outputs[0].shape
    joined = gs.Variable(
        "", first.outputs[0].dtype, None if shape is None else [shape[0], len(weight), *shape[2:]]
    )
    inputs: list[gs.Tensor | np.ndarray] = [first.inputs[0], weight]
    if biased:
        inputs.append(bias.astype(weight.dtype))
    conv = New("Conv", tuple(inputs), (joined,), first.attrs)
    sizes = np.array([len(w) for w in weights], np.int64)
    outputs = tuple(sibling.outputs[0] for sibling in siblings)
    split = New("Split", (joined, sizes), outputs, {"axis": 1})
    reason = f"{len(siblings)} convs of one input merged"
    return Replace(tuple(siblings), (conv, split), reason, saved * weight.dtype.itemsize)
