"""How nodes treat the channel axis (1): which only move channels, which work on each alone."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.factored import picked_channels
from deploy.surgery.graph import constant, producer

_UNARY = (
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid"),
    *("HardSwish", "Tanh", "Softplus", "Softsign", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg"),
    *("Reciprocal", "Floor", "Ceil", "Mish", "Gelu", "Swish", "Cast", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "GlobalMaxPool", "LpPool"),
)
# ops whose further inputs are constants, scalar or one value per channel
_WITH_CONSTANTS = ("BatchNormalization", "InstanceNormalization", "PRelu", "Clip")
_ARITHMETIC = ("Mul", "Add", "Sub", "Div")
_PER_TENSOR = ("QuantizeLinear", "DequantizeLinear")


def channel_count(tensor: gs.Tensor) -> int | None:
    """The size of axis 1; None when it isn't known, or nothing is there to be moved."""
    shape = tensor.shape
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int):
        return None
    return int(shape[1]) or None


def moved_channels(node: gs.Node) -> list[np.ndarray] | None:
    """For a node that only moves channels: per output, which channels of the inputs laid end to
    end it holds, int64[C]. None for any other node.

    A channel shuffle (Reshape -> Transpose -> Reshape, whatever its spelling) is known by its last
    Reshape; `shuffle_of` gives its nodes.
    """
    if node.op == "Concat":
        return _concat(node)
    if node.op == "Split":
        return _split(node)
    if node.op == "Slice":
        return _slice(node)
    if node.op == "Gather":
        return _gather(node)
    if node.op == "Identity":
        count = channel_count(node.inputs[0])
        return None if count is None else [np.arange(count)]
    if node.op == "Reshape":
        return _shuffle(node)
    return None


def moved_inputs(node: gs.Node) -> list[gs.Tensor]:
    """The data inputs of a node that moves channels."""
    if node.op == "Concat":
        return list(node.inputs)
    chain = shuffle_of(node)
    return [chain[0].inputs[0] if chain else node.inputs[0]]


def shuffle_of(node: gs.Node) -> tuple[gs.Node, gs.Node, gs.Node] | None:
    """The Reshape, Transpose, Reshape that end in this node; each inner value read once."""
    if node.op != "Reshape":
        return None
    transpose = producer(node.inputs[0])
    if transpose is None or transpose.op != "Transpose" or len(node.inputs[0].outputs) != 1:
        return None
    first = producer(transpose.inputs[0])
    if first is None or first.op != "Reshape" or len(transpose.inputs[0].outputs) != 1:
        return None
    return first, transpose, node


def excited(node: gs.Node) -> tuple[gs.Tensor, gs.Tensor] | None:
    """The map and the factors of an excitation: a Mul of [N, C, H, W] and [N, C, 1, 1]."""
    if node.op != "Mul" or len(node.inputs) != 2:
        return None
    if any(isinstance(v, gs.Constant) or channel_count(v) is None for v in node.inputs):
        return None
    left, right = node.inputs
    if left is right or len(left.shape) != len(right.shape) or left.shape[1] != right.shape[1]:
        return None
    if all(size == 1 for size in right.shape[2:]):
        return left, right
    return (right, left) if all(size == 1 for size in left.shape[2:]) else None


def worked_inputs(node: gs.Node) -> list[gs.Tensor]:
    """The run-time inputs of a per-channel node, the one that leads its order first."""
    return list(excited(node) or node.inputs[:1])


def works_per_channel(node: gs.Node) -> bool:
    """Whether output channel i depends on channel i of `worked_inputs` and on constants alone."""
    if excited(node) is not None:
        return True
    if not node.inputs or len(node.outputs) != 1 or isinstance(node.inputs[0], gs.Constant):
        return False
    count = channel_count(node.inputs[0])
    if count is None or channel_count(node.outputs[0]) != count:
        return False
    if node.op in _UNARY:
        return len(node.inputs) == 1
    if node.op == "Conv":
        return _is_depthwise(node, count)
    if node.op == "Flatten":
        return _is_flat(node)
    if node.op in ("ReduceMean", "ReduceMax"):
        return only_pixels_reduced(node)
    if node.op in (*_WITH_CONSTANTS, *_ARITHMETIC, *_PER_TENSOR):
        return not node.attrs.get("training_mode", 0) and all(
            _selectable(value, node, count) for value in node.inputs[1:]
        )
    return False


def with_channels(node: gs.Node, order: np.ndarray) -> list[gs.Tensor | np.ndarray]:
    """The constants of a per-channel node for channels in that order."""
    if excited(node) is not None:
        return []
    count = channel_count(node.inputs[0]) or 0
    return [_selected(value, node, count, order) for value in node.inputs[1:]]


def _selectable(value: gs.Tensor, node: gs.Node, count: int) -> bool:
    if value.is_empty():
        return True
    values = constant(value)
    if values is None:
        return False
    return values.size == 1 or _channel_axis(values, node, count) is not None


def _selected(
    value: gs.Tensor, node: gs.Node, count: int, order: np.ndarray
) -> gs.Tensor | np.ndarray:
    values = constant(value)
    if values is None or values.size == 1:
        return value
    axis = _channel_axis(values, node, count)
    return value if axis is None else np.ascontiguousarray(np.take(values, order, axis))


def _channel_axis(values: np.ndarray, node: gs.Node, count: int) -> int | None:
    """Which axis of a constant runs over the channels; None when no other axis may vary."""
    if node.op in ("BatchNormalization", "InstanceNormalization"):
        return 0 if values.shape == (count,) else None
    if node.op == "Conv":
        return 0
    if node.op in _PER_TENSOR or node.op == "Clip":
        return None
    axis = 1 - (len(node.inputs[0].shape) - values.ndim)
    others = [size for i, size in enumerate(values.shape) if i != axis]
    fits = axis >= 0 and values.shape[axis] == count and all(size == 1 for size in others)
    return axis if fits else None


def _is_depthwise(node: gs.Node, count: int) -> bool:
    weights = constant(node.inputs[1])
    if weights is None or node.attrs.get("group", 1) != count or weights.shape[0] != count:
        return False
    return count > 1 and all(v.is_empty() or constant(v) is not None for v in node.inputs[2:])


def _is_flat(node: gs.Node) -> bool:
    """A Flatten that only drops spatial axes of size 1."""
    space = node.inputs[0].shape[2:]
    return int(node.attrs.get("axis", 1)) == 1 and all(size == 1 for size in space)


def only_pixels_reduced(node: gs.Node) -> bool:
    """Whether a reduction runs over spatial axes alone."""
    rank = len(node.inputs[0].shape)
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) == 2:
        axes = constant(node.inputs[1])
    return axes is not None and all(int(a) % rank >= 2 for a in np.asarray(axes).reshape(-1))


def _concat(node: gs.Node) -> list[np.ndarray] | None:
    counts = [channel_count(value) for value in node.inputs]
    rank = len(node.outputs[0].shape or ())
    if None in counts or rank == 0 or int(node.attrs["axis"]) % rank != 1:
        return None
    return [np.arange(sum(c for c in counts if c is not None))]


def _split(node: gs.Node) -> list[np.ndarray] | None:
    counts = [channel_count(value) for value in node.outputs]
    rank = len(node.inputs[0].shape or ())
    if None in counts or rank == 0 or int(node.attrs.get("axis", 0)) % rank != 1:
        return None
    ends = np.cumsum([c for c in counts if c is not None])
    return [np.arange(e - (c or 0), e) for e, c in zip(ends, counts, strict=True)]


def _slice(node: gs.Node) -> list[np.ndarray] | None:
    count = channel_count(node.inputs[0])
    bounds = [constant(value) for value in node.inputs[1:]]
    if count is None or len(bounds) < 3 or any(b is None or b.size != 1 for b in bounds):
        return None
    start, end, axis, *step = (int(np.asarray(b).reshape(-1)[0]) for b in bounds)
    if axis % len(node.inputs[0].shape) != 1:
        return None
    taken = np.arange(count)[slice(start, end, *step)]
    return [taken] if taken.size else None


def _gather(node: gs.Node) -> list[np.ndarray] | None:
    count, indices = channel_count(node.inputs[0]), constant(node.inputs[1])
    if count is None or indices is None or indices.ndim != 1:
        return None
    if int(node.attrs.get("axis", 0)) % len(node.inputs[0].shape) != 1:
        return None
    if indices.size == 0 or (indices < -count).any() or (indices >= count).any():
        return None
    return [np.arange(count)[indices]]


def _shuffle(node: gs.Node) -> list[np.ndarray] | None:
    """The permutation of a shuffle, seen through its three nodes."""
    chain = shuffle_of(node)
    order = None if chain is None else picked_channels(chain)
    return None if order is None else [order]
