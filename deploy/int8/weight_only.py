"""Weights stored as integers, everything computed in float: one job's way to such an engine."""

from __future__ import annotations

from dataclasses import asdict

import onnx

from deploy.artifacts.model import Model
from deploy.data import Data
from deploy.judge import limits_for
from deploy.line import Judged, Line
from deploy.recipe import Recipe
from deploy.target import Precision, Target
from deploy.weights.compress import WeightForm, compress, readers
from deploy.weights.second_moments import second_moments

# groups of activations quantized together while running: measured fastest in OpenVINO
_DYNAMIC_GROUP = {8: 128, 4: 64}


def weight_only(
    line: Line, target: Target, graphs: dict[str, Model], data: Data, precision: Precision
) -> tuple[Judged, Model]:
    """The judged engine and the compressed graph it was compiled from.

    4-bit weights are rounded with error compensation where there are calibration samples.
    """
    recipe, fused = line.job.recipe, graphs["fused"]
    form = _form(target, recipe)
    samples = data.calibration if form.bits == 4 else None
    wanted = readers(fused, form) if samples is not None else []

    def make(model: Model) -> Model:
        moments = second_moments(model, samples, wanted) if samples is not None else None
        return compress(model, form, moments)

    key = [asdict(form), samples.sha256() if samples is not None else None]
    model = line.model("compress", fused, make, key)
    if recipe.dynamic:
        target = _dynamic(target, model, form.bits)
    built = line.engine(model, target, precision)
    # integer weights: judged like INT8, whatever float type computes
    limits = limits_for(
        target, "int8", recipe, graphs.get("rawinput", graphs["loaded"]), data.evaluation
    )
    judged = line.judged(built, graphs.get("rawinput", graphs["loaded"]), data.evaluation, limits)
    return judged, model


def _form(target: Target, recipe: Recipe) -> WeightForm:
    return WeightForm(bits=4 if recipe.int4_weights else 8, **target.weights.model_dump())


def _dynamic(target: Target, model: Model, bits: int) -> Target:
    """The target quantizing activations while running; a group of theirs has to fit into one of
    the weights', or OpenVINO falls back to float."""
    blocks = [
        attribute.i
        for node in model.proto.graph.node
        if node.op_type == "DequantizeLinear"
        for attribute in node.attribute
        if attribute.name == "block_size" and attribute.type == onnx.AttributeProto.INT
    ]
    group = min([_DYNAMIC_GROUP[bits], *(block for block in blocks if block)])
    engine = target.engine.model_copy(update={"dynamic_group": group})
    return target.model_copy(update={"engine": engine})
