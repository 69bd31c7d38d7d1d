"""An ONNX graph with the rounding of a TensorRT engine put into it, and ONNX Runtime to run it.

INT8 layers read values rounded to their tensor's scale and weights rounded per output channel; all
others round their results to the type they compute in. Numbers then move as they would there,
though not by the same last bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 0, "MatMul": 1}
_ACTIVATIONS = (
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "HardSwish",
    "HardSigmoid",
    "BatchNormalization",
)
_CASTS = {"HALF": TensorProto.FLOAT16, "BF16": TensorProto.BFLOAT16}


def rounded(
    model: onnx.ModelProto, kinds: Mapping[int, str], scales: Mapping[str, float]
) -> onnx.ModelProto:
    """kinds: INT8, HALF, BF16 or FLOAT per node index; scales: per tensor of the ONNX graph."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    nodes = list(graph.node)
    writer = {name: i for i, node in enumerate(nodes) for name in node.output}
    floats = _float_names(made)
    written: list[onnx.NodeProto] = []
    for index, node in enumerate(nodes):
        kind = kinds.get(index, "FLOAT")
        if kind == "INT8":
            written += _quantize_inputs(graph, node, index, nodes, writer, kinds, scales)
            _round_weights(graph, node)
        written.append(node)
        if kind in _CASTS:
            written += _cast_results(node, _CASTS[kind], floats)
    del graph.node[:]
    graph.node.extend(written)
    return made


def _quantize_inputs(
    graph: Any,
    node: onnx.NodeProto,
    index: int,
    nodes: list[onnx.NodeProto],
    writer: Mapping[str, int],
    kinds: Mapping[int, str],
    scales: Mapping[str, float],
) -> list[onnx.NodeProto]:
    """Q and DQ in front of an INT8 layer; none inside a layer that ends in this activation."""
    made: list[onnx.NodeProto] = []
    for position, name in enumerate(node.input):
        before = writer.get(name)
        inside = node.op_type in _ACTIVATIONS and before is not None and kinds.get(before) == "INT8"
        if name not in scales or (inside and nodes[before].op_type in _WEIGHTED):  # type: ignore[index]
            continue
        base = f"{name}/int8_of_{index}_{position}"
        graph.initializer.append(_constant(f"{base}/scale", np.float32(scales[name])))
        graph.initializer.append(_constant(f"{base}/zero", np.int8(0)))
        parameters = [f"{base}/scale", f"{base}/zero"]
        made.append(helper.make_node("QuantizeLinear", [name, *parameters], [f"{base}/q"]))
        made.append(helper.make_node("DequantizeLinear", [f"{base}/q", *parameters], [base]))
        node.input[position] = base
    return made


def _constant(name: str, value: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(value), name)


def _round_weights(graph: Any, node: onnx.NodeProto) -> None:
    """Weights to 8 bits, symmetric, per output channel by the largest magnitude."""
    if node.op_type not in _WEIGHTED or len(node.input) < 2:
        return
    found = next((i for i in graph.initializer if i.name == node.input[1]), None)
    if found is None:
        return
    w = numpy_helper.to_array(found).astype(np.float32)
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    axis = 1 if node.op_type == "Gemm" and not transposed else _WEIGHTED[node.op_type]
    others = tuple(i for i in range(w.ndim) if i != axis % w.ndim)
    scale = np.max(np.abs(w), axis=others, keepdims=True) / 127.0
    scale = np.where(scale == 0, 1.0, scale).astype(np.float32)
    name = f"{found.name}/int8"
    if all(i.name != name for i in graph.initializer):
        whole = np.clip(np.rint(w / scale), -127, 127).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(whole * scale, name))
    node.input[1] = name


def _cast_results(node: onnx.NodeProto, kind: int, floats: Iterable[str]) -> list[onnx.NodeProto]:
    """The node writes aside; its result is that, rounded."""
    made = []
    for position, name in enumerate(node.output):
        if name in floats:
            aside, small = f"{name}/exact", f"{name}/small"
            node.output[position] = aside
            made.append(helper.make_node("Cast", [aside], [small], to=kind))
            made.append(helper.make_node("Cast", [small], [name], to=TensorProto.FLOAT))
    return made


def _float_names(model: onnx.ModelProto) -> list[str]:
    infos = [*model.graph.value_info, *model.graph.output]
    return [i.name for i in infos if i.type.tensor_type.elem_type == TensorProto.FLOAT]


def session(model: onnx.ModelProto) -> Any:
    """ONNX Runtime's session of a model, plugin ops spelled out, one thread, nothing fused."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    content = spelled_out(model).SerializeToString()
    return onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])


def spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """Ops of this project's plugins as standard ones; the only place where `deploy` is needed."""
    if all(node.domain != "onnx_deploy" for node in model.graph.node):
        return model
    from deploy.plugin.ops import expand_plugins

    expanded: onnx.ModelProto = expand_plugins(model, "engine")
    return expanded


def run_tensors(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]
) -> Iterable[tuple[str, np.ndarray]]:
    """Every value of a graph by name, its inputs too."""
    shown = onnx.ModelProto()
    shown.CopyFrom(spelled_out(model))
    known = {o.name for o in shown.graph.output}
    names = [n for node in shown.graph.node for n in node.output if n]
    shown.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    run = session(shown)
    wanted = [o.name for o in run.get_outputs()]
    found: dict[str, np.ndarray] = dict(zip(wanted, run.run(wanted, dict(feeds))))  # noqa: B905
    found.update(feeds)
    return found.items()
