"""A stretch of a graph, from one node to another, as a model of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import onnx

from deploy.artifacts.model import Model, graphs


@dataclass(frozen=True)
class Graft:
    """What a stretch has besides its own nodes.

    reads: (node number, input) -> the value it reads instead. makes: node number -> the name its
    first output gets instead. nodes: each with the number of the node it stands in front of.
    """

    reads: Mapping[tuple[int, int], str] = field(default_factory=dict)
    makes: Mapping[int, str] = field(default_factory=dict)
    nodes: Sequence[tuple[int, onnx.NodeProto]] = ()
    weights: Sequence[onnx.TensorProto] = ()


NO_GRAFT = Graft()


class Spans:
    """Cuts a model between its nodes, which are numbered in the graph's (topological) order.

    The types of its values are inferred.
    """

    def __init__(self, model: Model) -> None:
        graph = model.proto.graph
        self._model = model
        self._nodes = list(graph.node)
        self._weights = {w.name: w for w in graph.initializer}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._kinds = {value.name: value for value in values}
        self._made = {value.name: -1 for value in graph.input if value.name not in self._weights}
        self._made.update((o, i) for i, node in enumerate(graph.node) for o in node.output if o)
        self._last: dict[str, int] = {}
        for number, node in enumerate(self._nodes):
            self._last.update(dict.fromkeys(_reads(node), number))

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, value: str) -> bool:
        """Whether it is computed or fed; values inside subgraphs and weights aren't."""
        return value in self._made

    def number(self, value: str) -> int:
        """The node that makes a value; -1 for one that is fed."""
        return self._made[value]

    def live(self, cut: int) -> list[str]:
        """What nodes before `cut` make, or the model is fed, and nodes from `cut` on read."""
        made = ((n, self._made[n]) for n, last in self._last.items() if last >= cut and n in self)
        return sorted(name for name, number in made if number < cut)

    def cut(self, number: int) -> int:
        """The last place up to node `number` where everything live is a tensor of known type and
        rank, so that it can be carried over."""
        return next(n for n in range(number, -1, -1) if all(map(self._ranked, self.live(n))))

    def _ranked(self, name: str) -> bool:
        kind = self._kinds.get(name)
        return kind is not None and kind.type.tensor_type.HasField("shape")

    def between(
        self, start: int, stop: int, gives: Sequence[str], graft: Graft = NO_GRAFT
    ) -> tuple[Model, list[str]]:
        """Nodes `start` to `stop` (without it) that give these values, and what they take.

        The values are made in the stretch, or by the graft.
        """
        nodes = _grafted(self._nodes[start:stop], start, graft)
        own = {w.name: w for w in graft.weights}
        made = {name for node in nodes for name in node.output if name}
        read = dict.fromkeys(name for node in nodes for name in _reads(node))
        weights = [{**self._weights, **own}[n] for n in read if n in own or n in self._weights]
        known = {w.name for w in weights}
        # names of values inside a subgraph are nobody else's
        takes = [n for n in read if n in self and n not in made and n not in known]
        graph = onnx.helper.make_graph(
            nodes,
            self._model.name,
            [self._kinds[name] for name in takes],
            [self._kinds[name] for name in gives],
            weights,
        )
        proto = onnx.helper.make_model(graph, opset_imports=self._model.proto.opset_import)
        proto.ir_version = self._model.proto.ir_version
        proto.functions.extend(self._model.proto.functions)
        return self._model.derive(proto, ()), takes


def _grafted(nodes: Sequence[onnx.NodeProto], start: int, graft: Graft) -> list[onnx.NodeProto]:
    found = []
    for number, node in enumerate(nodes, start):
        found += [extra for before, extra in graft.nodes if before == number]
        found.append(_changed(node, number, graft))
    return found + [extra for before, extra in graft.nodes if before == start + len(nodes)]


def _changed(node: onnx.NodeProto, number: int, graft: Graft) -> onnx.NodeProto:
    own = onnx.NodeProto()
    own.CopyFrom(node)
    for (reader, index), name in graft.reads.items():
        if reader == number:
            own.input[index] = name
    if number in graft.makes:
        own.output[0] = graft.makes[number]
    return own


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Every value the node reads, those its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
        for body in (inner for outer in bodies for inner in graphs(outer)):
            yield from (name for inner in body.node for name in inner.input if name)
            yield from (value.name for value in body.output)
