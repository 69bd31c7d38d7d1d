"""Where to measure noise of a model whose outputs are all integers: at the scores of an ArgMax."""

from __future__ import annotations

from deploy.artifacts.model import Model, copy_proto
from deploy.observation.graph import FLOATS


def float_ends(model: Model) -> Model:
    """The model, or where it has no float output one that gives out the last float values in front
    of its outputs: the scores of an ArgMax, the two sides of a comparison."""
    graph = model.proto.graph
    if any(spec.dtype.kind == "f" for spec in model.outputs):
        return model
    typed = {v.name: v for v in (*graph.value_info, *graph.output)}
    made = {name: node for node in graph.node for name in node.output}
    waiting, ends = [value.name for value in graph.output], {}
    while waiting:
        name = waiting.pop(0)
        known = typed.get(name)
        if name not in made or name in ends:
            continue
        if known is not None and known.type.tensor_type.elem_type in FLOATS:
            ends[name] = known
        else:
            waiting += made[name].input
    proto = copy_proto(model.proto)
    del proto.graph.output[:]
    proto.graph.output.extend(ends.values())
    return model.derive(proto, ()) if ends else model
