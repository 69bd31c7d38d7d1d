"""A normalization in the operators it is made of, over any axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from deploy.surgery.rewrite import New

Scale: TypeAlias = gs.Tensor | np.ndarray


def layer_norm_nodes(
    x: gs.Tensor,
    affine: tuple[Scale, Scale | None],
    y: gs.Variable,
    axes: Sequence[int],
    epsilon: float,
) -> tuple[New, ...]:
    """y = scale * (x - mean) / sqrt(variance + epsilon) [+ bias]; scale and bias broadcast."""
    scale, bias = affine
    over = {"axes": list(axes), "keepdims": 1}
    mean, square, variance, shifted = (gs.Variable("", x.dtype) for _ in range(4))
    centred, root, unit, scaled = (gs.Variable("", x.dtype) for _ in range(4))
    added = [
        New("ReduceMean", (x,), (mean,), over),
        New("Sub", (x, mean), (centred,)),
        New("Mul", (centred, centred), (square,)),
        New("ReduceMean", (square,), (variance,), over),
        New("Add", (variance, np.asarray(epsilon, x.dtype)), (shifted,)),
        New("Sqrt", (shifted,), (root,)),
        New("Div", (centred, root), (unit,)),
        New("Mul", (unit, scale), (y if bias is None else scaled,)),
    ]
    if bias is not None:
        added.append(New("Add", (scaled, bias), (y,)))
    return tuple(added)


def rms_norm_nodes(
    x: gs.Tensor, scale: Scale, y: gs.Variable, axes: Sequence[int], epsilon: float
) -> tuple[New, ...]:
    """y = scale * x / sqrt(mean(x^2) + epsilon); the scale broadcasts."""
    square, mean, shifted, root, unit = (gs.Variable("", x.dtype) for _ in range(5))
    return (
        New("Mul", (x, x), (square,)),
        New("ReduceMean", (square,), (mean,), {"axes": list(axes), "keepdims": 1}),
        New("Add", (mean, np.asarray(epsilon, x.dtype)), (shifted,)),
        New("Sqrt", (shifted,), (root,)),
        New("Div", (x, root), (unit,)),
        New("Mul", (unit, scale), (y,)),
    )
