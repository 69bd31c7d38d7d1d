"""An equal float graph that loses less to INT8: the target's equalizations, in its order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.model import Decision, Model
from deploy.observation.evidence import Evidence
from deploy.surgery.channel_shifts import int8_places
from deploy.surgery.channels import channel_count
from deploy.surgery.graph import infer, to_graph, to_model


def equalize(
    model: Model, samples: Iterable[Sample], equalizations: Sequence[str], *, symmetric: bool
) -> Model:
    """The model with weights and biases rescaled or moved; its outputs stay what they were.

    samples: read once for all equalizations that tell the evidence what they changed, and once more
    behind each other one. symmetric: whether activations will be quantized around zero. A Clip may
    act on values that calibration didn't see, beyond its margin. CalibrationError where a tensor
    holds NaN or Inf.
    """
    current, decisions = model, list[Decision]()
    graph, evidence = _begin(current, samples, symmetric)
    for name in equalizations:
        told = evidence.told
        made = registry.load("equalization", name)(graph, evidence)
        decisions += made
        if _changed(made) and evidence.told == told:
            # what was measured may not hold any more
            current = to_model(graph, model, ())
            graph, evidence = _begin(current, samples, symmetric)
    if not _changed(decisions):
        return model.derive(model.proto, decisions)
    return to_model(graph, model, decisions)


def _begin(model: Model, samples: Iterable[Sample], symmetric: bool) -> tuple[gs.Graph, Evidence]:
    graph = to_graph(model)
    described = model.derive(infer(model.proto), ())
    clipped = [node.outputs[0] for node in graph.nodes if node.op == "Clip"]
    bounded = [tensor.name for tensor in clipped if channel_count(tensor) is not None]
    kinds = {name: tensor.dtype for name, tensor in graph.tensors().items()}
    places = [name for name in int8_places(graph) if _is_float(kinds.get(name))]
    return graph, Evidence(described, samples, symmetric, [*places, *bounded])


def _is_float(dtype: object) -> bool:
    return not isinstance(dtype, int) and dtype is not None and np.dtype(dtype).kind == "f"  # type: ignore[call-overload]


def _changed(decisions: Sequence[Decision]) -> bool:
    return any(decision.outcome == "applied" for decision in decisions)
