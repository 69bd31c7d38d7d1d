"""A channel shuffle whose sizes are computed at run time reads its channels by number.

    Shape -> .. -> Reshape(x) -> Transpose -> Reshape       =>   Gather(x, [0, 6, 1, 7, ..], axis 1)
    Reshape(x) -> Transpose -> Reshape -> Gather(k, axis 0)  =>   Gather(x, [k, k+2, ..], axis 1)

With free N, H and W no constants can say the targets of its Reshapes, but which channel goes where
is known all the same. It pays because the shape arithmetic goes, and because `channel_layout`
absorbs such a Gather like any shuffle. The second spelling is that of the ShuffleNetV2 that
shuffles and splits at once.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.factored import picked_channels
from deploy.surgery.graph import constant, producer
from deploy.surgery.region import sole_use
from deploy.surgery.rewrite import New, Replace, Skip

_ENDS = ("Reshape", "Flatten", "Gather")
_LINKS = (*_ENDS, "Transpose", "Squeeze", "Unsqueeze")
_LONGEST = 6


def shuffle_to_gather(node: gs.Node) -> Replace | Skip | None:
    """Replace the shuffle that ends in this node, or the part of it that this node takes."""
    if node.op not in _ENDS or (node.op == "Gather" and not _takes_one(node)):
        return None
    chain: list[gs.Node] = [node]
    turned = computed = False
    while len(chain) < _LONGEST:
        before = producer(chain[0].inputs[0])
        if before is None or before.op not in _LINKS:
            break
        chain.insert(0, before)
        turned |= before.op == "Transpose"
        computed = any(_is_computed(link) for link in chain)
        if not turned or before.op == "Transpose" or not (computed or node.op == "Gather"):
            continue
        order = picked_channels(chain)
        if order is not None:
            return _gather(chain, order)
    if turned and computed and node.op != "Gather":
        return Skip("its Reshapes aren't known to move whole channels and nothing else")
    return None


def _gather(chain: list[gs.Node], order: np.ndarray) -> Replace:
    last = chain[-1]
    new = New("Gather", (chain[0].inputs[0], order), (last.outputs[0],), {"axis": 1})
    removed = sole_use(last, chain[:-1])
    return Replace(removed, (new,), f"a shuffle of {len(order)} channels by their numbers")


def _takes_one(node: gs.Node) -> bool:
    index = constant(node.inputs[1])
    return index is not None and index.ndim == 0


def _is_computed(node: gs.Node) -> bool:
    return node.op == "Reshape" and constant(node.inputs[1]) is None
