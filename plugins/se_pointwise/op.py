"""Squeeze-and-excitation's scaling and the 1x1 conv behind it, in one pass over the tensor.

    y = Conv(x * scale, w, bias), with a 1x1 kernel

The scale belongs to an input channel, so a kernel multiplies it into its tile of w, once per image,
and the scaled tensor never exists. The squeeze (pooling, two small layers, sigmoid) stays outside.
Source: Hu et al. 2018, "Squeeze-and-Excitation Networks", equation 4.

Inputs: x[N, C, H, W], scale[N, C, 1, 1], w[M, C, 1, 1], bias[M] (may be left out), w_scale[M]
(int8). Attributes: x_scale and y_scale (int8).

INT8: with x_scale and y_scale the op is `DequantizeLinear -> op -> QuantizeLinear` in one: x and y
are int8, of zero point 0 and one scale each, and the tensor between scaling and conv is not
rounded. scale, w and bias are float32; w is rounded to w_scale, one per output channel, as
QuantizeLinear does, where that is given, and must have a bias then; else it is taken as it is.
`scale` differs per input channel and image, so it can't be applied to an integer sum: kernels
multiply it into the weights as float16, take x as float16 (exact), and add up in float32. Memory
sees int8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# input shapes and attributes of a few calls, for trying a kernel out
EXAMPLES: list[tuple[tuple[tuple[int, ...], ...], dict[str, object]]] = [
    (((2, 12, 7, 5), (2, 12, 1, 1), (9, 12, 1, 1), (9,)), {}),
    (((1, 5, 3, 11), (1, 5, 1, 1), (17, 5, 1, 1)), {}),
]


def infer_shape(
    x: tuple[int, ...],
    scale: tuple[int, ...],
    w: tuple[int, ...],
    bias: tuple[int, ...] | None = None,
    w_scale: tuple[int, ...] | None = None,
    *,
    x_scale: float | None = None,
    y_scale: float | None = None,
) -> tuple[int, ...]:
    """The output's shape from those of the inputs; ValueError for what no kernel takes."""
    _check_scales(w_scale not in (None, (0,)), x_scale, y_scale)
    if len(x) != 4:
        raise ValueError(f"x has {len(x)} dimensions; it needs 4")
    if tuple(scale) != (x[0], x[1], 1, 1):
        raise ValueError(f"scale is {list(scale)}; it has to be {[x[0], x[1], 1, 1]}")
    if len(w) != 4 or tuple(w[1:]) != (x[1], 1, 1):
        raise ValueError(f"w is {list(w)}; it has to be [M, {x[1]}, 1, 1]")
    for name, vector in (("bias", bias), ("w_scale", w_scale)):
        if vector not in (None, (0,), (w[0],)):
            raise ValueError(f"{name} is {list(vector or ())}; it has to be [{w[0]}]")
    return (x[0], w[0], x[2], x[3])


def run(
    x: np.ndarray,
    scale: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None = None,
    w_scale: np.ndarray | None = None,
    *,
    x_scale: float | None = None,
    y_scale: float | None = None,
) -> np.ndarray:
    """The NumPy truth every kernel is tested against: summed in float64, rounded once to x's type.

    Left-out inputs may be None or empty.
    """
    bias, w_scale = (a if a is not None and a.size else None for a in (bias, w_scale))
    shapes = [None if a is None else a.shape for a in (bias, w_scale)]
    shape = infer_shape(x.shape, scale.shape, w.shape, *shapes, x_scale=x_scale, y_scale=y_scale)
    weight = w[:, :, 0, 0].astype(np.float64)
    factor = np.ones(len(weight))
    if w_scale is not None:
        weight = np.clip(np.rint(w[:, :, 0, 0] / w_scale[:, None]), -128, 127)
        factor = w_scale.astype(np.float64)
    if x_scale is not None:
        factor = factor * np.float64(np.float32(x_scale))
    scaled = x.astype(np.float64) * scale.astype(np.float64)
    total = weight.astype(np.float64) @ scaled.reshape(*x.shape[:2], -1) * factor[:, None]
    if bias is not None:
        total = total + bias.astype(np.float64)[:, None]
    total = total.reshape(shape)
    if y_scale is not None:
        total = np.clip(np.rint(total / np.float32(y_scale)), -128, 127)
    y: np.ndarray = total.astype(x.dtype)
    return y


def expansion(
    shapes: Sequence[tuple[int | None, ...] | None],
    *,
    x_scale: float | None = None,
    y_scale: float | None = None,
) -> str:
    """This node as a function of standard operators: what runs where no kernel of it is.

    shapes: one per input that is there; only w's is read, and only for int8.
    """
    names = ("x", "scale", "w", "bias", "w_scale")[: len(shapes)]
    _check_scales("w_scale" in names, x_scale, y_scale)
    bias = ", bias" if "bias" in names else ""
    if x_scale is None:
        lines = ["scaled = Mul (x, scale)", f"y = Conv (scaled, w{bias})"]
        return _function(names, lines)
    lines = [
        f"x_step = Constant <value_float: float = {x_scale:.9g}> ()",
        f"y_step = Constant <value_float: float = {y_scale:.9g}> ()",
        "zero = Constant <value: tensor = int8 {0}> ()",
        "x_real = DequantizeLinear (x, x_step, zero)",
        "scaled = Mul (x_real, scale)",
    ]
    w_name = "w"
    if "w_scale" in names:
        outputs = (shapes[2] or (None,))[0]
        if outputs is None:
            raise ValueError("the shape of w isn't known; it has to be a constant")
        w_name = "w_real"
        zeros = ", ".join("0" * outputs)
        lines += [
            f"w_zero = Constant <value: tensor = int8[{outputs}] {{{zeros}}}> ()",
            "w_steps = QuantizeLinear <axis: int = 0> (w, w_scale, w_zero)",
            "w_real = DequantizeLinear <axis: int = 0> (w_steps, w_scale, w_zero)",
        ]
    lines += [
        f"y_real = Conv (scaled, {w_name}{bias})",
        "y = QuantizeLinear (y_real, y_step, zero)",
    ]
    return _function(names, lines)


def _function(inputs: Sequence[str], lines: Sequence[str]) -> str:
    body = "\n    ".join(lines)
    return (
        f'<domain: "onnx_deploy", opset_import: ["" : 13]>\n'
        f"SePointwise ({', '.join(inputs)}) => (y)\n{{\n    {body}\n}}"
    )


def _check_scales(w_scale: bool, x_scale: float | None, y_scale: float | None) -> None:
    if (x_scale is None) != (y_scale is None) or (w_scale and x_scale is None):
        raise ValueError(
            f"x_scale = {x_scale}, y_scale = {y_scale}, w_scale is "
            f"{'given' if w_scale else 'left out'}; int8 needs the first two, float none"
        )
