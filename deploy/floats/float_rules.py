"""Which nodes can compute in 16 bits, and the reason for each that can't.

Float16 has 11 bits of precision and ends at 65504; below 6.1e-5 it loses them one by one. Bfloat16
has float32's range and 8 bits. What sums many values, divides by what may be small, or grows
exponentially therefore stays in float32 unless calibrated ranges show that it fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.artifacts.ranges import Ranges
from deploy.surgery.graph import constant
from deploy.surgery.movement import moves


@dataclass(frozen=True)
class Half:
    """A float type of 16 bits. largest: finite; smallest: normal. headroom: how much larger than
    calibrated a value may become before it is called too large."""

    name: str
    onnx_type: int
    largest: float
    smallest: float
    headroom: float = 2.0

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(self.onnx_type))

    @property
    def accepted(self) -> str:
        """How ONNX's schemas call a tensor of it."""
        return f"tensor({self.name})"


HALVES = {
    "fp16": Half("float16", onnx.TensorProto.FLOAT16, 65504.0, 2.0**-14),
    "bf16": Half("bfloat16", onnx.TensorProto.BFLOAT16, 3.3895e38, 2.0**-126),
}

# sums over a whole axis, whose 16-bit sum would lose the small terms
_SUMS_MANY = (
    *("Softmax", "LogSoftmax", "LayerNormalization", "GroupNormalization", "RMSNormalization"),
    *("InstanceNormalization", "MeanVarianceNormalization", "LpNormalization", "LRN", "CumSum"),
    *("ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd"),
)
_REDUCES = ("ReduceMean", "ReduceSum", "ReduceL1", "GlobalAveragePool")
_MOST_SUMMED = 256
# what can leave the range although its input is in it
_GROWS = ("Exp", "Pow", "Div", "Reciprocal", "Log", "Softplus")
# what hands a value on that is too large, where no range says what it is
_PASSES_ON = ("Add", "Sub", "Mul", "Neg", "Abs", "Where", "Max", "Min", "Exp", "Pow", "Relu")
# only the shape of what these read matters
SHAPE_ONLY = ("Shape", "Size")
# weights that lose more than this were not meant for the type; ordinary ones keep 73 and 56 dB
_LEAST_DB = 40.0


@dataclass
class Rules:
    """The rules over one graph, nodes in order. ranges: of this graph, or None.

    unfit: tensors that may hold values the type can't, by name.
    """

    half: Half
    opset: int
    ranges: Ranges | None = None
    unfit: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str | None] = field(default_factory=dict)

    def refusal(self, node: gs.Node) -> str | None:
        """Why a node with float32 inputs computes in float32; None when it can in 16 bits.

        Asked once per node, in the graph's order: what may be too large is remembered.
        """
        reason = (
            self._by_type(node)
            or self._by_value(node)
            or _by_sum(node)
            or self._by_growth(node)
            or _by_integers(node)
        )
        self._remember(node)
        return reason

    def _by_type(self, node: gs.Node) -> str | None:
        if node.domain not in (None, "", "ai.onnx"):
            return "a custom operator, written for float32"
        if any(isinstance(a, gs.Graph) for a in node.attrs.values()):
            return "its body computes in float32"
        if not accepts(node, self.opset, self.half):
            return f"{node.op} of opset {self.opset} takes no {self.half.name}"
        return None

    def _by_value(self, node: gs.Node) -> str | None:
        for tensor in floats(node.inputs):
            reason = self._of_weight(tensor) or self._of_range(tensor)
            if reason is not None:
                return f"its input {reason}"
            if self.ranges is None and tensor.name in self.unfit:
                return f"its input {tensor.name!r} may be too large: {self.unfit[tensor.name]}"
        outputs = (self._of_range(tensor) for tensor in floats(node.outputs))
        reason = next((reason for reason in outputs if reason), None)
        return None if reason is None else f"its output {reason}"

    def _of_weight(self, tensor: gs.Tensor) -> str | None:
        values = constant(tensor)
        if values is None:
            return None
        if tensor.name not in self.weights:
            self.weights[tensor.name] = _lost(values, self.half)
        reason = self.weights[tensor.name]
        return None if reason is None else f"{tensor.name!r} {reason}"

    def _of_range(self, tensor: gs.Tensor) -> str | None:
        found = None if self.ranges is None else self.ranges.tensors.get(tensor.name)
        if found is None:
            return None
        size = max(abs(found.seen.low), abs(found.seen.high))
        if size * self.half.headroom > self.half.largest:
            return (
                f"{tensor.name!r} reaches {size:.3g}, too near {self.half.name}'s "
                f"{self.half.largest:.5g}"
            )
        if 0 < size < self.half.smallest:
            return (
                f"{tensor.name!r} stays within {size:.3g}, below the normal numbers of "
                f"{self.half.name}"
            )
        return None

    def _by_growth(self, node: gs.Node) -> str | None:
        if node.op not in _GROWS:
            return None
        divisor = {"Div": 1, "Reciprocal": 0, "Log": 0}.get(node.op)
        if divisor is not None and constant(node.inputs[divisor]) is not None:
            return None  # `_by_value` has seen that it is a normal number
        if self.ranges is None:
            return f"{node.op} can leave the range of {self.half.name}, and no ranges were given"
        if any(t.name not in self.ranges.tensors for t in _computed(node)):
            return f"{node.op} can leave the range of {self.half.name}, and it has no range"
        if divisor is not None:
            seen = self.ranges.tensors[node.inputs[divisor].name].seen
            if max(seen.low, -seen.high) < self.half.smallest:
                return f"{node.op} of values that come near 0 ({seen.low:.3g} to {seen.high:.3g})"
        return None

    def _remember(self, node: gs.Node) -> None:
        """Note outputs that may be too large, where no ranges tell."""
        why = None
        if node.op in ("Exp", "Pow"):
            why = f"the result of {node.op}"
        for tensor in floats(node.inputs):
            if self.weights.get(tensor.name) is not None:
                why = f"{tensor.name!r} {self.weights[tensor.name]}"
            why = self.unfit.get(tensor.name, why)
        if why is not None and (node.op in _PASSES_ON or moves(node)):
            self.unfit |= dict.fromkeys((t.name for t in node.outputs), why)


def integers_as_floats(node: gs.Node) -> str | None:
    """Why the float32 outputs of a node without float32 inputs may be too large."""
    if node.op != "Cast" or node.inputs[0].dtype in (np.bool_, np.int8, np.uint8):
        return None
    return f"cast from {np.dtype(node.inputs[0].dtype or np.int64)}"


def floats(tensors: Iterable[gs.Tensor]) -> list[gs.Tensor]:
    """Those of float32."""
    return [t for t in tensors if not t.is_empty() and t.dtype == np.float32]


@cache
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def takes(node: gs.Node, index: int, opset: int, half: Half) -> bool:
    """Whether that input of the operator can be of the 16-bit type."""
    schema = _schema(node.op, opset)
    if schema is None or not schema.inputs:
        return False
    return half.accepted in schema.inputs[min(index, len(schema.inputs) - 1)].types


def gives(node: gs.Node, index: int, opset: int, half: Half) -> bool:
    """Whether that output of the operator can be of the 16-bit type."""
    schema = _schema(node.op, opset)
    if schema is None or not schema.outputs:
        return False
    return half.accepted in schema.outputs[min(index, len(schema.outputs) - 1)].types


def accepts(node: gs.Node, opset: int, half: Half) -> bool:
    """Whether the operator reads or writes 16 bits at all: its first float32 input, its outputs."""
    first = next(i for i, t in enumerate(node.inputs) if floats([t]))
    return takes(node, first, opset, half) and all(
        gives(node, i, opset, half) for i, t in enumerate(node.outputs) if floats([t])
    )


def _lost(values: np.ndarray, half: Half) -> str | None:
    """Why a weight can't be stored in 16 bits; None when it can. Infinity stays infinity."""
    exact = values[np.isfinite(values)].astype(np.float64)
    size = float(np.abs(exact).max(initial=0.0))
    if size > half.largest:
        return f"holds {size:.3g}, {half.name} ends at {half.largest:.5g}"
    signal = float(exact @ exact)
    gap = exact.astype(np.float32).astype(half.dtype).astype(np.float64) - exact
    if float(gap @ gap) * 10 ** (_LEAST_DB / 10) > signal:
        return f"holds values below the normal numbers of {half.name} ({size:.3g} at most)"
    return None


def _by_sum(node: gs.Node) -> str | None:
    if node.op in _SUMS_MANY:
        return f"{node.op} sums over an axis"
    if node.op not in _REDUCES:
        return None
    before, after = (t.shape for t in (node.inputs[0], node.outputs[0]))
    sizes = [s for s in (before, after) if s is not None]
    known = len(sizes) == 2 and all(isinstance(d, int) for s in sizes for d in s[1:])
    if not known:
        return f"{node.op} over a size that isn't known"
    count = int(np.prod(before[1:])) // max(int(np.prod(after[1:])), 1)
    return f"{node.op} over {count} elements" if count > _MOST_SUMMED else None


def _by_integers(node: gs.Node) -> str | None:
    """Q/DQ and what stands between: these run in integers, and a Cast would part them."""
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return "its scale is exact"
    if any(p.op == "DequantizeLinear" for t in node.inputs for p in t.inputs):
        return "it reads integers through DequantizeLinear"
    if any(reader.op == "QuantizeLinear" for t in node.outputs for reader in t.outputs):
        return "it is quantized right behind"
    return None


def _computed(node: gs.Node) -> list[gs.Tensor]:
    return [t for t in floats([*node.inputs, *node.outputs]) if constant(t) is None]
