"""Two 1x1 convolutions with nothing between them become one, where that is less work.

    Conv 1x1 [C -> M] -> Conv 1x1 [M -> N]   =>   Conv 1x1 [C -> N],  if C*N < C*M + M*N

W = W2 W1, bias = W2 bias1 + bias2, in float64. It pays because the map between is neither written
nor read, and the product has fewer weights; a true bottleneck (small M) would cost more merged.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.affine import bias_of
from deploy.surgery.graph import constant, elements, producer
from deploy.surgery.representable import representable
from deploy.surgery.rewrite import New, Replace, Skip


def merge_pointwise_convs(node: gs.Node) -> Replace | Skip | None:
    """Merge this 1x1 Conv with the one in front of it."""
    first = producer(node.inputs[0]) if node.op == "Conv" else None
    if first is None or first.op != "Conv":
        return None
    weights = [constant(conv.inputs[1]) for conv in (first, node)]
    if any(w is None for w in weights):
        return Skip("the weights of Conv are computed at run time")
    front, back = (np.asarray(w) for w in weights)
    if any(n != 1 for w in (front, back) for n in w.shape[2:]):
        return None
    if not (_is_pointwise(first) and _is_pointwise(node)):
        return Skip("one of two 1x1 convs is strided, padded or grouped")
    merged_cost = back.shape[0] * front.shape[1]
    if merged_cost >= front.size + back.size:
        return Skip(
            f"one conv would take {merged_cost} multiplications per pixel, "
            f"the two take {front.size + back.size}"
        )
    biases = [bias_of(first, front.shape[0]), bias_of(node, back.shape[0])]
    if isinstance(biases[0], Skip) or isinstance(biases[1], Skip):
        return next(bias for bias in biases if isinstance(bias, Skip))
    matrix = back.reshape(back.shape[:2]).astype(np.float64)
    product = matrix @ front.reshape(front.shape[:2]).astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        bias = (matrix @ biases[0] + biases[1]).astype(back.dtype)
    weight = representable(
        product.reshape(*product.shape, *back.shape[2:]), back.dtype, (0,), how="merged"
    )
    if isinstance(weight, Skip):
        return weight
    if not np.isfinite(bias).all():
        return Skip("the merged weights would not be finite")
    new = New("Conv", (first.inputs[0], weight, bias), (node.outputs[0],), node.attrs)
    saved = 2 * (elements(first.outputs[0]) or 0) * back.dtype.itemsize
    return Replace((first, node), (new,), "two 1x1 convs merged", saved)


def _is_pointwise(conv: gs.Node) -> bool:
    """Whether a conv with a 1x1 kernel maps each pixel to one pixel, over all channels."""
    one_to_one = all(stride == 1 for stride in conv.attrs.get("strides", ()))
    return one_to_one and not any(conv.attrs.get("pads", ())) and conv.attrs.get("group", 1) == 1
