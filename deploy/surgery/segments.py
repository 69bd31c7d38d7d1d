"""A graph cut behind chosen tensors, so that it can run piece by piece over many samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from deploy.artifacts.model import Model
from deploy.errors import ModelError
from deploy.surgery.graph import infer


@dataclass(frozen=True)
class Segment:
    """Everything that has to run for `target` and hasn't run before.

    feeds: tensors it takes from earlier segments or from the sample; keeps: what it computes that
    later segments take; frees: what no later segment takes any more.
    """

    target: str
    proto: onnx.ModelProto
    feeds: tuple[str, ...]
    keeps: tuple[str, ...]
    frees: tuple[str, ...]


def segments(model: Model, targets: Sequence[str]) -> list[Segment]:
    """One segment per target tensor, in the graph's order; what lies behind the last is left out.

    The model's nodes are in topological order. ModelError when no node makes a target.
    """
    described = infer(model.proto)
    graph = described.graph
    by_output = {o: i for i, node in enumerate(graph.node) for o in node.output if o}
    for name in targets:
        if name not in by_output:
            raise ModelError(f"{model.name}: no node makes {name!r}, so nothing can be cut behind")
    order = sorted(dict.fromkeys(targets), key=lambda name: by_output[name])
    read = [tuple(_read(node)) for node in graph.node]
    pieces = _pieces(read, by_output, order)
    weights = {w.name for w in graph.initializer}
    ports = {v.name for v in graph.input} - weights
    takes = [_taken(graph, read, piece, ports) for piece in pieces]
    kinds = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    found = []
    for index, (target, piece) in enumerate(zip(order, pieces, strict=True)):
        later = {name for taken in takes[index + 1 :] for name in taken}
        made = {o for i in piece for o in graph.node[i].output if o}
        keeps = tuple(sorted(made & later))
        frees = tuple(name for name in takes[index] if name not in later)
        gives = [target, *(name for name in keeps if name != target)]
        values = [[_free(kinds, n, model.name) for n in names] for names in (takes[index], gives)]
        proto = _model(described, piece, {n for i in piece for n in read[i]}, *values)
        found.append(Segment(target, proto, tuple(takes[index]), keeps, frees))
    return found


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Every name a node reads, and every name its bodies mention."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from _read(inner)


def _pieces(
    read: Sequence[Sequence[str]], by_output: Mapping[str, int], order: Sequence[str]
) -> list[list[int]]:
    """Per target the numbers of the nodes it needs and nobody ran yet, in the graph's order."""
    done: set[int] = set()
    pieces = []
    for target in order:
        found: set[int] = set()
        todo = [by_output[target]]
        while todo:
            number = todo.pop()
            if number not in found and number not in done:
                found.add(number)
                todo.extend(by_output[name] for name in read[number] if name in by_output)
        done |= found
        pieces.append(sorted(found))
    return pieces


def _taken(
    graph: onnx.GraphProto, read: Sequence[Sequence[str]], piece: Sequence[int], ports: set[str]
) -> list[str]:
    """What a piece reads from the sample or from nodes outside it."""
    made = {o for i in piece for o in graph.node[i].output}
    outside = ports | {o for node in graph.node for o in node.output if o}
    names = (name for i in piece for name in read[i])
    return list(dict.fromkeys(n for n in names if n in outside and n not in made))


def _model(
    origin: onnx.ModelProto,
    piece: Sequence[int],
    read: set[str],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    nodes = [origin.graph.node[i] for i in piece]
    weights = [w for w in origin.graph.initializer if w.name in read]
    part = onnx.helper.make_graph(nodes, "segment", inputs, outputs, weights)
    proto = onnx.helper.make_model(
        part, opset_imports=origin.opset_import, functions=origin.functions
    )
    proto.ir_version = origin.ir_version
    return proto


def _free(kinds: Mapping[str, onnx.ValueInfoProto], name: str, model: str) -> onnx.ValueInfoProto:
    """The tensor's name and element type, its sizes left open; other kinds of value as they are."""
    known = kinds.get(name)
    if known is None:
        raise ModelError(f"{model}: the type of {name!r} isn't known; run simplify on the model")
    if not known.type.HasField("tensor_type"):
        return known
    return onnx.helper.make_tensor_value_info(name, known.type.tensor_type.elem_type, None)
