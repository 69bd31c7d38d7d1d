"""Channel shuffle and the depthwise conv behind it, in one pass over the tensor.

    y = Conv(ChannelShuffle(x, groups), w, bias), depthwise, then Relu if `activation` says so

The shuffle only says which channel of x a channel of y reads, so a kernel reads it there and the
shuffled tensor never exists. Source: Zhang et al. 2018, "ShuffleNet", figure 2.

Inputs: x[N, C, H, W], w[C, 1, k, k] with k 3 or 5, bias[C] (may be left out), w_scale[C] (int8).
Attributes: groups of the shuffle; strides [s, s] with s 1 or 2; pads [top, left, bottom, right],
each at most k // 2; activation "" or "Relu"; x_scale and y_scale (int8).

INT8: with x_scale and y_scale the op is `DequantizeLinear -> op -> QuantizeLinear` in one: x and y
are int8, of zero point 0 and one scale each. A vendor's rule for its plugins makes it so: what
dequantizes x and quantizes y lies inside. w stays float32, since not every vendor takes int8
constants here, and is rounded to w_scale, one per channel, as QuantizeLinear does. bias is float32
and must be given where w_scale is. The products are added up as integers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# input shapes and attributes of a few calls, for trying a kernel out
EXAMPLES: list[tuple[tuple[tuple[int, ...], ...], dict[str, object]]] = [
    (
        ((2, 12, 7, 5), (12, 1, 3, 3), (12,)),
        {"groups": 3, "strides": [2, 2], "pads": [1, 1, 1, 1], "activation": "Relu"},
    ),
    (((1, 10, 9, 14), (10, 1, 3, 3)), {"groups": 5, "pads": [1, 1, 1, 1]}),
    (((1, 7, 11, 6), (7, 1, 5, 5), (7,)), {"groups": 7, "pads": [2, 2, 2, 2]}),
    (((2, 6, 8, 9), (6, 1, 5, 5)), {"groups": 1, "strides": [2, 2], "pads": [1, 2, 2, 1]}),
]


def infer_shape(
    x: tuple[int, ...],
    w: tuple[int, ...],
    bias: tuple[int, ...] | None = None,
    w_scale: tuple[int, ...] | None = None,
    *,
    groups: int = 1,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    activation: str = "",
    x_scale: float | None = None,
    y_scale: float | None = None,
) -> tuple[int, ...]:
    """The output's shape from those of the inputs; ValueError for what no kernel takes."""
    _check_scales(w_scale not in (None, (0,)), x_scale, y_scale)
    if len(x) != 4 or len(w) != 4:
        raise ValueError(f"x has {len(x)} and w {len(w)} dimensions; both need 4")
    channels, kernel = x[1], w[2]
    if groups < 1 or channels % groups:
        raise ValueError(f"groups = {groups} doesn't divide {channels} channels")
    if kernel not in (3, 5) or tuple(w) != (channels, 1, kernel, kernel):
        raise ValueError(f"w is {list(w)}; it has to be [{channels}, 1, k, k] with k 3 or 5")
    for name, vector in (("bias", bias), ("w_scale", w_scale)):
        if vector not in (None, (0,), (channels,)):
            raise ValueError(f"{name} is {list(vector or ())}; it has to be [{channels}]")
    if tuple(strides) not in ((1, 1), (2, 2)):
        raise ValueError(f"strides = {list(strides)}; they have to be [1, 1] or [2, 2]")
    if len(pads) != 4 or not all(0 <= pad <= kernel // 2 for pad in pads):
        raise ValueError(f"pads = {list(pads)}; they have to be four of 0 .. {kernel // 2}")
    if activation not in ("", "Relu"):
        raise ValueError(f"activation = {activation!r}; it has to be '' or 'Relu'")
    sizes = (x[2] + pads[0] + pads[2] - kernel, x[3] + pads[1] + pads[3] - kernel)
    if min(sizes) < 0:
        raise ValueError(f"x is {list(x)}: smaller than the kernel, {kernel}x{kernel}")
    return (x[0], channels, sizes[0] // strides[0] + 1, sizes[1] // strides[1] + 1)


def run(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None = None,
    w_scale: np.ndarray | None = None,
    *,
    groups: int = 1,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    activation: str = "",
    x_scale: float | None = None,
    y_scale: float | None = None,
) -> np.ndarray:
    """The NumPy truth every kernel is tested against: summed in float64, rounded once to x's type.

    Left-out inputs may be None or empty.
    """
    given = {
        name: None if array is None or not array.size else array
        for name, array in (("bias", bias), ("w_scale", w_scale))
    }
    out_shape = infer_shape(
        x.shape,
        w.shape,
        *(None if array is None else array.shape for array in given.values()),
        groups=groups,
        strides=strides,
        pads=pads,
        activation=activation,
        x_scale=x_scale,
        y_scale=y_scale,
    )
    weight, factor = _real_weights(w, given["w_scale"], x_scale)
    order = np.arange(x.shape[1]).reshape(groups, -1).T.reshape(-1)
    total = _window_sums(x[:, order].astype(np.float64), weight, out_shape, strides, pads) * factor
    if given["bias"] is not None:
        total = total + given["bias"].astype(np.float64)[:, None, None]
    if activation == "Relu":
        total = np.maximum(total, 0)
    if y_scale is not None:
        total = np.clip(np.rint(total / np.float32(y_scale)), -128, 127)
    y: np.ndarray = total.astype(x.dtype)
    return y


def expansion(
    shapes: Sequence[tuple[int | None, ...] | None],
    *,
    groups: int = 1,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    activation: str = "",
    x_scale: float | None = None,
    y_scale: float | None = None,
) -> str:
    """This node as a function of standard operators: what runs where no kernel of it is.

    shapes: one per input that is there; only w's is read.
    """
    names = ("x", "w", "bias", "w_scale")[: len(shapes)]
    _check_scales("w_scale" in names, x_scale, y_scale)
    channels = (shapes[1] or (None,))[0]
    if channels is None:
        raise ValueError("the shape of w isn't known; it has to be a constant")
    lines, x_name, w_name = [], "x", "w"
    if x_scale is not None:
        zeros = ", ".join(["0"] * channels)
        lines = [
            f"x_step = Constant <value_float: float = {x_scale:.9g}> ()",
            f"y_step = Constant <value_float: float = {y_scale:.9g}> ()",
            "zero = Constant <value: tensor = int8 {0}> ()",
            f"w_zero = Constant <value: tensor = int8[{channels}] {{{zeros}}}> ()",
            "x_real = DequantizeLinear (x, x_step, zero)",
            "w_steps = QuantizeLinear <axis: int = 0> (w, w_scale, w_zero)",
            "w_real = DequantizeLinear <axis: int = 0> (w_steps, w_scale, w_zero)",
        ]
        x_name, w_name = "x_real", "w_real"
    if groups != 1:
        lines += [
            f"split = Constant <value_ints: ints = [0, {groups}, {channels // groups}, -1]> ()",
            f"grouped = Reshape ({x_name}, split)",
            "mixed = Transpose <perm: ints = [0, 2, 1, 3]> (grouped)",
            "whole = Shape (x)",
            "shuffled = Reshape (mixed, whole)",
        ]
        x_name = "shuffled"
    inputs = ", ".join([x_name, w_name] + ["bias"] * ("bias" in names))
    lines.append(
        f"conv = Conv <group: int = {channels}, strides: ints = {[*strides]}, "
        f"pads: ints = {[*pads]}> ({inputs})"
    )
    last = "Relu (conv)" if activation == "Relu" else "Identity (conv)"
    if x_scale is None:
        lines.append(f"y = {last}")
    else:
        lines += [f"y_real = {last}", "y = QuantizeLinear (y_real, y_step, zero)"]
    body = "\n    ".join(lines)
    return (
        f'<domain: "onnx_deploy", opset_import: ["" : 13]>\n'
        f"ShuffleDepthwise ({', '.join(names)}) => (y)\n{{\n    {body}\n}}"
    )


def _check_scales(w_scale: bool, x_scale: float | None, y_scale: float | None) -> None:
    given = [w_scale, x_scale is not None, y_scale is not None]
    if any(given) and not all(given):
        raise ValueError(
            f"x_scale = {x_scale}, y_scale = {y_scale}, w_scale is "
            f"{'given' if w_scale else 'left out'}; int8 needs all three, float none"
        )


def _real_weights(
    w: np.ndarray, w_scale: np.ndarray | None, x_scale: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C, k, k] to add up with, and what each channel's sum is multiplied by."""
    flat = w[:, 0]
    if w_scale is None or x_scale is None:
        return flat.astype(np.float64), np.ones((1, 1, 1))
    flat = np.clip(np.rint(flat / w_scale[:, None, None]), -128, 127)
    factor = np.float64(np.float32(x_scale)) * w_scale.astype(np.float64)
    return flat.astype(np.float64), factor[:, None, None]


def _window_sums(
    x: np.ndarray,
    w: np.ndarray,
    shape: tuple[int, ...],
    strides: Sequence[int],
    pads: Sequence[int],
) -> np.ndarray:
    padded = np.pad(x, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    total = np.zeros(shape)
    for row, column in np.ndindex(w.shape[1:]):
        rows = slice(row, row + (shape[2] - 1) * strides[0] + 1, strides[0])
        columns = slice(column, column + (shape[3] - 1) * strides[1] + 1, strides[1])
        total += padded[:, :, rows, columns] * w[:, row, column, None, None]
    return total
