"""Sizes that a model computes while it runs become constants, where they are known before.

    Shape -> Gather -> Div -> Concat -> Reshape(x, ...)   =>   Reshape(x, [0, 2, 58, -1])

What exporters write for code with x.size() is followed as arithmetic in the inputs' free
dimensions. A Reshape may copy sizes (0) and leave one to be inferred (-1); bounds of a Slice count
from the end; sizes of a Resize that are a multiple become scales; others need plain numbers. It
pays because small nodes cost their dispatch and keep an engine's compiler from seeing shapes; and
because the other fusions read constants. A free dimension of an input is taken to be at least 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant
from deploy.surgery.known_sizes import facts_of, numbers_of, sizes_of
from deploy.surgery.rewrite import New, Replace, Skip
from deploy.surgery.size import Size
from deploy.surgery.size_rules import integers, target_sizes

# which inputs of an operator are sizes, counts or places
_PLACES = {
    "Slice": (1, 2, 3, 4),
    "Expand": (1,),
    "Tile": (1,),
    "Pad": (1,),
    "Split": (1,),
    "ConstantOfShape": (0,),
    "Resize": (3,),
    "TopK": (1,),
}
_TO_THE_END = np.iinfo(np.int64).max


def constant_shape(node: gs.Node) -> Replace | Skip | None:
    """Give this node constants for the sizes it reads."""
    if node.op == "Reshape":
        return _reshape(node)
    computed = [
        index
        for index in _PLACES.get(node.op, ())
        if index < len(node.inputs)
        and not node.inputs[index].is_empty()
        and constant(node.inputs[index]) is None
    ]
    if not computed:
        return None
    inputs: list[gs.Tensor | np.ndarray] = list(node.inputs)
    for index in computed:
        numbers = integers(facts_of(node.inputs[index]))
        if numbers is None:
            found = _relative(node, index)
            if isinstance(found, Skip):
                return found
            index, numbers = found
            if node.op == "Resize":
                inputs[3:] = []
        inputs[index] = numbers
    new = New(node.op, tuple(inputs), tuple(node.outputs), dict(node.attrs))
    return Replace((node,), (new,), f"the sizes of {node.op} are constants")


def _reshape(node: gs.Node) -> Replace | Skip | None:
    if constant(node.inputs[1]) is not None:
        return None
    before, target = sizes_of(node.inputs[0]), numbers_of(node.inputs[1])
    if before is None:
        return Skip(f"the number of axes of {node.inputs[0].name!r} is unknown")
    if target is None or target.ndim != 1 or target.dtype != object:
        return _from_data(node, 1)
    sizes = target_sizes(before, list(target), zero_copies=not node.attrs.get("allowzero", 0))
    if sizes is None:
        return Skip("a size of its target may be 0 or less, which would copy or infer another")
    found = _spelled(before, sizes)
    if isinstance(found, Skip):
        return found
    new = New("Reshape", (node.inputs[0], found), tuple(node.outputs))
    return Replace((node,), (new,), f"reshapes to {found.tolist()}")


def _spelled(before: Sequence[Size], after: Sequence[Size]) -> np.ndarray | Skip:
    """The sizes as a Reshape takes them, with 0 for a copied one and -1 for one that is left."""
    written = []
    for axis, size in enumerate(after):
        copied = axis < len(before) and size == before[axis]
        written.append(size.number if size.number is not None else 0 if copied else -1)
        if size.number == 0:
            return Skip("a size of its target is 0, where a constant would copy")
    if written.count(-1) > 1:
        return Skip(
            f"{written.count(-1)} sizes of its target vary and aren't copied; one can be inferred"
        )
    if -1 in written and any(
        (size.least or 0) < 1 for size, value in zip(after, written, strict=True) if value != -1
    ):
        return Skip("a size beside the one to infer may be 0")
    return np.array(written, np.int64)


def _relative(node: gs.Node, index: int) -> tuple[int, np.ndarray] | Skip:
    """Numbers that mean the same as sizes which vary, and which input they are."""
    before, numbers = sizes_of(node.inputs[0]), numbers_of(node.inputs[index])
    if before is None or numbers is None or numbers.ndim != 1 or numbers.dtype != object:
        return _from_data(node, index)
    found: list[int] | None = None
    if node.op == "Slice" and index in (1, 2):
        axes = integers(facts_of(node.inputs[3])) if len(node.inputs) > 3 else range(len(numbers))
        if axes is not None:
            along = [before[int(axis)] for axis in axes]
            # backwards, runtimes take the largest number for the other end
            found = _from_the_end(numbers, along, to_end=index == 2 and _goes_forward(node))
    elif node.op == "Expand":
        found = _broadcast(numbers, before)
    elif node.op == "Resize":
        scales = _scales(node, numbers, before)
        return Skip("its sizes aren't a known multiple") if scales is None else (2, scales)
    if found is None:
        return Skip(f"its {node.inputs[index].name!r} varies with the sizes of the inputs")
    return index, np.array(found, np.int64)


def _goes_forward(node: gs.Node) -> bool:
    """Whether every step of a Slice is known to be positive."""
    steps = integers(facts_of(node.inputs[4])) if len(node.inputs) > 4 else np.ones(1)
    return steps is not None and bool((steps > 0).all())


def _from_the_end(numbers: np.ndarray, along: Sequence[Size], *, to_end: bool) -> list[int] | None:
    """Bounds of a Slice, counted from the end where they vary with the axis."""
    found = []
    for bound, size in zip(numbers, along, strict=True):
        back = (size - bound).number
        if bound.number is not None:
            found.append(bound.number)
        elif back == 0 and to_end:
            found.append(_TO_THE_END)
        # a bound below 0 would count from the end by itself
        elif back is not None and back > 0 and (bound.least is not None and bound.least >= 0):
            found.append(-back)
        else:
            return None
    return found


def _broadcast(numbers: np.ndarray, before: Sequence[Size]) -> list[int] | None:
    """The target of an Expand, with 1 where the size stays."""
    offset = len(numbers) - len(before)
    found = []
    for axis, size in enumerate(numbers):
        stays = axis >= offset and size == before[axis - offset]
        if size.number is None and not stays:
            return None
        found.append(1 if size.number is None else size.number)
    return found


def _scales(node: gs.Node, numbers: np.ndarray, before: Sequence[Size]) -> np.ndarray | None:
    """Sizes of a Resize as whole factors, with which every one of its modes is the same."""
    plain = not node.attrs.get("axes") and len(numbers) == len(before)
    policy = node.attrs.get("keep_aspect_ratio_policy", "stretch")
    if not plain or policy != "stretch":
        return None
    factors = [size.over(old) for size, old in zip(numbers, before, strict=True)]
    known = [None if factor is None else factor.number for factor in factors]
    if any(factor is None or factor < 1 for factor in known):
        return None
    return np.array(known, np.float32)


def _from_data(node: gs.Node, index: int) -> Skip:
    name = node.inputs[index].name
    return Skip(f"its {name!r} is computed from more than sizes")
