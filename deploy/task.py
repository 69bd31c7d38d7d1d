"""Is an output a classifier's? Decides whether agreement and accuracy mean anything."""

from __future__ import annotations

import onnx

from deploy.artifacts.model import Model

# ops between the last layer and the scores that don't change what the numbers are
_PASSES = ("Softmax", "LogSoftmax", "Identity", "Reshape", "Flatten", "Squeeze", "Add", "Cast")
_SCORING = ("Gemm", "MatMul", "Conv", "GlobalAveragePool", "AveragePool")


def class_scores(model: Model, task: str, labelled: bool) -> str | None:
    """The name of the output that holds one score per class, or None.

    task: "classify" takes the first float output with classes, "none" takes none, "auto" takes it
    when labels exist, or when the graph ends like a classifier (a layer, maybe a Softmax).
    """
    if task == "none":
        return None
    for spec in model.outputs:
        shaped = len(spec.shape) == 2 or (len(spec.shape) == 4 and spec.shape[2:] == (1, 1))
        if spec.dtype.kind != "f" or not shaped or spec.shape[1] == 1:
            continue
        if task == "classify" or labelled or _ends_in_scores(model.proto.graph, spec.name):
            return spec.name
    return None


def _ends_in_scores(graph: onnx.GraphProto, output: str) -> bool:
    producers = {name: node for node in graph.node for name in node.output}
    name = output
    while name in producers:
        node = producers[name]
        if node.op_type in _SCORING:
            return True
        if node.op_type not in _PASSES:
            return False
        name = next((i for i in node.input if i in producers), "")
    return False
