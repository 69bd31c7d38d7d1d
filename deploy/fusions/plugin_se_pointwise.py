"""The excitation of a squeeze-and-excitation block and the 1x1 conv behind it as one kernel.

    s = gate(Conv(Conv(mean x))),  Mul(x, s) -> Conv 1x1   =>   SePointwise(x, s)

The kernel scales the map while it multiplies, so the scaled map is neither written nor read: 2 x N
x C x H x W elements and one launch less. The squeeze stays as it is. It pays while the convolution
is bound by that traffic: up to as many operations per byte saved as the poorest of NVIDIA's targets
has per byte of its memory (Xavier: 1.41 TFLOP/s in float32, 11.3 in float16, 137 GB/s), beyond
which the vendor's own convolution may be the faster one. That is a prediction, not a measurement.
INT8 blocks stay: there the scaled map is quantized itself, for the vendor's integer convolution.
Run it on the final graph: ONNX Runtime doesn't know the operator.

For OpenVINO's CPU targets it doesn't pay and isn't listed: its own convolutions are faster than the
plugin's portable kernel and leave another layout. All blocks replaced, batch 1, one pinned thread,
EPYC (Zen 5), OpenVINO 2026.4.1, interleaved, times as long in float32 / bf16: PP-OCR's MobileNetV3
classifier 1.40-1.43 / 1.64-1.71, MobileNetV3 small 1.43-1.55 / 1.66-2.02, EfficientNet-B0 1.15-1.41
/ 1.86-1.97 (benchmarks/openvino_plugins.py, beside other work).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.channels import excited
from deploy.surgery.graph import constant, elements, itemsize, producer
from deploy.surgery.patterns import se_pointwise
from deploy.surgery.region import type_name
from deploy.surgery.rewrite import New, Replace, Skip

# operations per byte of memory traffic, by bytes per element: see above
_MOST_OPERATIONS = {4: 1.41e12 / 137e9, 2: 11.3e12 / 137e9}
_TYPES = ("float32", "float16")


def plugin_se_pointwise(node: gs.Node) -> Replace | Skip | None:
    """Replace the Mul that this 1x1 Conv reads, and the Conv."""
    if node.op != "Conv":
        return None
    if _is_quantized(node):
        return Skip("the scaled map is INT8: the vendor's integer convolution reads it as it is")
    found = se_pointwise(node)
    if found is None:
        return None
    weight, size = constant(node.inputs[1]), itemsize(found.x)
    if type_name(found.x) not in _TYPES or weight is None:
        return Skip(f"the map is {type_name(found.x)}; the kernel takes {', '.join(_TYPES)}")
    operations = len(weight) / size
    if operations > _MOST_OPERATIONS[size]:
        return Skip(
            f"{len(weight)} output channels, {operations:.0f} operations per byte saved; above "
            f"{_MOST_OPERATIONS[size]:.0f} arithmetic binds, and the vendor's convolution is kept"
        )
    biases = [tensor for tensor in node.inputs[2:] if not tensor.is_empty()]
    inputs = (found.x, found.scale, node.inputs[1], *biases)
    new = New("SePointwise", inputs, (node.outputs[0],), {}, "onnx_deploy")
    reason = "the 1x1 convolution scales the map while it reads it"
    saved = 2 * size * (elements(found.x) or 0)
    return Replace((found.excite, node), (new,), reason, saved)


def _is_quantized(conv: gs.Node) -> bool:
    """Whether the Conv reads an excitation through Q/DQ."""
    dequantize = producer(conv.inputs[0])
    quantize = None if dequantize is None else producer(dequantize.inputs[0])
    if dequantize is None or quantize is None or quantize.op != "QuantizeLinear":
        return False
    mul = producer(quantize.inputs[0])
    return dequantize.op == "DequantizeLinear" and mul is not None and excited(mul) is not None
