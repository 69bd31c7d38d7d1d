"""Element-wise changes of type: Cast, QuantizeLinear and DequantizeLinear, read into one form.

Two nodes with equal conversions turn equal values into equal bits, wherever they stand: that is
what lets `deploy.surgery.movement` carry them past operators that only move data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.surgery.graph import constant
from deploy.surgery.rewrite import Skip


@dataclass(frozen=True)
class Conversion:
    """What one converting node does to every element.

    parameters: its inputs behind the data. scale, zero_point: their values, None for a Cast.
    """

    op: str
    attrs: Mapping[str, Any]
    source: np.dtype
    target: np.dtype
    parameters: tuple[gs.Tensor | np.ndarray, ...] = ()
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None

    def __str__(self) -> str:
        return f"{self.op} to {self.target}"

    @property
    def wide(self) -> np.dtype:
        """The type of more bytes per element, of the two."""
        return self.source if self.source.itemsize > self.target.itemsize else self.target

    @property
    def narrow(self) -> np.dtype:
        """The type of fewer bytes per element, of the two."""
        return self.target if self.source.itemsize > self.target.itemsize else self.source

    @property
    def bytes(self) -> int:
        """Traffic per element: read in one type, written in the other."""
        return self.source.itemsize + self.target.itemsize

    def same(self, other: Conversion | Skip | None) -> bool:
        """Whether the other one gives the same bits for the same values."""
        return (
            isinstance(other, Conversion)
            and (self.op, self.source, self.target) == (other.op, other.source, other.target)
            and self.attrs == other.attrs
            and _equal(self.scale, other.scale)
            and _equal(self.zero_point, other.zero_point)
        )

    def narrowed(self, value: np.ndarray) -> np.ndarray | None:
        """A wide value in the narrow type; None when that type can't hold it exactly."""
        if self.scale is None:
            with np.errstate(over="ignore", invalid="ignore"):
                found = value.astype(self.narrow)
                back = found.astype(self.wide)
        else:
            found = quantized(value, self.scale, self.zero_point, self.narrow)
            back = dequantized(found, self.scale, self.zero_point)
        # -0.0 equals 0.0, but integers have only one of them
        same = np.array_equal(back, value) and back.tobytes() == value.tobytes()
        return found if same else None


def cast(node: gs.Node) -> Conversion | None:
    """What a Cast does; None for other nodes and unknown types."""
    if node.op != "Cast":
        return None
    source = dtype_of(node.inputs[0])
    target = onnx.helper.tensor_dtype_to_np_dtype(int(node.attrs["to"]))
    # text has no size
    if source is None or "O" in (source.kind, target.kind):
        return None
    return Conversion("Cast", node.attrs, source, target)


def quantize(node: gs.Node) -> Conversion | Skip | None:
    """What a QuantizeLinear of one scale does; Skip for other forms, None for other nodes."""
    return _linear(node, "QuantizeLinear")


def dequantize(node: gs.Node) -> Conversion | Skip | None:
    """What a DequantizeLinear of one scale does; Skip for other forms, None for other nodes."""
    return _linear(node, "DequantizeLinear")


def dtype_of(tensor: gs.Tensor) -> np.dtype | None:
    """The element type; graphsurgeon keeps those NumPy lacks (bfloat16, float8) as ONNX numbers."""
    if isinstance(tensor.dtype, int):
        return onnx.helper.tensor_dtype_to_np_dtype(tensor.dtype)
    return None if tensor.dtype is None else np.dtype(tensor.dtype)


def quantized(
    values: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, dtype: np.dtype
) -> np.ndarray:
    """saturate(round_half_to_even(values / scale) + zero point), as ONNX defines it."""
    limits = np.iinfo(dtype)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        steps = np.nan_to_num(np.rint(values / scale).astype(np.float64))
    shifted = steps + (0 if zero_point is None else int(zero_point))
    return np.asarray(np.clip(shifted, limits.min, limits.max).astype(dtype))


def dequantized(values: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None) -> np.ndarray:
    """(values - zero point) * scale in the scale's type."""
    steps = values.astype(np.int64) - (0 if zero_point is None else int(zero_point))
    with np.errstate(over="ignore"):
        return np.asarray(steps.astype(scale.dtype) * scale)


def _linear(node: gs.Node, op: str) -> Conversion | Skip | None:
    if node.op != op or node.domain not in (None, "", "ai.onnx"):
        return None
    scale = constant(node.inputs[1])
    given = node.inputs[2] if len(node.inputs) > 2 and not node.inputs[2].is_empty() else None
    zero = None if given is None else constant(given)
    if scale is None or (given is not None and zero is None):
        return Skip(f"the scale or zero point of {op} is computed at run time")
    if scale.size != 1 or (zero is not None and zero.size != 1):
        return Skip(f"{op} has {scale.size} scales, each for a part of the tensor")
    if not 0 < float(scale.reshape(())) < np.inf:
        return Skip(f"the scale of {op}, {float(scale.reshape(()))}, is not a positive number")
    source, target = dtype_of(node.inputs[0]), dtype_of(node.outputs[0])
    if source is None or target is None:
        return None
    integers = target if op == "QuantizeLinear" else source
    if integers.kind not in "iu":
        return Skip(f"{op} between {source} and {target} is not a quantization to integers")
    return Conversion(
        op,
        # one scale has no axis
        {k: v for k, v in node.attrs.items() if k not in ("axis", "block_size")},
        source,
        target,
        (_scalar(node.inputs[1]), *(() if given is None else (_scalar(given),))),
        scale.reshape(()),
        None if zero is None else zero.reshape(()),
    )


def _scalar(tensor: gs.Tensor) -> gs.Tensor | np.ndarray:
    """The parameter without dimensions: [1] would mean one scale per channel elsewhere."""
    values = np.asarray(tensor.values)
    return tensor if values.ndim == 0 else values.reshape(())


def _equal(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and bool(one == other)
