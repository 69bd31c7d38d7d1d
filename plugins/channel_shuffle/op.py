"""Channel shuffle: channels of `groups` groups, interleaved, so that grouped convs mix.

Source: Zhang et al. 2018, "ShuffleNet", section 3.1: reshape the channels to (groups, n),
transpose, flatten. Channel i of the output is channel (i % groups) * n + i // groups of the input.
"""

from __future__ import annotations

import numpy as np

# input shapes and attributes of a few calls, for trying a kernel out
EXAMPLES = [
    (((2, 12, 7, 5),), {"groups": 3}),
    (((1, 10, 3, 9),), {"groups": 5}),
    (((3, 7, 1, 4),), {"groups": 7}),
]

# the same in standard ONNX: what runs wherever there is no kernel of this folder
EXPANSION = """
<domain: "onnx_deploy", opset_import: ["" : 13]>
ChannelShuffle <groups> (x) => (y)
{
    shape = Shape (x)
    zero = Constant <value_ints: ints = [0]> ()
    one = Constant <value_ints: ints = [1]> ()
    two = Constant <value_ints: ints = [2]> ()
    batch = Slice (shape, zero, one)
    channels = Slice (shape, one, two)
    groups_scalar = Constant <value_int: int = @groups> ()
    groups_1d = Reshape (groups_scalar, one)
    per_group = Div (channels, groups_1d)
    rest = Constant <value_ints: ints = [-1]> ()
    grouped_shape = Concat <axis: int = 0> (batch, groups_1d, per_group, rest)
    grouped = Reshape (x, grouped_shape)
    mixed = Transpose <perm: ints = [0, 2, 1, 3]> (grouped)
    y = Reshape (mixed, shape)
}
"""


def infer_shape(x: tuple[int, ...], groups: int) -> tuple[int, ...]:
    """The output's shape for x: [N, C, ...]; ValueError when `groups` doesn't divide C."""
    if groups < 1 or x[1] % groups:
        raise ValueError(f"groups = {groups} doesn't divide {x[1]} channels")
    return x


def run(x: np.ndarray, groups: int) -> np.ndarray:
    """The NumPy truth every kernel is tested against; x: [N, C, ...], any dtype."""
    shape = infer_shape(x.shape, groups)
    grouped = x.reshape(shape[0], groups, shape[1] // groups, *shape[2:])
    return np.ascontiguousarray(grouped.swapaxes(1, 2)).reshape(shape)
