"""Layers that work on the last axis by definition, for data that has those values elsewhere.

    MatMul by a constant [C, M]       =>  Conv 1x1, channels in front
    the same between two Reshapes, to rows and back   =>  Conv 1x1
    LayerNormalization, RMS           =>  the operators they are made of, over the other axis
    Reshape -> Transpose -> Reshape   =>  the same channel shuffle along the other axis

Where the last axes stay the last ones, they only take their constants in the other order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.axis_order import Order, data_bytes, inverse
from deploy.surgery.channels import shuffle_of
from deploy.surgery.dense_rows import Dense, dense_of_rows, same_sizes
from deploy.surgery.graph import constant, is_output, rank
from deploy.surgery.norm_nodes import layer_norm_nodes, rms_norm_nodes
from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Skip
from deploy.surgery.turned import Turned

Inputs = Sequence[gs.Tensor | np.ndarray]
Outputs = Sequence[gs.Variable]

# the widest runtimes have convolutions for: three axes of space
_CONV_RANKS = (3, 4, 5)
_CONV_TYPES = (np.float32, np.float16)


def turned_matmul(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """MatMul by a constant matrix; as a 1x1 Conv where its axis becomes the channels.

    In OpenVINO on a CPU, with the Transposes it frees, 0.75 to 0.96 of the time (ConvNeXt blocks).
    """
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2 or rank(node.outputs[0]) != len(perm):
        return None
    last = len(perm) - 1
    if perm[last] == last:
        return Turned(tuple(node.inputs), (0,), dict(node.attrs), perm)
    return _turned_dense(Dense(node.inputs[0], weight, None), perm)


def _turned_dense(layer: Dense, perm: Order) -> Turned | Skip | None:
    last = len(perm) - 1
    if len(perm) not in _CONV_RANKS:
        return None
    if (perm[0], perm[last]) != (0, 1):
        return Skip("MatMul sums over the last axis, which are not the channels of a Conv")
    weight = layer.weight
    if weight.dtype not in _CONV_TYPES:
        return Skip(f"MatMul computes in {weight.dtype}, which few runtimes do in Conv")
    kernel = np.ascontiguousarray(weight.T).reshape(*weight.T.shape, *(1,) * (last - 1))
    bias = () if layer.bias is None else (layer.bias,)
    inputs = (layer.x, kernel, *bias)
    return Turned(inputs, (0,), {}, perm, _conv, layer.inside, dense=True)


def _conv(inputs: Inputs, outputs: Outputs) -> tuple[New, ...]:
    kernel = inputs[1]
    return (New("Conv", tuple(inputs), tuple(outputs), {"kernel_shape": list(kernel.shape[2:])}),)


def turned_normalization(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """LayerNormalization or RMSNormalization; written out where its axes aren't the last ones.

    Written out it reads a map twice more (RMS: once), as compilers join the steps between sums. In
    OpenVINO on a CPU, 0.8 to 0.96 of the time of the operator between two Transposes.
    """
    x, first = node.inputs[0], int(node.attrs.get("axis", -1)) % len(perm)
    if x.dtype != np.float32:
        return Skip(f"{node.op} has float32 statistics whatever its input is, here {type_name(x)}")
    if any(tensor.outputs or is_output(tensor) for tensor in node.outputs[1:]):
        return Skip(f"the mean and deviation of {node.op} are asked for too")
    sizes = x.shape[first:]
    given = [constant(value) for value in node.inputs[1:] if not value.is_empty()]
    if any(values is None for values in given) or not all(isinstance(s, int) for s in sizes):
        return Skip(f"the scale or bias of {node.op}, {list(sizes)}, is known at run time only")
    full = [np.broadcast_to(np.asarray(values), sizes) for values in given]
    axes = sorted(perm[axis] for axis in range(first, len(perm)))
    if axes[0] == first:
        # still the last ones, maybe in another order
        order = [axis - first for axis in inverse(perm)[first:]]
        turned = (np.ascontiguousarray(values.transpose(order)) for values in full)
        return Turned((x, *turned), (0,), dict(node.attrs), perm)
    spread = (values.reshape(*(1,) * first, *sizes).transpose(inverse(perm)) for values in full)
    written = partial(_written_out, node.op, axes, float(node.attrs.get("epsilon", 1e-5)))
    reads = 2 if node.op == "LayerNormalization" else 1
    return Turned((x, *spread), (0,), {}, perm, written, extra_bytes=reads * data_bytes(x))


def _written_out(
    op: str, axes: list[int], epsilon: float, inputs: Inputs, outputs: Outputs
) -> tuple[New, ...]:
    x, scale, *bias = inputs
    if op == "RMSNormalization":
        return rms_norm_nodes(x, scale, outputs[0], axes, epsilon)
    return layer_norm_nodes(x, (scale, bias[0] if bias else None), outputs[0], axes, epsilon)


def turned_reshape(node: gs.Node, perm: Order) -> Turned | Skip | None:
    """The shuffle of the last axis that this Reshape ends, or the dense layer; no other Reshape.

    It is worth a word where one splits or joins channels behind an image.
    """
    if rank(node.outputs[0]) == len(perm):
        chain, layer = shuffle_of(node), dense_of_rows(node)
        factors = None if chain is None else _last_factors(*chain)
        if chain is not None and factors is not None:
            return _turned_shuffle(chain, factors, perm)
        if layer is not None and perm[-1] != len(perm) - 1:
            return _turned_dense(layer, perm)
    before, after = node.inputs[0].shape, node.outputs[0].shape
    split = {len(before), len(after)} == {4, 5} and list(before[1:3]) == list(after[1:3])
    return Skip("Reshape divides the axes in the order they are in") if split else None


def _turned_shuffle(
    chain: tuple[gs.Node, gs.Node, gs.Node], factors: list[int], perm: Order
) -> Turned:
    x, lead = chain[0].inputs[0], len(chain[0].outputs[0].shape) - len(factors)
    inner = [axis - lead for axis in chain[1].attrs["perm"][lead:]]
    at, shape = perm[-1], [x.shape[axis] for axis in inverse(perm)]
    if sum(not isinstance(size, int) for size in shape[at + 1 :]) > 1:
        order = np.arange(x.shape[-1]).reshape(factors).transpose(inner).reshape(-1)
        written = partial(_gathered, at, order)
    else:
        written = partial(_shuffled, at, shape, factors, inner)
    return Turned((x,), (0,), {}, perm, written, chain[:2])


def _last_factors(first: gs.Node, transpose: gs.Node, last: gs.Node) -> list[int] | None:
    """What the last axis is divided into, where the shuffle moves nothing else."""
    x, inner, y = first.inputs[0].shape, first.outputs[0].shape, last.outputs[0].shape
    if None in (x, inner, y) or not same_sizes(x, y) or 0 in x or not isinstance(x[-1], int):
        return None
    perm = list(transpose.attrs.get("perm", ()))
    if any(is_output(node.outputs[0]) for node in (first, transpose)):
        return None
    for lead in range(len(inner) - 1, 0, -1):
        factors = inner[lead:]
        if not all(isinstance(size, int) for size in factors):
            return None
        if np.prod(factors) == x[-1] and perm[:lead] == list(range(lead)):
            return [int(size) for size in factors]
    return None


def _gathered(at: int, order: np.ndarray, inputs: Inputs, outputs: Outputs) -> tuple[New, ...]:
    return (New("Gather", (inputs[0], order), tuple(outputs), {"axis": at}),)


def _shuffled(
    at: int,
    shape: list[object],
    factors: list[int],
    inner: list[int],
    inputs: Inputs,
    outputs: Outputs,
) -> tuple[New, ...]:
    """The three nodes along axis `at`; 0 copies a free size in front of it, -1 is one behind."""
    before = [size if isinstance(size, int) else 0 for size in shape[:at]]
    behind = [size if isinstance(size, int) else -1 for size in shape[at + 1 :]]
    moved = [factors[axis] for axis in inner]
    places = [*range(at), *(at + axis for axis in inner)]
    perm = [*places, *range(len(places), len(places) + len(behind))]
    split, turned = (
        gs.Variable("", inputs[0].dtype, [*shape[:at], *sizes, *shape[at + 1 :]])
        for sizes in (factors, moved)
    )
    joined = int(np.prod(factors))
    targets = [np.asarray([*before, *sizes, *behind], np.int64) for sizes in (factors, [joined])]
    return (
        New("Reshape", (inputs[0], targets[0]), (split,)),
        New("Transpose", (split,), (turned,), {"perm": perm}),
        New("Reshape", (turned, targets[1]), tuple(outputs)),
    )
