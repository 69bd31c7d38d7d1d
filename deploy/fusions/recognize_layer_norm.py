"""A layer normalization written out becomes one LayerNormalization.

    ReduceMean -> Sub -> Pow(2) -> ReduceMean -> Add(eps) -> Sqrt -> Div [-> Mul -> Add]
    =>  LayerNormalization

The square may be a Mul, the root Reciprocal(Sqrt) or Pow(-1/2), the scale on either factor, the
variance mean(x^2) - mean(x)^2 with or without Max(0) (JAX), and the scale and bias may be missing.
It pays because the map is read and written once instead of seven times. Needs opset 17.

JAX's variance cancels: its error grows with (mean / deviation)^2. The rewrite is right all the
same: ONNX defines LayerNormalization by that very formula (the function body of its schema), and
kernels compute it with more care. Against float64, over 7 to 4,096 values whose mean is 0, 3, 10
and 100 deviations, the original is off by 2e-7, 2e-6, 2e-5 and 2e-3, the operator (ONNX Runtime,
OpenVINO) by at most 2e-7, 3e-7, 6e-7 and 1e-5: it is never the worse of the two. Before and after
agree within 1e-5 while the mean stays below five deviations.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.normalization import constant_behind, last_axes, normalized, spread
from deploy.surgery.region import between, bytes_saved, sole_use, type_name
from deploy.surgery.rewrite import New, Replace, Skip

_DTYPES = (np.float32, np.float16)


def recognize_layer_norm(node: gs.Node) -> Replace | Skip | None:
    """Replace the normalization that this Div or Mul ends, with the scale and bias behind it."""
    found = normalized(node)
    if found is None:
        return None
    x, dtype = found.x, found.x.dtype
    if dtype not in _DTYPES:
        return Skip(
            f"LayerNormalization takes its statistics in float32, and this is {type_name(x)}"
        )
    sizes = last_axes(x, found.axes)
    if isinstance(sizes, str):
        return Skip(sizes)
    dims = len(x.shape)
    scale = np.ones(sizes, dtype) if found.scale is None else spread(found.scale, sizes, dims)
    if scale is None:
        return Skip("the scale varies over other axes than the normalized ones")
    end, scale, bias = _affine_behind(node, scale, sizes, dims)
    inputs = (x, scale) if bias is None else (x, scale, bias)
    attrs = {"axis": -len(sizes), "epsilon": found.epsilon}
    removed = sole_use(end, between(end, x))
    new = New("LayerNormalization", inputs, (end.outputs[0],), attrs)
    reason = f"{len(removed)} nodes are LayerNormalization over {list(sizes)}"
    return Replace(removed, (new,), reason, bytes_saved(removed, x))


def _affine_behind(
    node: gs.Node, scale: np.ndarray, sizes: tuple[int, ...], dims: int
) -> tuple[gs.Node, np.ndarray, np.ndarray | None]:
    """The last node of `* scale + bias` behind the normalization, the scale, and the bias."""
    end, bias = node, None
    factor = constant_behind(end, "Mul", sizes, dims)
    if factor is not None:
        end, scale = factor[0], np.asarray(scale * factor[1])
    shift = constant_behind(end, "Add", sizes, dims)
    if shift is not None:
        end, bias = shift
    return end, scale, bias
