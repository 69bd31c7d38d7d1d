"""A uint8 input turned into float first, for parsers that let nothing else read it.

uint8 -> Transpose -> Cast -> Sub   =>   uint8 -> Cast -> Transpose -> Sub
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.artifacts.model import Decision, Model
from deploy.surgery.graph import is_output, to_graph, to_model
from deploy.surgery.movement import moves

_FLOAT = int(onnx.TensorProto.FLOAT)


def cast_raw_inputs(model: Model) -> Model:
    """The model with every uint8 input read by a Cast to float32 alone; itself where it is so.

    TensorRT takes uint8 at an input that is cast at once, and no uint8 elsewhere (seen in
    TensorRT-RTX 1.7.1: a Transpose refuses it). What only moves the values moves floats then.
    """
    if not any(spec.dtype == np.uint8 for spec in model.inputs):
        return model
    graph = to_graph(model)
    raw = [
        t for t in graph.inputs if t.dtype == np.uint8 and any(n.op != "Cast" for n in t.outputs)
    ]
    raw = [t for t in raw if all(_ends_in_floats(node) for node in t.outputs)]
    if not raw:
        return model
    for tensor in raw:
        readers = list(tensor.outputs)
        wide = gs.Variable(f"{tensor.name}/float32", np.dtype(np.float32), tensor.shape)
        graph.nodes.insert(
            0, gs.Node("Cast", f"{wide.name}/Cast", {"to": _FLOAT}, [tensor], [wide])
        )
        for node in readers:
            for index in [i for i, t in enumerate(node.inputs) if t is tensor]:
                node.inputs[index] = wide
            _widen(node)
    done = [
        Decision("build", "raw_input", "applied", t.name, "cast before it is moved") for t in raw
    ]
    return to_model(graph, model, [*model.decisions, *done])


def _ends_in_floats(node: gs.Node) -> bool:
    """Whether a node hands the values on to Casts to float32, through movement only."""
    if node.op == "Cast":
        return int(node.attrs["to"]) == _FLOAT
    readers = [n for t in node.outputs for n in t.outputs]
    return moves(node) and bool(readers) and all(_ends_in_floats(n) for n in readers)


def _widen(node: gs.Node) -> None:
    """float32 for what a movement gives, down to the Casts, which go: nothing is left to cast."""
    if node.op == "Cast":
        source, made = node.inputs[0], node.outputs[0]
        if is_output(made):
            return
        for reader in list(made.outputs):
            for index in [i for i, t in enumerate(reader.inputs) if t is made]:
                reader.inputs[index] = source
        return
    for tensor in node.outputs:
        tensor.dtype = np.dtype(np.float32)
        for reader in list(tensor.outputs):
            _widen(reader)
