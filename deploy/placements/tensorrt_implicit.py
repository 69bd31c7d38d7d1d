"""What runs in INT8 where a calibration cache tells it, on a GPU: TensorRT 8.5 on Xavier.

Layers with weights, residual Adds, and between them what pools or only moves values. Input and
result of a pool share a range: the kernel doesn't rescale. The inputs of a sum have their own, as
in explicit Q/DQ; a DLA wants more alike (`tensorrt_dla`). GlobalAveragePool stays
float: its result is much smaller than its input, whose range would leave it few of the 8 bits. Relu
and Clip behind an INT8 layer are computed in it; `deploy.nvidia.implicit` names them INT8 with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision
from deploy.placement import ActivationQuant, Placement, SharedScale, WeightQuant
from deploy.quantizable import (
    LAYERS,
    output_channel_axis,
    readers,
    result,
    same_values,
    stays_float,
    why_float,
    why_float_sum,
)
from deploy.surgery.graph import is_output
from deploy.surgery.movement import data_inputs, moves

_POOLS = ("MaxPool", "AveragePool")


def tensorrt_implicit(graph: gs.Graph) -> Placement:
    """What runs in INT8 in a graph; told by a calibration cache, or simulated by Q/DQ."""
    plan = _Plan({id(node) for node in graph.nodes})
    for node in graph.nodes:
        if node.op in (*LAYERS, "Add"):
            plan.layer(node)
        elif moves(node, _POOLS):
            plan.carrier(node)
    names = [a.tensor.name for a in plan.activations]
    plan.shared += same_values(graph.nodes, names, "they hold the same values, and move as INT8")
    return Placement(
        tuple(plan.activations), tuple(plan.weights), tuple(plan.skipped), tuple(plan.shared)
    )


@dataclass
class _Plan:
    """Walks the graph in order; `integers`: names of what INT8 layers have written by then."""

    nodes: set[int]
    activations: list[ActivationQuant] = field(default_factory=list)
    weights: list[WeightQuant] = field(default_factory=list)
    skipped: list[Decision] = field(default_factory=list)
    shared: list[SharedScale] = field(default_factory=list)
    integers: set[str] = field(default_factory=set)

    def layer(self, node: gs.Node) -> None:
        refusal = why_float_sum(node) if node.op == "Add" else why_float(node)
        if refusal is not None:
            self.skipped.append(stays_float("tensorrt_implicit", node, refusal))
            return
        inputs = node.inputs[:2] if node.op == "Add" else node.inputs[:1]
        self.activations += [
            ActivationQuant(node, index, f"input of {node.op}") for index in range(len(inputs))
        ]
        if node.op != "Add":
            self.weights.append(WeightQuant(node, 1, output_channel_axis(node)))
        self.integers.add(result(node).name)

    def carrier(self, node: gs.Node) -> None:
        """INT8 between INT8 layers; elsewhere it has nothing to gain."""
        moved = data_inputs(node)
        wanted = all(t.name in self.integers for t in moved) and self._read_in_graph(node)
        if not wanted:
            return
        self.activations += [
            *(ActivationQuant(node, i, f"input of {node.op}") for i in range(len(moved))),
            *(
                ActivationQuant(reader, index, f"result of {node.op}", node)
                for out in node.outputs
                for reader, index in readers(out)
            ),
        ]
        if node.op in _POOLS:
            names = (moved[0].name, node.outputs[0].name)
            self.shared.append(SharedScale(names, "a pool gives values of the range it reads"))
        self.integers |= {t.name for t in node.outputs}

    def _read_in_graph(self, node: gs.Node) -> bool:
        """Whether all results are floats that nodes of this graph read, and nobody else."""
        return all(
            out.dtype == np.float32
            and out.outputs
            and not is_output(out)
            and all(id(r) in self.nodes for r in out.outputs)
            for out in node.outputs
        )
