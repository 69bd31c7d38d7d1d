"""What is known of a tensor's sizes, and of the integers that shape arithmetic computes from them.

Exporters write x.size(1) // 2 as Shape, Gather, Div, Unsqueeze and Concat. Here both are followed
from the inputs down, as arithmetic in the inputs' free dimensions. What a rewrite keeps keeps its
sizes, so that an answer holds as long as the tensor is there: each is computed once.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant, producer
from deploy.surgery.number_rules import FEW, as_sizes, computed_numbers
from deploy.surgery.size import Named, Size, Unknown
from deploy.surgery.size_rules import Facts, computed_sizes


def sizes_of(tensor: gs.Tensor) -> tuple[Size, ...] | None:
    """The size of each axis; None where even their number is unknown."""
    return facts_of(tensor).sizes


def numbers_of(tensor: gs.Tensor) -> np.ndarray | None:
    """The integers of a tensor of shape arithmetic, an array of Size; None for other tensors."""
    return facts_of(tensor).numbers


def facts_of(tensor: gs.Tensor) -> Facts:
    """Both, computed from the inputs down without recursion: networks are deep."""
    waiting = [tensor]
    while waiting:
        last = waiting[-1]
        node = None if _known(last) else producer(last)
        missing = [] if node is None else [v for v in node.inputs if not _known(v)]
        waiting.extend(missing)
        if not missing:
            waiting.pop()
            if not _known(last):
                last.known_facts = _computed(last, node)
    found: Facts = tensor.known_facts
    return found


def _known(tensor: gs.Tensor) -> bool:
    return hasattr(tensor, "known_facts")


def _computed(tensor: gs.Tensor, node: gs.Node | None) -> Facts:
    if tensor.is_empty():
        return Facts((), None)  # left out: it broadcasts like a scalar
    if isinstance(tensor, gs.Constant):
        # counts and places are integers; floats among them are single factors
        kind = "" if isinstance(tensor.dtype, int) else np.dtype(tensor.dtype).kind
        few = FEW if kind in ("i", "u", "b") else 4
        small = len(tensor.shape) < 2 and int(np.prod(tensor.shape)) <= few
        values = as_sizes(constant(tensor)) if small else None
        return Facts(tuple(Size.of(int(d)) for d in tensor.shape), values)
    if node is None:
        # a name stands for one size in the whole model, if it is one
        return Facts(_declared(tensor, None, named=True), None)
    inputs = [value.known_facts for value in node.inputs]
    index = next(i for i, out in enumerate(node.outputs) if out is tensor)
    known = tensor.shape is not None and all(isinstance(d, int) and d >= 0 for d in tensor.shape)
    computed = None if known else computed_sizes(node, index, inputs)
    sizes = _declared(tensor, computed, named=False)
    return Facts(sizes, computed_numbers(node, index, inputs))


def _declared(
    tensor: gs.Tensor, computed: tuple[Size, ...] | None, *, named: bool
) -> tuple[Size, ...] | None:
    """The sizes written down where they are numbers, else those computed."""
    shape = tensor.shape
    if shape is None:
        return computed
    if computed is None or len(computed) != len(shape):
        computed = tuple(Size.of(Unknown()) for _ in shape)
    found = []
    for size, other in zip(shape, computed, strict=True):
        if isinstance(size, int) and size >= 0:
            found.append(Size.of(size))
        elif named:
            is_name = isinstance(size, str) and size.isidentifier() and size != "None"
            found.append(Size.of(Named(size) if is_name else Unknown(1)))
        else:
            found.append(other)
    return tuple(found)
