"""Nodes that add seeded uniform noise to a value, in any opset ONNX Runtime has kernels for.

Up to opset 21 that is RandomUniformLike. ONNX Runtime 1.31 has none for 22 and later; there each
value and its place are hashed by frac(43758.5453 sin(t)), which shaders use as noise:

x  =>  Mod(43758.5453 * sin(12.9898 * place + 78.233 * x / width + seed), 1) * 2 width - width
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_LAST_KERNEL = 21

Made = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def uniform_noise(names: tuple[str, str], width: float, seed: float, opset: int) -> Made:
    """The nodes, and their constants, that make names[1], noise of the shape of names[0], a float32
    tensor; within ±width."""
    source, noise = names
    if opset <= _LAST_KERNEL:
        ready = helper.make_node(
            "RandomUniformLike", [source], [noise], low=-width, high=width, seed=seed
        )
        return [ready], []
    known = {
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "by_place": np.float32(12.9898),
        "by_value": np.float32(78.233 / width),
        "seed": np.float32(seed),
        "spread": np.float32(43758.5453),
        "period": np.float32(1),
        "wide": np.float32(2 * width),
        "low": np.float32(-width),
    }
    steps = [
        ("Shape", [source], "shape"),
        ("Size", [source], "size"),
        ("Range", ["zero", "size", "one"], "count"),
        ("Cast", ["count"], "flat"),
        ("Reshape", ["flat", "shape"], "place"),
        ("Mul", ["place", "by_place"], "placed"),
        ("Mul", [source, "by_value"], "valued"),
        ("Add", ["placed", "valued"], "both"),
        ("Add", ["both", "seed"], "angle"),
        ("Sin", ["angle"], "sine"),
        ("Mul", ["sine", "spread"], "large"),
        ("Mod", ["large", "period"], "signed"),
        ("Abs", ["signed"], "part"),
        ("Mul", ["part", "wide"], "scaled"),
        ("Add", ["scaled", "low"], noise),
    ]
    kept: dict[str, dict[str, Any]] = {"Cast": {"to": TensorProto.FLOAT}, "Mod": {"fmod": 1}}
    inner = {*known, *(out for _, _, out in steps)} - {noise}
    named = {name: f"{noise}/{name}" for name in inner}
    nodes = [
        helper.make_node(
            op, [named.get(i, i) for i in ins], [named.get(out, out)], **kept.get(op, {})
        )
        for op, ins, out in steps
    ]
    return nodes, [numpy_helper.from_array(np.asarray(v), named[k]) for k, v in known.items()]
