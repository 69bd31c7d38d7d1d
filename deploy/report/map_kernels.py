"""Which of the vendor's kernels runs each node of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from deploy.artifacts.model import Model
from deploy.report.map_boxes import ACTIVATIONS, MULTIPLY
from deploy.report.map_decisions import Node
from deploy.surgery.movement import MOVES

Layer = Mapping[str, Any]

# what a compiler computes as the layer in front writes it; no other operator vanishes in silence
_JOINS = frozenset(
    (*MOVES, *ACTIVATIONS, "Add", "Sub", "Mul", "Div", "Cast", "Dropout", "BatchNormalization")
)
# kinds of a vendor's layers that multiply, whatever they add to it
_HEAVY = ("convolution", "fullyconnected", "matmul", "gemm")
# fused layers that prepare and convert around the one that computes, in OpenVINO's and TensorRT's
# words; it is the other one that people want to see
_AROUND = ("reorder", "reshape", "reformat", "kgen", "shuffle", "constant", "cast", "noop")


def kernels(
    nodes: Sequence[Node], quantized: Model | None, layers: Sequence[Layer]
) -> dict[int, dict[str, Any]]:
    """Node -> kernel, by index; nothing for a node of which the list says nothing.

    names_it: false where the list doesn't name the node itself, but what a rewrite named after its
    output, the conversion to INT8 behind it, the bias that is added to it, or the layer in front,
    whose only reader it is: compilers drop what they fuse. A layer that multiplies is never taken
    for one that was dropped behind another.
    """
    listed, after_outputs = _by_origin(layers), _by_output(layers, nodes)
    conversions, readers = _conversions(quantized), _readers(nodes)
    writer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    found: dict[int, dict[str, Any]] = {}
    for index, node in enumerate(nodes):
        behind = [name for output in node.output for name in conversions.get(output, ())]
        own = _executing(_names(node), listed)
        implied = _executing(node.output, after_outputs) or _executing(behind, listed)
        before = [writer[name] for name in node.input if name in writer]
        joins = node.op_type in _JOINS and len(before) == 1 and len(readers[before[0]]) == 1
        if own is not None:
            found[index] = _kernel(own, True)
        elif implied is not None:
            found[index] = _kernel(implied, False)
        elif joins and before[0] in found:
            found[index] = {**found[before[0]], "names_it": False}
    for index, node in enumerate(nodes):
        if index not in found and node.op_type in MULTIPLY and len(readers[index]) == 1:
            sum_of_it = readers[index][0]
            if nodes[sum_of_it].op_type == "Add" and _multiplies(found.get(sum_of_it)):
                found[index] = {**found[sum_of_it], "names_it": False}
    return found


def _multiplies(kernel: Mapping[str, Any] | None) -> bool:
    return kernel is not None and kernel["kind"].lower().startswith(_HEAVY)


def _by_output(layers: Sequence[Layer], nodes: Sequence[Node]) -> dict[str, list[Layer]]:
    """Layers by the tensor that one of their origins is named after, as rewrites name nodes."""
    written = {name for node in nodes for name in node.output if name}
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        for origin in layer["fused_from"]:
            parts = origin.split("/")
            longest = ("/".join(parts[:cut]) for cut in range(len(parts) - 1, 0, -1))
            tensor = next((name for name in longest if name in written), None)
            if tensor is not None:
                found.setdefault(tensor, []).append(layer)
    return found


def _kernel(layer: Layer, names_it: bool) -> dict[str, Any]:
    kept = ("name", "kind", "precision", "kernel")
    return {**{key: layer[key] for key in kept}, "names_it": names_it}


def _by_origin(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        for origin in layer["fused_from"]:
            found.setdefault(origin, []).append(layer)
    return found


def _executing(names: Iterable[str], listed: Mapping[str, list[Layer]]) -> Layer | None:
    named = [layer for name in names for layer in listed.get(name, ())]
    heavy = [layer for layer in named if not layer["kind"].lower().startswith(_AROUND)]
    return next(iter(heavy or named), None)


def _names(node: Node) -> Iterator[str]:
    """How a vendor's list may call a node: a layer that writes an output of the model has its name
    in OpenVINO, and NVIDIA's parser names those without one."""
    if node.name:
        yield node.name
    yield from node.output
    yield from (f"node_of_{output}" for output in node.output)


def _conversions(quantized: Model | None) -> dict[str, list[str]]:
    """Tensor -> the names of the QuantizeLinear nodes that read it."""
    found: dict[str, list[str]] = {}
    for node in quantized.proto.graph.node if quantized is not None else ():
        if node.op_type == "QuantizeLinear":
            found.setdefault(node.input[0], []).append(node.name)
    return found


def _readers(nodes: Sequence[Node]) -> list[list[int]]:
    """The nodes that read each node's outputs."""
    reading: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in set(node.input):
            reading.setdefault(name, []).append(index)
    return [[i for name in node.output for i in reading.get(name, ())] for node in nodes]
