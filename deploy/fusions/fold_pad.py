"""A Pad disappears into the padding of the layer behind it.

    Pad (constant 0) -> Conv|AveragePool|MaxPool   =>   Conv|AveragePool|MaxPool (padded)

It pays because Pad copies the whole map. Conv pads with the same zeros. AveragePool counts the
padded zeros once `count_include_pad` is set. MaxPool pads with the lowest value, so a Pad of zeros
is the same only where the data is never negative (behind a Relu, a Sigmoid, ...); a Pad of the
lowest value always is.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, elements, itemsize, producer, rank
from deploy.surgery.rewrite import New, Replace, Skip

_LAYERS = ("Conv", "AveragePool", "MaxPool")
_NEVER_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softplus", "Softmax", "Abs", "Exp", "Sqrt")
# these give values between their input's lowest and highest
_KEEP_THE_SIGN = ("MaxPool", "Identity", "Transpose", "Reshape", "Dropout")


def fold_pad(node: gs.Node) -> Replace | Skip | None:
    """Let this layer do the padding of the Pad in front of it."""
    if node.op not in _LAYERS:
        return None
    pad = producer(node.inputs[0])
    # ONNX Runtime has one of its own, which writes the amounts otherwise
    if pad is None or pad.op != "Pad" or pad.domain not in (None, "", "ai.onnx"):
        return None
    amounts = _amounts(pad)
    if isinstance(amounts, Skip):
        return amounts
    refusal = _pad_value(pad, node) or _geometry(node)
    if refusal is not None:
        return Skip(refusal)
    spatial = [int(n) for half in np.split(amounts, 2) for n in half[2:]]
    own = [int(n) for n in node.attrs.get("pads", [0] * len(spatial))]
    pads = [a + b for a, b in zip(spatial, own, strict=True)]
    attrs = {**node.attrs, "pads": pads}
    attrs.pop("auto_pad", None)
    if node.op != "Conv":
        refusal = _pooled(node, own, pads)
        if refusal is not None:
            return Skip(refusal)
    if node.op == "AveragePool":
        attrs["count_include_pad"] = 1
    new = New(node.op, (pad.inputs[0], *node.inputs[1:]), tuple(node.outputs), attrs)
    # the Pad itself stays for its other readers; without any, the driver's cleanup takes it
    return Replace((node,), (new,), f"Pad folded into {node.op}", _bytes_saved(pad))


def _amounts(pad: gs.Node) -> np.ndarray | Skip:
    """Begins and ends of every axis, int64[2 * rank], if only space is padded."""
    if pad.attrs.get("mode", "constant") != "constant":
        return Skip(f"Pad is in mode {pad.attrs['mode']}, and layers pad with a constant")
    written = constant(pad.inputs[1])
    if written is None:
        return Skip("the amounts of Pad are computed at run time")
    amounts: np.ndarray | Skip = written
    if len(pad.inputs) > 3 and not pad.inputs[3].is_empty():
        amounts = _on_every_axis(pad, written)
    if isinstance(amounts, Skip):
        return amounts
    if (amounts < 0).any():
        return Skip("Pad also crops")
    if any(half[:2].any() for half in np.split(amounts, 2)):
        return Skip("Pad also pads the batch or the channels")
    return amounts


def _on_every_axis(pad: gs.Node, written: np.ndarray) -> np.ndarray | Skip:
    axes = constant(pad.inputs[3])
    dimensions = rank(pad.inputs[0])
    if axes is None or dimensions is None:
        return Skip("the axes of Pad are unknown")
    amounts = np.zeros((2, dimensions), np.int64)
    amounts[:, axes] = written.reshape(2, -1)
    return amounts.reshape(-1)


def _pad_value(pad: gs.Node, layer: gs.Node) -> str | None:
    """Why the layer's own padding would have another value; None when it has the same."""
    value = np.zeros(())
    if len(pad.inputs) > 2 and not pad.inputs[2].is_empty():
        given = constant(pad.inputs[2])
        if given is None:
            return "the value of Pad is computed at run time"
        value = given.reshape(())
    if layer.op != "MaxPool":
        return None if value == 0 else f"Pad's value is {value}, and {layer.op} pads with 0"
    if np.isneginf(value.astype(np.float64)):
        return None
    if value <= 0 and _never_negative(pad.inputs[0]):
        return None
    return f"Pad's value, {value}, may exceed the data, and MaxPool pads with the lowest value"


def _never_negative(tensor: gs.Tensor) -> bool:
    """Whether the values are known to be zero or more, from what computes them."""
    node = producer(tensor)
    while node is not None and node.op in _KEEP_THE_SIGN:
        node = producer(node.inputs[0])
    if node is None:
        return False
    if node.op == "Clip" and len(node.inputs) > 1:
        low = constant(node.inputs[1])
        return low is not None and bool((low >= 0).all())
    return node.op in _NEVER_NEGATIVE


def _geometry(layer: gs.Node) -> str | None:
    """Why the layer's attributes don't add up with more padding; None when they do."""
    if layer.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return f"{layer.op} pads by itself ({layer.attrs['auto_pad']}), from the padded size"
    return None


def _pooled(pool: gs.Node, own: list[int], pads: list[int]) -> str | None:
    """What pooling adds to that."""
    kernel = [int(n) for n in pool.attrs["kernel_shape"]]
    if pool.attrs.get("ceil_mode", 0):
        return f"{pool.op} rounds its size up, and padding changes where it does"
    if any(step != 1 for step in pool.attrs.get("dilations", ())):
        return f"a dilated {pool.op} may see nothing but padding"
    if any(amount >= size for amount, size in zip(pads, kernel * 2, strict=True)):
        return f"{pool.op} over {kernel} can't pad by {pads}"
    if len(pool.outputs) > 1:
        return "the indices of MaxPool count the padded map"
    if pool.op == "AveragePool" and any(own) and not pool.attrs.get("count_include_pad", 0):
        return "AveragePool counts the zeros of Pad, but not its own"
    return None


def _bytes_saved(pad: gs.Node) -> int:
    source, padded = elements(pad.inputs[0]), elements(pad.outputs[0])
    if source is None or padded is None:
        return 0
    # its last reader also ends the copy; for the others the layer reads a smaller map
    copies = source + padded if len(pad.outputs[0].outputs) == 1 else 0
    return (copies + padded - source) * itemsize(pad.outputs[0])
