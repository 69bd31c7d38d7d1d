"""One model text per operator that only moves data, for the tests that carry a change of type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Mover(NamedTuple):
    """What makes t from x; every input dimension that can differ from its neighbour does."""

    dims_in: str
    dims_out: str
    call: str
    constants: Mapping[str, object]


MOVERS = {
    "Transpose": Mover("N,3,8,6", "N,8,6,3", "Transpose<perm=[0,2,3,1]>(x)", {}),
    "Reshape": Mover("N,3,8,6", "N,24,6", "Reshape(x, s)", {"s": [0, 24, 6]}),
    "Squeeze": Mover("N,1,8,6", "N,8,6", "Squeeze(x, s)", {"s": [1]}),
    "Unsqueeze": Mover("N,8,6", "N,1,8,6", "Unsqueeze(x, s)", {"s": [1]}),
    "Slice": Mover("N,3,8,6", "N,3,8,5", "Slice(x, a, b, s)", {"a": [1], "b": [6], "s": [3]}),
    "Gather": Mover("N,3,8,6", "N,3,7,6", "Gather<axis=2>(x, s)", {"s": [0, 7, 6, 5, 3, 2, 1]}),
    "Expand": Mover("N,1,8,6", "N,2,8,6", "Expand(x, s)", {"s": [1, 2, 8, 6]}),
    "Tile": Mover("N,3,8,6", "N,3,16,6", "Tile(x, s)", {"s": [1, 1, 2, 1]}),
    "Pad": Mover("N,3,8,6", "N,3,11,7", "Pad(x, s)", {"s": [0, 0, 1, 0, 0, 0, 2, 1]}),
    "DepthToSpace": Mover("N,12,3,5", "N,3,6,10", "DepthToSpace<blocksize=2>(x)", {}),
    "SpaceToDepth": Mover("N,3,8,6", "N,12,4,3", "SpaceToDepth<blocksize=2>(x)", {}),
    "Flatten": Mover("N,3,8,6", "N,144", "Flatten<axis=1>(x)", {}),
    "Identity": Mover("N,3,8,6", "N,3,8,6", "Identity(x)", {}),
    "Concat": Mover("N,3,8,6", "N,6,8,6", "Concat<axis=1>(x, x)", {}),
    "Split": Mover("N,3,8,6", "N,1,8,6", "Split<axis=1>(x, s)", {"s": [1, 2]}),
    "MaxPool": Mover("N,3,8,6", "N,3,8,7", "MaxPool<kernel_shape=[3,2], pads=[1,1,1,1]>(x)", {}),
}


def integers(constants: Mapping[str, object]) -> dict[str, np.ndarray]:
    """The constants as int64, which shapes and axes are."""
    return {name: np.asarray(values, np.int64) for name, values in constants.items()}
