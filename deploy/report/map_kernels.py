"""Which of the vendor's kernels runs each node of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deploy.artifacts.model import Model

if TYPE_CHECKING:
    import onnx

Layer = Mapping[str, Any]

# fused layers that prepare and convert around the one that computes, in OpenVINO's and TensorRT's
# words; it is the other one that people want to see
_AROUND = ("reorder", "reshape", "reformat", "kgen", "shuffle", "constant", "cast", "noop")


def kernels(
    nodes: Sequence[onnx.NodeProto], quantized: Model | None, layers: Sequence[Layer]
) -> dict[int, dict[str, Any]]:
    """Node -> kernel, by index; nothing for a node of which the list says nothing.

    names_it: false where the list doesn't name the node itself, but the conversion to INT8 behind
    it, or the layer in front, whose only reader it is: compilers drop what they fuse.
    """
    listed = _by_origin(layers)
    conversions = _conversions(quantized)
    readers = _readers(nodes)
    found: dict[int, dict[str, Any]] = {}
    writer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    for index, node in enumerate(nodes):
        own = _executing(_names(node), listed)
        if own is not None:
            found[index] = _kernel(own, True)
            continue
        behind = [name for output in node.output for name in conversions.get(output, ())]
        fused = _executing(behind, listed) or None
        if fused is not None:
            found[index] = _kernel(fused, False)
            continue
        before = [writer[name] for name in node.input if name in writer]
        if len(before) == 1 and before[0] in found and readers[before[0]] == 1:
            found[index] = {**found[before[0]], "names_it": False}
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


def _executing(names: Iterator[str] | list[str], listed: Mapping[str, list[Layer]]) -> Layer | None:
    named = [layer for name in names for layer in listed.get(name, ())]
    heavy = [layer for layer in named if not layer["kind"].lower().startswith(_AROUND)]
    return next(iter(heavy or named), None)


def _names(node: onnx.NodeProto) -> Iterator[str]:
    """How a vendor's list may call a node; NVIDIA's parser names those without a name."""
    if node.name:
        yield node.name
    yield from (f"node_of_{output}" for output in node.output)


def _conversions(quantized: Model | None) -> dict[str, list[str]]:
    """Tensor -> the names of the QuantizeLinear nodes that read it."""
    found: dict[str, list[str]] = {}
    for node in quantized.proto.graph.node if quantized is not None else ():
        if node.op_type == "QuantizeLinear":
            found.setdefault(node.input[0], []).append(node.name)
    return found


def _readers(nodes: Sequence[onnx.NodeProto]) -> list[int]:
    """How many nodes read each node's outputs."""
    counts: dict[str, int] = {}
    for node in nodes:
        for name in set(node.input):
            counts[name] = counts.get(name, 0) + 1
    return [sum(counts.get(name, 0) for name in node.output) for node in nodes]
