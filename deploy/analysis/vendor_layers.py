"""Which layers the vendor's compiler made 8-bit kernels of, and why not the others.

`deploy.analysis.layer_precision` says what was asked for; this says what came of it: a compiler may
read integers, turn them into floats and multiply those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from deploy.artifacts.engine import Layer
from deploy.artifacts.model import Model
from deploy.precisions import in_words as kind

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# what only hands integers on, between DequantizeLinear and the layer
_MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "MaxPool")
# kinds of fused layers that prepare, activate and requantize around a layer that multiplies:
# TensorRT-RTX's generated kernels, TensorRT's copies
_AROUND = ("kgen", "reformat", "pointwise", "shuffle", "constant", "cast", "noop")
_EIGHT_BITS = ("int8", "uint8", "i8", "u8", "fp8")


@dataclass(frozen=True)
class VendorLayer:
    """A layer of the graph that multiplies, as the vendor executes it.

    kernel, precision: the vendor's words, empty where its list doesn't name the layer. asked: the
    graph wants 8 bits, int8: the vendor's kernel reads them, INT8 or FP8. reason: why not, empty
    where it does.
    """

    layer: str
    operator: str
    kernel: str
    precision: str
    asked: bool
    int8: bool
    reason: str


def vendor_layers(
    layers: Iterable[Layer], shipped: Model, kept: Mapping[str, str] | None = None
) -> list[VendorLayer]:
    """One row per layer that multiplies, in the graph's order.

    layers: as the vendor lists them. shipped: the graph its parser got. kept: why a layer stays
    float, by its label; where not given, what the decisions of `shipped` say.
    """
    decided = {
        d.subject: d.reason
        for d in shipped.decisions
        if (d.stage, d.outcome) == ("quantize", "skipped")
    }
    reasons = decided if kept is None else kept
    makers = {o: node for node in shipped.proto.graph.node for o in node.output}
    listed = _by_origin(layers)
    return [
        _row(node, _executed(node, listed), makers, reasons)
        for node in shipped.proto.graph.node
        if node.op_type in _LAYERS
    ]


def refused(rows: Iterable[VendorLayer]) -> list[VendorLayer]:
    """The rows where the graph asks for INT8 and the compiler chose something else: none, or the
    engine isn't what was quantized for."""
    return [row for row in rows if row.asked and not row.int8]


def in_words(rows: Sequence[VendorLayer], precision: str = "int8", most: int = 3) -> str:
    """How many layers read the precision's 8 bits, and the first exceptions with their reasons."""
    others = [row for row in rows if not row.int8]
    counted = f"{len(rows) - len(others)} of {len(rows)} layers with weights read {kind(precision)}"
    named = "; ".join(f"{row.layer}: {row.reason}" for row in others[:most])
    more = f"; and {len(others) - most} more" if len(others) > most else ""
    return f"{counted}; {named}{more}" if others else counted


def _row(
    node: onnx.NodeProto,
    executed: Layer | None,
    makers: Mapping[str, onnx.NodeProto],
    kept: Mapping[str, str],
) -> VendorLayer:
    label = _label(node)
    asked = all(_dequantized(name, makers) for name in node.input[:2])
    precision = executed.precision if executed else ""
    int8 = precision.split(" -> ")[0].split("+")[0].split(" ")[0].lower() in _EIGHT_BITS
    return VendorLayer(
        layer=label,
        operator=node.op_type,
        kernel=executed.name if executed else "",
        precision=precision,
        asked=asked,
        int8=int8,
        reason="" if int8 else _reason(asked, executed, kept.get(label, "")),
    )


def _reason(asked: bool, executed: Layer | None, kept: str) -> str:
    if not asked:
        return f"stays float: {kept or 'the placement has no Q/DQ in front of it'}"
    if executed is None:
        return "the compiler's list doesn't name it"
    what = executed.precision or "a type it doesn't tell"
    return f"the compiler chose {what} ({executed.kind}) although the graph asks for 8 bits"


def _by_origin(layers: Iterable[Layer]) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        for origin in layer.fused_from:
            found.setdefault(origin, []).append(layer)
    return found


def _executed(node: onnx.NodeProto, listed: Mapping[str, list[Layer]]) -> Layer | None:
    """The fused layer that multiplies: several name the node, those around it among them."""
    named = [layer for name in _names(node) for layer in listed.get(name, ())]
    heavy = [layer for layer in named if not layer.kind.lower().startswith(_AROUND)]
    return next(iter(heavy or named), None)


def _names(node: onnx.NodeProto) -> Iterator[str]:
    """How a vendor's list may call a node; NVIDIA's parser names those without a name."""
    if node.name:
        yield node.name
    yield from (f"node_of_{output}" for output in node.output)


def _label(node: onnx.NodeProto) -> str:
    """As `deploy.surgery.graph.label` names it in decisions."""
    return str(node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}")


def _dequantized(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    while name in makers and makers[name].op_type in _MOVES:
        name = makers[name].input[0]
    return name in makers and makers[name].op_type == "DequantizeLinear"
