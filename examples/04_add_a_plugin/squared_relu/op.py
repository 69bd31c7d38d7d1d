"""Squared ReLU: relu(x) squared.

Source: So et al. 2021, "Primer: Searching for Efficient Transformers", section 4.
"""

from __future__ import annotations

import numpy as np

# input shapes and attributes of a few calls, for `deploy plugins check`: odd sizes find more
EXAMPLES = [
    (((2, 3, 7, 5),), {}),
    (((1, 13),), {}),
    (((3, 1, 1),), {}),
]

# the same in standard ONNX: what runs wherever there is no kernel of this folder
EXPANSION = """
<domain: "onnx_deploy", opset_import: ["" : 13]>
SquaredRelu (x) => (y)
{
    positive = Relu (x)
    y = Mul (positive, positive)
}
"""


def infer_shape(x: tuple[int, ...]) -> tuple[int, ...]:
    """The output's shape for x of any shape."""
    return x


def run(x: np.ndarray) -> np.ndarray:
    """The NumPy truth every kernel is tested against."""
    positive = np.maximum(x, 0)
    return positive * positive
