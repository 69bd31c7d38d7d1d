"""What INT8 would be on a target before any range is known: its layers, and the roofline's time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from calibrators.ranges import Range
from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.roofline import predict
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Picture, Ranges, Source, TensorRange
from deploy.doctor.case import Case
from deploy.errors import CalibrationError
from deploy.int8.race import layer_counts
from deploy.noise import free_dimensions
from deploy.placement import Exclude
from deploy.precisions import computed_in
from deploy.quantizable import LAYERS
from deploy.quantize import quantize
from deploy.surgery.graph import label, to_graph
from deploy.target import QUANTIZED, Precision, Target


@dataclass(frozen=True)
class Forecast:
    """int8, other: layers that multiply, in INT8 and in float. reasons: why one stays float, by its
    label. ms: roofline per precision and sample; nothing where sizes are free. why_none: why
    nothing runs in INT8."""

    int8: int
    other: int
    reasons: Mapping[str, str]
    ms: Mapping[str, float]
    why_none: str = ""


def forecast(case: Case) -> Forecast | None:
    """None for a precision that quantizes nothing, or where no opset the target reads can be
    written."""
    target = case.target
    if case.precision not in QUANTIZED or case.obstacle:
        return None
    known = not free_dimensions(case.fused.inputs)
    floats = [p for p in target.precisions if p not in QUANTIZED] if known else []
    times: dict[str, float] = {p: _ms(case.fused, target, p) for p in floats}
    try:
        kept = target.variants[0]
        exclude = Exclude(kinds=dict.fromkeys(kept.keep_float, kept.title))
        made = quantize(case.fused, _unknown(case.fused), _explicit(target), exclude=exclude)
    except CalibrationError as error:
        return Forecast(0, layer_counts(case.fused)[1], {}, times, str(error))
    if known:
        times[case.precision] = _ms(made, target, computed_in(target, case.precision))
    layers = {label(node) for node in case.graph.nodes if node.op in LAYERS}
    skipped = [d for d in made.decisions if d.outcome == "skipped" and d.subject in layers]
    reasons = {d.subject: d.reason for d in skipped}
    return Forecast(*layer_counts(made), reasons, times)


def _ms(model: Model, target: Target, precision: Precision) -> float:
    found = predict(layer_costs(model), target.roofline, precision)
    return 1e3 * sum(layer.seconds for layer in found)


def _explicit(target: Target) -> Target:
    """The target with INT8 as Q/DQ around stored weights: what can be counted."""
    update = {"form": "qdq", "weight_form": "stored"}
    quantization = target.quantization.model_copy(update=update)
    return target.model_copy(update={"quantization": quantization})


def _unknown(model: Model) -> Ranges:
    """A range of -1 to 1 for every float value: only where Q/DQ goes is asked."""
    one = TensorRange(Range(-1.0, 1.0), Range(-1.0, 1.0), Picture(-1.0, 2.0, (1,)))
    tensors = {
        name: one
        for name, tensor in to_graph(model).tensors().items()
        if isinstance(tensor, gs.Variable) and tensor.dtype == np.float32
    }
    return Ranges(tensors, Source(model.sha256, (), {}))
