"""Integers that come back as themselves stay: DequantizeLinear and QuantizeLinear cancel.

    q -> DequantizeLinear(s, z) -> QuantizeLinear(s, z) -> reader   =>   q -> reader

round(((q - z) * s) / s) + z gives q back for every integer of the type; this is computed for all of
them, as a scale near the end of the float range would break it. It pays because the map is neither
written as floats nor read again.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.conversion import Conversion, dequantize, dequantized, quantize, quantized
from deploy.surgery.graph import elements, is_output, producer
from deploy.surgery.rewrite import New, Replace, Skip


def cancel_dequantize_quantize(node: gs.Node) -> Replace | Skip | None:
    """Let the readers of this QuantizeLinear read the integers it was made from."""
    source = producer(node.inputs[0]) if node.op == "QuantizeLinear" else None
    if source is None or source.op != "DequantizeLinear":
        return None
    back, there = quantize(node), dequantize(source)
    if back is None or there is None:
        return None
    if isinstance(back, Skip):
        return back
    if isinstance(there, Skip):
        return there
    if not _inverse(there, back):
        return Skip(f"it quantizes to {_form(back)} what was {_form(there)}")
    if not _comes_back(back):
        return Skip(f"not every {back.target} comes back from scale {back.scale}")
    integers, copy = source.inputs[0], node.outputs[0]
    readers = {id(reader): reader for reader in copy.outputs}
    new = tuple(_reading(reader, copy, integers) for reader in readers.values())
    size = elements(copy) or 0
    floats = source.outputs[0]
    alone = len(floats.outputs) == 1 and not is_output(floats)
    saved = size * back.bytes * (2 if alone else 1)
    reason = f"DequantizeLinear and QuantizeLinear of {_form(back)} cancel"
    return Replace((node, *readers.values()), new, reason, saved)


def _inverse(there: Conversion, back: Conversion) -> bool:
    # a missing zero point is zero
    points = [int(c.zero_point) if c.zero_point is not None else 0 for c in (there, back)]
    return (
        there.source == back.target
        and there.target == back.source
        and there.scale is not None
        and back.scale is not None
        and there.scale.dtype == back.scale.dtype
        and bool(there.scale == back.scale)
        and points[0] == points[1]
    )


def _comes_back(back: Conversion) -> bool:
    """Whether dequantizing and quantizing gives every integer of the type back."""
    if back.scale is None or back.target.itemsize > 2:
        return False
    limits = np.iinfo(back.target)
    every = np.arange(limits.min, limits.max + 1).astype(back.target)
    floats = dequantized(every, back.scale, back.zero_point)
    if not np.isfinite(floats).all():
        return False
    return np.array_equal(quantized(floats, back.scale, back.zero_point, back.target), every)


def _form(conversion: Conversion) -> str:
    integers = conversion.narrow
    zero = 0 if conversion.zero_point is None else int(conversion.zero_point)
    return f"{integers} of scale {conversion.scale} and zero point {zero}"


def _reading(reader: gs.Node, copy: gs.Tensor, integers: gs.Tensor) -> New:
    """The reader, with the integers in place of their copy."""
    inputs = tuple(integers if t is copy else t for t in reader.inputs)
    return New(reader.op, inputs, tuple(reader.outputs), reader.attrs, reader.domain)
