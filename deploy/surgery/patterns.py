"""Shapes of graph that one kernel can compute at once, found but not rewritten.

A plugin kernel needs to know what to replace and what to feed it: a recognizer takes the node a
pattern ends with, reads around it, and gives its tensors and nodes, or None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import onnx_graphsurgeon as gs

from deploy.surgery.algebra import Ramp, close, ramps
from deploy.surgery.graph import constant, producer, rank
from deploy.surgery.region import sole_reader

_ACTIVATIONS = (
    "Relu",
    "HardSwish",
    "Sigmoid",
    "Tanh",
    "LeakyRelu",
    "Clip",
    "Gelu",
    "Mish",
    "PRelu",
)


@dataclass(frozen=True)
class SePointwise:
    """conv(x * s), s = gate(expand(activation(reduce(mean(pooled))))), all convs 1x1.

    x: float[N, C, H, W], the map; scale: float[N, C, 1, 1], s; pooled: what the mean is of, x in a
    squeeze-and-excitation block; excite: the Mul. activation is the op between reduce and expand
    ("" for none, "Swish" for z * Sigmoid(z)). gate is "Sigmoid", or "HardSigmoid" with `alpha` and
    `beta`, however the graph spells it. `inside`: every node from the mean to `conv`, in order;
    those that others read too can't be taken out.
    """

    x: gs.Tensor
    scale: gs.Tensor
    pooled: gs.Tensor
    excite: gs.Node
    conv: gs.Node
    reduce: gs.Node
    expand: gs.Node
    activation: str
    gate: str
    alpha: float
    beta: float
    inside: tuple[gs.Node, ...]

    @property
    def fits_one_kernel(self) -> bool:
        """Whether nothing outside reads a value between the scale and the convolution."""
        return sole_reader(self.excite.outputs[0]) is self.conv


@dataclass(frozen=True)
class _Gate:
    kind: str
    inner: gs.Tensor
    nodes: tuple[gs.Node, ...]
    alpha: float = 0.0
    beta: float = 0.0


def se_pointwise(node: gs.Node) -> SePointwise | None:
    """The squeeze-and-excitation in front of this 1x1 convolution; None where there is none."""
    excite = producer(node.inputs[0]) if _is_pointwise(node) else None
    if excite is None or excite.op != "Mul":
        return None
    for index in (0, 1):
        found = _excited(node, excite, excite.inputs[1 - index], excite.inputs[index])
        if found is not None:
            return found
    return None


def _excited(conv: gs.Node, excite: gs.Node, x: gs.Tensor, scale: gs.Tensor) -> SePointwise | None:
    gate = _gate(scale)
    expand = None if gate is None else producer(gate.inner)
    if gate is None or expand is None or not _is_pointwise(expand):
        return None
    activation, inner, between = _activation(expand.inputs[0])
    reduce = producer(inner)
    mean = producer(reduce.inputs[0]) if reduce is not None and _is_pointwise(reduce) else None
    if reduce is None or mean is None or not _is_spatial_mean(mean):
        return None
    inside = (mean, reduce, *between, expand, *reversed(gate.nodes), excite, conv)
    return SePointwise(
        x=x,
        scale=scale,
        pooled=mean.inputs[0],
        excite=excite,
        conv=conv,
        reduce=reduce,
        expand=expand,
        activation=activation,
        gate=gate.kind,
        alpha=gate.alpha,
        beta=gate.beta,
        inside=inside,
    )


def _gate(scale: gs.Tensor) -> _Gate | None:
    """The Sigmoid or hard sigmoid that a scale comes out of, and what goes in."""
    node = producer(scale)
    if node is not None and node.op == "Sigmoid":
        return _Gate("Sigmoid", node.inputs[0], (node,))
    found: Ramp | None = None
    for ramp in ramps(scale):
        bounded = close(ramp.low, 0.0, scale.dtype) and close(ramp.high, 1.0, scale.dtype)
        if bounded and 0 < ramp.slope < inf:
            found = ramp
    if found is None:
        return None
    return _Gate("HardSigmoid", found.x, found.nodes, found.slope, found.offset)


def _activation(tensor: gs.Tensor) -> tuple[str, gs.Tensor, tuple[gs.Node, ...]]:
    """The activation a tensor comes out of, what goes in, and its nodes in order."""
    node = producer(tensor)
    silu = node is not None and node.op == "Swish" and node.attrs.get("alpha", 1.0) == 1.0
    if node is not None and (node.op in _ACTIVATIONS or silu):
        return node.op, node.inputs[0], (node,)
    swish = None if node is None or node.op != "Mul" else _swish(node.inputs)
    if node is None or swish is None:
        return "", tensor, ()
    return "Swish", swish.inputs[0], (swish, node)


def _swish(factors: Sequence[gs.Tensor]) -> gs.Node | None:
    """The Sigmoid where the factors are z and Sigmoid(z)."""
    for index in (0, 1):
        sigmoid = producer(factors[index])
        if sigmoid is not None and sigmoid.op == "Sigmoid":
            return sigmoid if sigmoid.inputs[0] is factors[1 - index] else None
    return None


def _is_pointwise(node: gs.Node) -> bool:
    """Whether the node is a dense 1x1 convolution with known weights and nothing around it."""
    weight = constant(node.inputs[1]) if node.op == "Conv" else None
    if weight is None or weight.ndim != 4 or weight.shape[2:] != (1, 1):
        return False
    strides, pads = node.attrs.get("strides", [1, 1]), node.attrs.get("pads", [0] * 4)
    return int(node.attrs.get("group", 1)) == 1 and set(strides) == {1} and set(pads) == {0}


def _is_spatial_mean(node: gs.Node) -> bool:
    """Whether the node takes the mean over H and W and keeps both axes."""
    if node.op == "GlobalAveragePool":
        return rank(node.inputs[0]) == 4
    if node.op != "ReduceMean" or not node.attrs.get("keepdims", 1):
        return False
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1:
        axes = constant(node.inputs[1])
    dims = rank(node.inputs[0])
    return dims == 4 and axes is not None and sorted(int(a) % 4 for a in axes) == [2, 3]
