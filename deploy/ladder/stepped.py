"""A graph in which every tensor is computed from given values, not from computed ones.

Fed with what another graph holds, each result shows what the nodes in front of it do by themselves:
nothing has piled up. Results are called `<tensor>//step`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import onnx

from deploy.artifacts.model import Model, copy_proto, graphs
from deploy.backends import reference
from deploy.ladder.tensors import AS_IS, Feeding, Values

_SUFFIX = "//step"


def stepped(model: Model, anchors: Collection[str]) -> Model:
    """The model with every anchor fed, and computed only to be given out.

    Every type has to be written down (`observable`). Anchors that nothing reads aren't fed.
    """
    proto = copy_proto(model.proto)
    graph = proto.graph
    kinds = {v.name: v for v in (*graph.value_info, *graph.output)}
    read = {name for g in graphs(graph) for node in g.node for name in node.input}
    read |= {v.name for g in graphs(graph) if g is not graph for v in g.output}
    wanted = [name for node in graph.node for name in node.output if name in set(anchors)]
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name in anchors:
                node.output[index] = name + _SUFFIX
    del graph.output[:]
    for name in wanted:
        graph.output.append(_named(kinds[name], name + _SUFFIX))
        if name in read:
            graph.input.append(_named(kinds[name], name))
    # what was inferred is of the old names
    described = [v for v in graph.value_info if v.name not in anchors]
    kept = onnx.GraphProto()
    kept.value_info.extend(described)
    del graph.value_info[:]
    graph.value_info.extend(kept.value_info)
    return model.derive(proto, ())


def steps(
    model: Model,
    anchors: Collection[str],
    runs: Sequence[Values],
    values: Sequence[Values],
    feeding: Feeding = AS_IS,
) -> list[dict[str, np.ndarray]]:
    """Per run, every anchor as the model makes it out of the given values of the others.

    runs: what the model is fed. values: what each anchor holds on those runs.
    """
    cut = stepped(model, anchors)
    takes = {spec.name for spec in cut.inputs}
    own = {spec.name for spec in model.inputs}
    found = []
    with reference.ReferenceEngine(cut, threads=1, exact=True) as engine:
        for feeds, held in zip(runs, values, strict=False):
            given = {name: held[name] for name in takes - own}
            out = engine.run({**feeding.of(model, feeds), **given})
            found.append({name.removesuffix(_SUFFIX): x for name, x in out.items()})
    return found


def _named(value: onnx.ValueInfoProto, name: str) -> onnx.ValueInfoProto:
    made = onnx.ValueInfoProto()
    made.CopyFrom(value)
    made.name = name
    return made
