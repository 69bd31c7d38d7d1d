"""A hard swish written out becomes one HardSwish.

    Add(3) -> Clip(0, 6) -> Mul(x) -> Div(6), x * HardSigmoid(x), …   =>   HardSwish

Every spelling of x * clip(x/6 + 1/2, 0, 1) counts, by its coefficients: any order of operands, 1/6
before, between or after, ReLU6 as Clip, Min/Max or Relu/Min. It pays because the map is read and
written once instead of four times: left as x * HardSigmoid(x) it costs 1.75x in OpenVINO. Needs
opset 14.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.algebra import Ramp, close, polynomial, ramps, sources
from deploy.surgery.region import between, bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_RAMPS = ("Clip", "HardSigmoid", "Min", "Max")
_DTYPES = (np.float32, np.float16)


def recognize_hard_swish(node: gs.Node) -> Replace | Skip | None:
    """Replace the product that this node ends by HardSwish."""
    if node.op not in ("Mul", "Div"):
        return None
    found = _product(node)
    if found is None:
        return None
    dtype = node.outputs[0].dtype
    if dtype not in _DTYPES:
        return Skip(
            f"engines have HardSwish in float32 and float16, not {type_name(node.outputs[0])}"
        )
    wanted = (1 / 6, 0.5, 0.0, 1.0)
    got = (found.slope, found.offset, found.low, found.high)
    if not all(close(g, w, dtype) for g, w in zip(got, wanted, strict=True)):
        slope, offset, low, high = (f"{g:.6g}" for g in got)
        formula = f"clip({slope} * x + {offset}, {low}, {high})"
        return Skip(f"x * {formula} is not HardSwish, x * clip(x/6 + 1/2, 0, 1)")
    removed = sole_use(node, between(node, found.x))
    new = New("HardSwish", (found.x,), (node.outputs[0],))
    reason = f"x * clip(x/6 + 1/2, 0, 1) in {len(removed)} nodes is HardSwish"
    return Replace(removed, (new,), reason, bytes_saved(removed, found.x))


def _product(node: gs.Node) -> Ramp | None:
    """The ramp r where the node computes x * r(x)."""
    for factor in sources(node, _RAMPS):
        for ramp in ramps(factor):
            if not ramp.nodes:
                continue
            terms = polynomial(node.outputs[0], (ramp.x, factor))
            if terms is not None and set(terms) == {(1, 1)} and terms[1, 1] > 0:
                return ramp.times(terms[1, 1])
    return None
