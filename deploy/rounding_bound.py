"""How far outputs may move when every quantized value is off by one step: what an engine on another
device, rounding in another order, is allowed to differ from the simulation here."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper, numpy_helper

from calibrators.samples import Sample
from deploy.artifacts.model import Model, copy_proto
from deploy.backends import reference
from deploy.compared import add, compared
from deploy.floats.float8 import FLOAT8
from deploy.floats.float8_noise import float8_noise
from deploy.metrics import Error
from deploy.uniform_noise import Made, uniform_noise

_SEED = 1120  # a float32 attribute: small, so that neighbours differ


def rounding_bound(model: Model, samples: Iterable[Sample]) -> dict[str, float]:
    """SQNR in dB per output, between a Q/DQ graph and itself with every activation moved by a
    uniform amount of up to one step before it is rounded; empty without Q/DQ.

    A step of integers is the scale, so that each differs by at most one from the graph's own; of
    float8 it is the distance to the neighbour.
    """
    noisy = shaken(model)
    if noisy is None:
        return {}
    errors: dict[str, Error] = {}
    with reference.build(model) as exact, reference.build(noisy) as moved:
        for one in compared(exact, moved, samples, None):
            for name, error in one.errors.items():
                add(errors.setdefault(name, Error()), error)
    return {name: error.sqnr_db for name, error in errors.items()}


def shaken(model: Model) -> Model | None:
    """The graph with seeded noise in front of every QuantizeLinear of an activation."""
    proto = copy_proto(model.proto)
    graph = proto.graph
    stored = {w.name: w for w in graph.initializer}
    nodes, count = [], 0
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in stored:
            scale = numpy_helper.to_array(stored[node.input[1]])
            names, seed = (node.input[0], f"{node.name}/moved"), float(_SEED + count)
            if stored[node.input[2]].data_type == FLOAT8:
                made, constants = float8_noise(names, scale, 1.0, seed, model.opset)
            else:
                made, constants = _noise(names, float(scale), seed, model.opset)
            graph.initializer.extend(constants)
            nodes += made
            node.input[0] = names[1]
            count += 1
        nodes.append(node)
    if not count:
        return None
    whole = onnx.GraphProto()
    whole.node.extend(nodes)
    del graph.node[:]
    graph.node.extend(whole.node)
    return model.derive(proto, ())


def _noise(names: tuple[str, str], step: float, seed: float, opset: int) -> Made:
    source, made = names
    noise = f"{made}/noise"
    nodes, constants = uniform_noise((source, noise), step, seed, opset)
    return [*nodes, helper.make_node("Add", [source, noise], [made])], constants
