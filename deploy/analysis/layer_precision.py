"""Which layers run in INT8 and why the others don't, and what rounding cost their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.metrics import Error

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# what only hands integers on, between DequantizeLinear and the layer
_MOVES = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class LayerPrecision:
    """One layer. input, weight, output: tensors of the float graph; weight is empty where a layer
    multiplies two activations.

    weight_sqnr_db: the stored weights against the float ones; None where they stayed float.
    """

    layer: str
    operator: str
    input: str
    weight: str
    output: str
    int8: bool
    reason: str
    weight_sqnr_db: float | None


def layer_precisions(float_model: Model, quantized: Model | None) -> list[LayerPrecision]:
    """Every layer that multiplies, in the graph's order, and whatever was kept in float by name.

    quantized: the Q/DQ graph made from `float_model`, with its decisions; None when none shipped.
    """
    fixed = _fixed(float_model)
    if quantized is None:
        return [
            _row(node, fixed, False, "the whole engine is float", None)
            for node in float_model.proto.graph.node
            if node.op_type in _LAYERS
        ]
    reasons = {
        d.subject: (d.rule, d.reason)
        for d in quantized.decisions
        if (d.stage, d.outcome) == ("quantize", "skipped")
    }
    makers = {o: node for node in quantized.proto.graph.node for o in node.output}
    weights = _weight_errors(float_model, quantized, makers)
    found = []
    for node in float_model.proto.graph.node:
        rule, reason = reasons.get(_label(node), ("", ""))
        if node.op_type not in _LAYERS and rule != "exclude":
            continue
        placed = makers.get(node.output[0])
        data, stored = (
            _dequantized(placed, i, makers) if placed is not None else False for i in (0, 1)
        )
        if not reason and len(node.input) > 1 and node.input[1] not in fixed:
            reason = "it multiplies two activations, which the target's placement doesn't take"
        int8, lost = data and stored, weights.get(node.output[0])
        found.append(_row(node, fixed, int8, _why(data, stored, reason), lost))
    return found


def _why(data: bool, stored: bool, reason: str) -> str:
    """The reason in words; `reason` is the one for leaving it out."""
    if data and stored:
        return "taken by the target's placement"
    if reason:
        return reason
    if data or stored:
        return f"only its {'data' if data else 'weights'} are integers"
    return "the target's placement doesn't take it"


def _row(
    node: onnx.NodeProto,
    fixed: Mapping[str, object],
    int8: bool,
    reason: str,
    weight_sqnr_db: float | None,
) -> LayerPrecision:
    # a sum that was kept in float by name adds activations, it has no weight
    weight = node.input[1] if len(node.input) > 1 and node.op_type in _LAYERS else ""
    weight = weight if weight in fixed else ""
    return LayerPrecision(
        _label(node),
        node.op_type,
        node.input[0],
        weight,
        node.output[0],
        int8,
        reason,
        weight_sqnr_db,
    )


def _label(node: onnx.NodeProto) -> str:
    """As `deploy.surgery.graph.label` names it in decisions."""
    return str(node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}")


def _dequantized(node: onnx.NodeProto, index: int, makers: Mapping[str, onnx.NodeProto]) -> bool:
    name = node.input[index] if len(node.input) > index else ""
    while name in makers and makers[name].op_type in _MOVES:
        name = makers[name].input[0]
    return name in makers and makers[name].op_type == "DequantizeLinear"


def _weight_errors(
    float_model: Model, quantized: Model, makers: Mapping[str, onnx.NodeProto]
) -> dict[str, float]:
    """SQNR of the stored weights by the layer's output, in dB; only of layers that have some."""
    pairs = {}
    for node in float_model.proto.graph.node:
        placed = makers.get(node.output[0]) if node.output else None
        if node.op_type in _LAYERS and placed is not None and _dequantized(placed, 1, makers):
            pairs[node.output[0]] = (node.input[1], placed.input[1])
    exact = constants(float_model, {before for before, _ in pairs.values()})
    stored = constants(quantized, {after for _, after in pairs.values()})
    found = {}
    for output, (before, after) in pairs.items():
        if before in exact and after in stored:
            error = Error()
            error.add(exact[before], stored[after])
            found[output] = error.sqnr_db
    return found


def constants(model: Model, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The values of those tensors that no input of the model decides."""
    fixed = _fixed(model)
    wanted = sorted(set(names) & set(fixed))
    made = [name for name in wanted if isinstance(fixed[name], onnx.NodeProto)]
    found = {n: numpy_helper.to_array(fixed[n]) for n in wanted if n not in made}
    return found | (_computed(model, made, fixed) if made else {})


def _fixed(model: Model) -> dict[str, Any]:
    """The tensors that no input decides: the stored tensor, or the node that makes it."""
    graph = model.proto.graph
    found: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:  # in topological order, as ONNX demands
        if all(not name or name in found for name in node.input):
            found.update(dict.fromkeys(node.output, node))
    return found


def _computed(model: Model, names: list[str], fixed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The part of the graph that makes `names` from weights alone, run as it is written."""
    needed: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name and name not in needed:
            needed.add(name)
            waiting += fixed[name].input if isinstance(fixed[name], onnx.NodeProto) else []
    stored = [fixed[n] for n in sorted(needed) if isinstance(fixed[n], onnx.TensorProto)]
    graph = helper.make_graph(
        [node for node in model.proto.graph.node if needed & set(node.output)],
        "constants",
        [],
        [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names],
        stored,
    )
    proto = helper.make_model(
        graph, opset_imports=model.proto.opset_import, ir_version=model.proto.ir_version
    )
    return reference.build_piece(Model(proto, model.name))({})
