"""What a fusion that puts a plugin operator into the graph has to prove."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from helpers import assert_same_numbers, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.plugin.ops import expand_plugins
from deploy.surgery.graph import to_graph, to_model


def expanded(model: Model) -> Model:
    """The model as ONNX Runtime can run it."""
    return model.derive(expand_plugins(model.proto, model.name), ())


def assert_becomes_plugin(
    model: Model, fusion: str, expected_ops: Sequence[str], *, reason: str, rtol: float = 0
) -> Model:
    """The fusion leaves these operators and ports; their expansion gives the same numbers."""
    before = model.serialized
    fused = fuse(model, [fusion])
    assert model.proto.SerializeToString(deterministic=True) == before, "the input was changed"
    assert ops(fused) == list(expected_ops)
    assert [str(s) for s in fused.inputs] == [str(s) for s in model.inputs]
    assert [str(s) for s in fused.outputs] == [str(s) for s in model.outputs]
    applied = [d.reason for d in fused.decisions if d.outcome == "applied"]
    assert any(re.search(reason, each) for each in applied), applied
    assert_same_numbers(model, expanded(fused), rtol=rtol)
    return fused


def shuffled(
    layer: str,
    *,
    groups: int = 3,
    channels: int = 12,
    size: tuple[int, int] = (7, 5),
    out: tuple[int, int] | None = None,
    kind: str = "float",
    before: str = "",
    weights: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> Model:
    """x -> [before, x to p] -> shuffle of `groups` into s -> `layer`, s to y."""
    (h, w), (oh, ow) = size, out or size
    dtype = "float32" if kind == "float" else kind.replace("double", "float64")
    own = {
        "inner": np.array([0, groups, channels // groups, h, w]),
        "whole": np.array([0, channels, h, w]),
        "w": weight(channels, 1, 3, 3).astype(dtype),
        "b": weight(channels, seed=1).astype(dtype),
        **(weights or {}),
    }
    text = f"""
    g ({kind}[N,{channels},{h},{w}] x) => ({kind}[N,{channels},{oh},{ow}] y) {{
        {before}
        a = Reshape({"p" if before else "x"}, inner)
        t = Transpose<perm=[0,2,1,3,4]>(a)
        s = Reshape(t, whole)
        {layer}
    }}
    """
    used = {name: value for name, value in own.items() if re.search(rf"\b{name}\b", text)}
    made = model_from(text, used, opset=opset, ir=10 if opset > 17 else 8)
    # in the order that surgery leaves, so that nothing but a fusion changes it
    return to_model(to_graph(made), made, ())
