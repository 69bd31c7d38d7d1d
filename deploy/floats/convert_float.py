"""The float graph in 16 bits, what is sensitive kept in float32, with as few Casts as that takes.

    MatMul -> Softmax -> MatMul   =>   MatMul -> Cast(32) -> Softmax -> Cast(16) -> MatMul

A strongly typed engine (TensorRT 11) computes each layer in the type the graph gives it. OpenVINO
takes its precision as a setting and needs none of this.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision, Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import CalibrationError, RecipeError
from deploy.floats.float_rules import HALVES, SHAPE_ONLY, Rules, floats
from deploy.floats.mixed_floats import Writer, in_opset_of, reasons_for_float32, regions
from deploy.surgery.graph import label, to_graph, to_model
from deploy.surgery.movement import moves

# what a region needs to contain so that 16 bits pay for its Casts
_HEAVY = ("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "RNN", "Einsum", "Attention")
# or a weight of so many elements, such as an embedding, which takes half the bytes
_LARGE = 16_384


def convert_float(
    model: Model, precision: str, *, ranges: Ranges | None = None, keep_io: bool = True
) -> Model:
    """The model computing in "fp16" or "bf16", and a reason for every node that stays in float32.

    ranges: calibrated on this model; they decide what would be kept on suspicion, and find what
    doesn't fit. keep_io: inputs and outputs stay float32. Weights are stored in the type they are
    read in. CalibrationError for another model's ranges, RecipeError for another precision.
    """
    if precision not in HALVES:
        raise RecipeError(f"precision {precision!r}; a float graph becomes {' or '.join(HALVES)}")
    if ranges is not None and ranges.source.model_sha256 != model.sha256:
        raise CalibrationError(
            f"ranges made from model {ranges.source.model_sha256[:12]}, this one is "
            f"{model.sha256[:12]}; calibrate this model, after all fusions"
        )
    half = HALVES[precision]
    model = in_opset_of(half, model)
    graph = to_graph(model)
    graph.toposort()
    reasons = reasons_for_float32(graph, Rules(half, model.opset, ranges))
    chosen = narrow(graph, reasons)
    kept = [
        Decision("convert_float", precision, "skipped", label(node), reasons[id(node)])
        for node in graph.nodes
        if id(node) in reasons
    ]
    if not chosen:
        return model.derive(model.proto, kept)
    writer = Writer(graph, half, model.opset, chosen, keep_io)
    writer.write()
    made = to_model(graph, model, ())
    saved = model.proto.ByteSize() - made.proto.ByteSize()
    done = (
        f"{len(chosen)} of {len(graph.nodes) - writer.count} nodes in {half.name}, "
        f"{writer.count} casts, {len(kept)} kept in float32"
    )
    applied = Decision("convert_float", precision, "applied", model.name, done, saved)
    return made.derive(made.proto, [applied, *kept])


def narrow(graph: gs.Graph, reasons: dict[int, str]) -> set[int]:
    """Ids of the nodes that compute in 16 bits: what only moves data follows what it stands by,
    and a region without a matrix product or a large weight isn't worth its Casts."""
    able = [n for n in graph.nodes if id(n) not in reasons and floats(n.inputs)]
    able = [n for n in able if n.op not in SHAPE_ONLY]
    found = {id(n) for n in able if not moves(n) or _reads_much(n)}
    demanded: set[int] = set(found)
    for node in reversed(able):
        readers = [r for t in node.outputs for r in t.outputs]
        if moves(node) and readers and all(id(r) in demanded for r in readers):
            demanded.add(id(node))
    for node in able:
        from_narrow = any(id(p) in found for t in node.inputs for p in t.inputs)
        if moves(node) and (from_narrow or id(node) in demanded):
            found.add(id(node))
    for region in regions([n for n in able if id(n) in found]):
        if not any(node.op in _HEAVY or _reads_much(node) for node in region):
            found -= {id(node) for node in region}
            why = "no matrix product or large weight next to it: its casts would cost more"
            reasons.update((id(n), why) for n in region if not moves(n))
    return found


def _reads_much(node: gs.Node) -> bool:
    read = [t.shape for t in floats(node.inputs) if isinstance(t, gs.Constant)]
    return any(np.prod(shape) >= _LARGE for shape in read)
