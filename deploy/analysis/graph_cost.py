"""How much a graph holds, computes and moves: its totals, per sample.

FLOPs and bytes are sums over the layers; `layer_cost` says what is counted.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from deploy.analysis.layer_cost import graph_layers, stored_bytes
from deploy.artifacts.model import Model
from deploy.surgery.graph import to_graph


@dataclass(frozen=True)
class GraphCost:
    """Totals of a graph; operators: how often each occurs."""

    nodes: int
    operators: dict[str, int]
    parameters: int
    weight_bytes: int
    flops: int
    bytes: int


def graph_cost(model: Model) -> GraphCost:
    """Nodes, parameters, FLOPs and bytes of a model."""
    graph = to_graph(model)
    weights = {t.name: t for n in graph.nodes for t in n.inputs if isinstance(t, gs.Constant)}
    layers = graph_layers(graph).costs
    return GraphCost(
        nodes=len(graph.nodes),
        operators=dict(sorted(Counter(node.op for node in graph.nodes).items())),
        parameters=sum(int(np.prod(t.shape)) for t in weights.values()),
        weight_bytes=sum(stored_bytes(int(np.prod(t.shape)), t.dtype) for t in weights.values()),
        flops=sum(layer.flops for layer in layers),
        bytes=sum(layer.bytes for layer in layers),
    )
