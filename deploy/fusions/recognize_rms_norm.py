"""A root mean square normalization written out becomes one RMSNormalization.

    Pow(2) -> ReduceMean -> Add(eps) -> Sqrt -> Div(x) [-> Mul]   =>   RMSNormalization

x / sqrt(mean(x^2) + eps) * scale (Zhang and Sennrich 2019, section 4), as language models have it
in the place of LayerNormalization. The square may be a Mul, the root Reciprocal(Sqrt) or Pow(-1/2),
the scale on either factor or missing. It pays because the map is read and written once instead of
four times. Needs opset 23, so it skips where an operator of the model would change its meaning
there.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.means import mean_of
from deploy.surgery.normalization import (
    Quotient,
    constant_behind,
    is_centred,
    last_axes,
    quotient,
    spread,
    squared,
)
from deploy.surgery.region import between, bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


def recognize_rms_norm(node: gs.Node) -> Replace | Skip | None:
    """Replace the normalization that this Div or Mul ends, with the scale behind it."""
    found = quotient(node)
    axes = None if found is None else _axes(found)
    if found is None or axes is None:
        return None
    x = found.top
    if is_centred(x):
        return Skip("the mean is subtracted before: that is LayerNormalization")
    if x.dtype not in _DTYPES:
        return Skip(f"RMSNormalization takes its mean in float32, and this is {type_name(x)}")
    sizes = last_axes(x, axes)
    if isinstance(sizes, str):
        return Skip(sizes)
    dims = len(x.shape)
    scale = np.ones(sizes, x.dtype) if found.scale is None else spread(found.scale, sizes, dims)
    if scale is None:
        return Skip("the scale varies over other axes than the normalized ones")
    end = node
    factor = constant_behind(end, "Mul", sizes, dims)
    if factor is not None:
        end, scale = factor[0], np.asarray(scale * factor[1])
    attrs = {"axis": -len(sizes), "epsilon": found.epsilon}
    removed = sole_use(end, between(end, x))
    new = New("RMSNormalization", (x, scale), (end.outputs[0],), attrs)
    reason = f"{len(removed)} nodes are RMSNormalization over {list(sizes)}"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _axes(found: Quotient) -> tuple[int, ...] | None:
    """The axes where what the root is taken of is the mean of the top's squares."""
    mean = mean_of(found.square)
    return mean[1] if mean is not None and squared(mean[0]) is found.top else None
