"""Float8's rounding in a graph, or noise of its width: E4M3's steps grow with the value.

x  =>  x + U(-width, width) * step(x)      step(x) = scale * 2**(floor(log2 |x / scale|) - 3)
"""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from calibrators.float8 import LARGEST
from deploy.uniform_noise import Made, uniform_noise

_SMALLEST_NORMAL = 2.0**-6
_SMALLEST_SHARE = 2.0**-3  # a step's part of the power of two below its value


def float8_noise(
    names: tuple[str, str], scale: np.ndarray, width: float, seed: float, opset: int
) -> Made:
    """The nodes, and their constants, that make names[1] of names[0], both of the scale's type.

    width: of the noise to either side, in steps.
    """
    steps = _Steps(names, scale)
    noise = f"{names[1]}/noise"
    random, constants = uniform_noise((steps.wide, noise), width, seed, opset)
    steps.nodes += random
    nodes, known = steps.made(steps.add("Add", steps.wide, steps.add("Mul", noise, steps.size)))
    return nodes, [*constants, *known]


def float8_rounding(names: tuple[str, str], scale: np.ndarray) -> Made:
    """As `float8_noise`, but names[1] is names[0] at the nearest number of E4M3, saturated."""
    steps = _Steps(names, scale)
    whole = steps.add("Round", steps.add("Div", steps.wide, steps.size))
    near = steps.add("Mul", whole, steps.size)
    largest = LARGEST * float(scale)
    within = steps.add("Min", near, steps.constant("largest", largest))
    return steps.made(steps.add("Max", within, steps.constant("lowest", -largest)))


class _Steps:
    """Nodes that give the distance of a value's neighbours in E4M3: `size`, beside it in float32,
    `wide`."""

    def __init__(self, names: tuple[str, str], scale: np.ndarray) -> None:
        source, self.name = names
        self.scale = scale
        self.parts: dict[str, float] = {
            "scale": float(scale),
            "smallest": _SMALLEST_NORMAL,
            "per_octave": 1 / math.log(2.0),
            "two": 2.0,
            "share": _SMALLEST_SHARE * float(scale),
        }
        known = {key: f"{self.name}/{key}" for key in self.parts}
        self.wide = f"{self.name}/float32"
        self.nodes = [helper.make_node("Cast", [source], [self.wide], to=TensorProto.FLOAT)]
        ratio = self.add("Abs", self.add("Div", self.wide, known["scale"]))
        ratio = self.add("Max", ratio, known["smallest"])
        octave = self.add("Floor", self.add("Mul", self.add("Log", ratio), known["per_octave"]))
        self.size = self.add("Mul", self.add("Pow", known["two"], octave), known["share"])

    def add(self, operator: str, *inputs: str) -> str:
        """The output of another node."""
        out = f"{self.name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [out]))
        return out

    def constant(self, key: str, value: float) -> str:
        """The name of another number."""
        self.parts[key] = value
        return f"{self.name}/{key}"

    def made(self, value: str) -> Made:
        """All nodes and constants, the value given the name and the scale's type."""
        kind = helper.np_dtype_to_tensor_dtype(self.scale.dtype)
        self.nodes.append(helper.make_node("Cast", [value], [self.name], to=kind))
        constants = [
            numpy_helper.from_array(np.asarray(v, np.float32), f"{self.name}/{k}")
            for k, v in self.parts.items()
        ]
        return self.nodes, constants
