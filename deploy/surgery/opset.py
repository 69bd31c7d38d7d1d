"""A newer opset for the graph, where every operator in it means the same there.

A fusion may want an operator that the model's opset lacks. `raise_for` changes the graph's opset
only when each node (bodies of If, Loop and Scan included) keeps its meaning: its operator has the
same version there, or later versions only added types and optional attributes or inputs, or the
same thing can be written in the newer form (axes as an input). Otherwise it says what is in the
way. The tables follow the operators' changelog in `onnx.defs`; a test compares them with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.surgery.graph import label, rank

# RMSNormalization needs 23, Swish 24. Every engine here (ONNX Runtime 1.18, OpenVINO 2024.2,
# TensorRT 10) reads 21, and not all read more: a target lists what its own engine takes.
HIGHEST_OPSET = 24

_ONNX = ("", "ai.onnx")

# the same since 22, but ONNX Runtime 1.31 has no kernel of that version
_NOT_RUN_FROM_22 = ("GlobalLpPool", "MaxRoiPool", "RoiAlign")
# ONNX Runtime 1.31 runs Swish by the function body of 24, which it finds in no later opset
_RUNS_UP_TO = {"Swish": 24}

# operator -> the opset from which on, up to HIGHEST_OPSET, nothing changed its meaning:
# broadcasting is NumPy's since 7, types were added later, new attributes default to the old meaning
_SAME_SINCE = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Equal", "Greater", "Less"), 7),
    **dict.fromkeys(("GreaterOrEqual", "LessOrEqual"), 12),
    **dict.fromkeys(("Abs", "Ceil", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Sqrt", "Relu"), 6),
    **dict.fromkeys(("Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Tile"), 6),
    **dict.fromkeys(("Erf", "Sign", "IsNaN", "NonZero", "MatMul", "Where", "PRelu", "OneHot"), 9),
    **dict.fromkeys(("Max", "Min", "Mean", "Sum", "Expand", "MaxPool"), 8),
    **dict.fromkeys(("Identity", "Constant", "Shape", "Size", "Transpose", "SpaceToDepth"), 1),
    **dict.fromkeys(("ConstantOfShape", "Cast", "Flatten", "Compress", "BatchNormalization"), 9),
    **dict.fromkeys(("MeanVarianceNormalization",), 9),
    **dict.fromkeys(("Conv", "ConvTranspose", "LRN", "DepthToSpace", "ArgMax", "ArgMin"), 1),
    **dict.fromkeys(("Gemm", "LSTM", "GRU", "RNN", "AveragePool"), 7),
    **dict.fromkeys(("Concat",), 4),
    **dict.fromkeys(("Gather",), 1),
    **dict.fromkeys(("Slice", "Mod", "IsInf", "NonMaxSuppression", "QLinearMatMul"), 10),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), 10),
    **dict.fromkeys(("Clip", "Pad", "CumSum", "GatherElements", "GatherND", "ScatterND"), 11),
    **dict.fromkeys(("ScatterElements", "If", "Loop", "Scan", "TopK"), 11),
    # 22 to 24 only added types to these
    **dict.fromkeys(("Acos", "Asin", "Atan", "Cos", "Sin", "Tan"), 7),
    **dict.fromkeys(("Acosh", "Asinh", "Atanh", "Cosh", "Sinh"), 9),
    **dict.fromkeys(("Elu", "Selu", "InstanceNormalization"), 6),
    **dict.fromkeys(("Softplus", "Softsign", "LpNormalization", "GlobalAveragePool"), 1),
    **dict.fromkeys(("GlobalMaxPool",), 1),
    **dict.fromkeys(("ThresholdedRelu",), 10),
    **dict.fromkeys(("Round", "Det"), 11),
    **dict.fromkeys(("HardSwish",), 14),
    **dict.fromkeys(("Mish", "LpPool"), 18),
    **dict.fromkeys(("DeformConv",), 19),
    **dict.fromkeys(("GridSample",), 20),
    **dict.fromkeys(("EyeLike",), 9),
    "Reshape": 5,
    "Dropout": 12,
    "CastLike": 15,
}
# operator -> the opset at which its attribute `axes` became its second input
_AXES_MOVED_AT = {
    **dict.fromkeys(("Squeeze", "Unsqueeze", "ReduceSum"), 13),
    **dict.fromkeys(("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"), 18),
    **dict.fromkeys(("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"), 18),
}


def needed_opset(op: str, opset: int) -> int:
    """The lowest opset, this one or later, that has the operator; this one for unknown names."""
    later = range(opset, onnx.defs.onnx_opset_version() + 1)
    return next((version for version in later if _version(op, version)), opset)


def raise_for(
    graph: gs.Graph,
    wanted: int,
    because: str,
    without: Iterable[gs.Node],
    in_the_way: dict[int, gs.Node] | None = None,
) -> str | None:
    """Give the graph the opset `wanted` (never a lower one); None, or why it stays as it is.

    without: nodes about to be removed, whose meaning doesn't matter. in_the_way: a node that was
    found to be, by opset, kept from call to call so that a large graph isn't searched every time.
    """
    old = int(graph.opset)
    if old > _RUNS_UP_TO.get(because, old):
        return f"ONNX Runtime runs {because} up to opset {_RUNS_UP_TO[because]}, and this is {old}"
    if wanted <= old:
        return None
    if wanted > HIGHEST_OPSET:
        return f"{because} needs opset {wanted}, above {HIGHEST_OPSET}, the newest written here"
    if graph.functions:
        return f"{because} needs opset {wanted}; the model's own functions are written for {old}"
    leaving = {id(node) for node in without}
    known = {} if in_the_way is None else in_the_way
    first = known.get(wanted)
    # a node that was removed since has no outputs left
    if first is not None and first.outputs and id(first) not in leaving:
        obstacle = _obstacle(first, old, wanted)
        if obstacle is not None:
            return f"{because} needs opset {wanted}; {obstacle}"
    nodes = [node for node in _all_nodes(graph) if id(node) not in leaving and _is_onnx(node)]
    for node in nodes:
        obstacle = _obstacle(node, old, wanted)
        if obstacle is not None:
            known[wanted] = node
            return f"{because} needs opset {wanted}; {obstacle}"
    for node in nodes:
        write_for(node, wanted, old)
    others = [entry for entry in graph.import_domains or () if entry.domain not in _ONNX]
    for part in _all_graphs(graph):
        part.opset = wanted
        part.import_domains = [onnx.helper.make_opsetid("", wanted), *others]
    return None


def _obstacle(node: gs.Node, old: int, new: int) -> str | None:
    """Why the node would compute something else at the newer opset; None when it wouldn't."""
    version = _version(node.op, old)
    if not version:
        return f"{label(node)!r} is no operator of opset {old}"
    if version == _version(node.op, new):
        return None
    if version >= _SAME_SINCE.get(node.op, new + 1) and not _unlike_itself(node):
        return None
    if node.op in _AXES_MOVED_AT and node.attrs.get("axes") != []:
        return None
    # 11 reads everything after `axis` as one row; along the last axis that is what 13 computes
    if node.op in ("Softmax", "LogSoftmax", "Hardmax") and _over_the_last_axis(node):
        return None
    if node.op == "Split" and version >= 2:
        return None
    if node.op == "Resize" and _resizes_alike(node, version, new):
        return None
    if node.op in _NOT_RUN_FROM_22 and version == _version(node.op, 21):
        return f"ONNX Runtime doesn't run {label(node)!r} from opset 22 on"
    changed_at = next(v for v in range(old + 1, new + 1) if _version(node.op, v) != version)
    return f"{label(node)!r} would change its meaning at opset {changed_at}"


def _unlike_itself(node: gs.Node) -> bool:
    """Whether the node is in a mode that did change: BatchNormalization in training, AveragePool
    with ceil_mode (the size of border windows was settled at 19)."""
    if node.op == "BatchNormalization":
        return len(node.outputs) > 1
    return bool(node.op == "AveragePool" and node.attrs.get("ceil_mode", 0))


def _over_the_last_axis(node: gs.Node) -> bool:
    dims = rank(node.inputs[0])
    return dims is not None and int(node.attrs.get("axis", 1)) % max(dims, 1) == dims - 1


def _resizes_alike(node: gs.Node, version: int, new: int) -> bool:
    """13 dropped one mode and made inputs optional; 18 and 19 changed more than can be checked."""
    mode = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    return version >= 11 and new < 18 and mode != "tf_half_pixel_for_nn"


def write_for(node: gs.Node, new: int, old: int = 1) -> None:
    """Give a node in the form of the opset `old` (axes as an attribute) the form of `new`."""
    if old < _AXES_MOVED_AT.get(node.op, 0) <= new:
        _to_input(node, "axes")
    if node.op == "Split" and old < 13 <= new:
        _to_input(node, "split")
    if node.op == "Split" and old < 18 <= new and len(node.inputs) < 2:
        node.attrs["num_outputs"] = len(node.outputs)


def _to_input(node: gs.Node, attribute: str) -> None:
    values = node.attrs.pop(attribute, None)
    if values is not None:
        name = f"{node.outputs[0].name}/{node.op}_{attribute}"
        node.inputs.append(gs.Constant(name, np.asarray(values, np.int64)))


def _all_graphs(graph: gs.Graph) -> Iterator[gs.Graph]:
    yield graph
    for node in graph.nodes:
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                yield from _all_graphs(value)


def _all_nodes(graph: gs.Graph) -> Iterator[gs.Node]:
    for part in _all_graphs(graph):
        yield from part.nodes


def _is_onnx(node: gs.Node) -> bool:
    """Whether the node belongs to the default operator set, the one that is raised."""
    return (node.domain or "") in _ONNX


@cache
def _version(op: str, opset: int) -> int:
    """The operator's version in an opset; 0 where there is none, or only a deprecated one."""
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return 0
    return 0 if schema.deprecated else int(schema.since_version)
