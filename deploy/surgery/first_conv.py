"""Which convolutions read an image as it came in, and which of them can read it regrouped."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from deploy.surgery.graph import producer

# beyond them channels fill a vector by themselves
_MOST_CHANNELS = 4


def is_image(tensor: gs.Tensor) -> bool:
    """Whether this is an input of the model, with few channels that vary slowest."""
    if producer(tensor) is not None or isinstance(tensor, gs.Constant) or tensor.shape is None:
        return False
    if len(tensor.shape) != 4:
        return False
    channels = tensor.shape[1]
    return isinstance(channels, int) and 1 < channels <= _MOST_CHANNELS


def why_not_regrouped(node: gs.Node, image: gs.Tensor, step: int, columns: int) -> str | None:
    """Why a convolution [strides .., step] can't read `columns` neighbours in a row as channels;
    None when it can."""
    height, width = image.shape[2:]
    if int(node.attrs.get("group", 1)) != 1:
        return "it has groups, which would need rows of their own"
    if step < 2:
        return "it steps by single columns, and one value takes the place of no channels"
    if any(int(n) != 1 for n in node.attrs.get("dilations", (1, 1))):
        return "it is dilated: its rows don't follow each other"
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return f"it pads by itself ({node.attrs['auto_pad']})"
    if not isinstance(height, int):
        return f"an image {height} high: where a size is free, what is renamed here is copied"
    if not isinstance(width, int) or width % columns:
        return f"an image {width} wide doesn't divide into groups of {columns} columns"
    return None
