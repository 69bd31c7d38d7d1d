"""Element types that the target's release computes in another type, or not at all.

TensorRT 8 has float32, float16, int32, int8, bool, and uint8 at inputs and outputs; int64 and
double are narrowed (onnx-tensorrt 7583da4c, docs/operators.md). From 9.0 on there are int64 and
bfloat16 (its changelog), which needs compute capability 8.0, and float8, which needs 8.9.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from deploy.doctor.case import Case, Finding, Level, some
from deploy.nvidia.settings import Nvidia
from deploy.surgery.graph import constant

_NEVER = ("int16", "uint16", "uint32", "uint64", "string", "complex64", "complex128")
_INT32 = np.iinfo(np.int32)


def types(case: Case) -> list[Finding]:
    """A finding per type."""
    if case.nvidia is None:
        return []
    by_type: dict[str, list[str]] = {}
    for tensor in _tensors(case):
        by_type.setdefault(_name(tensor), []).append(tensor.name)
    found = []
    for kind, names in by_type.items():
        level, said = _said(kind, case.nvidia, case)
        if level is not None:
            text = f"{kind}{_at(kind)} ({some(names)}): {said}"
            found.append(Finding("types", level, text, tuple(names)))
    return found + _integers(case) + _zero_points(case)


def _tensors(case: Case) -> Iterator[gs.Tensor]:
    seen = set()
    for node in case.nodes:
        for tensor in (*node.inputs, *node.outputs):
            if id(tensor) not in seen and not tensor.is_empty():
                seen.add(id(tensor))
                yield tensor


def _name(tensor: gs.Tensor) -> str:
    kind = tensor.dtype
    if isinstance(kind, int):
        return str(onnx.TensorProto.DataType.Name(kind)).lower()
    if kind is None:
        return "unknown"
    return "string" if np.dtype(kind).kind in "OUS" else np.dtype(kind).name


def _at(kind: str) -> str:
    return " values" if kind not in ("unknown",) else ""


def _said(kind: str, nvidia: Nvidia, case: Case) -> tuple[Level | None, str]:
    """How bad the type is, and why."""
    eight = nvidia.library == "tensorrt" and nvidia.version[0] == 8
    if kind in _NEVER:
        return "stop", f"{case.library()} has no such type; cast them in the exported model"
    if kind == "float64":
        return "warning", "computed in float32, values beyond its range are clamped"
    if kind == "bfloat16" and (eight or nvidia.sm < 80):
        why = case.library() if eight else f"compute capability {nvidia.compute_capability}"
        return "stop", f"not on {why}; export the model in float32"
    if kind.startswith("float8") and (eight or nvidia.sm < 89):
        return "stop", f"not on compute capability {nvidia.compute_capability}; it begins with 8.9"
    return None, ""


def _integers(case: Case) -> list[Finding]:
    """int64 in TensorRT 8, which has int32 only; uint8 away from inputs and outputs."""
    nvidia = case.nvidia
    found = []
    if nvidia is not None and nvidia.library == "tensorrt" and nvidia.version[0] == 8:
        ports = [t.name for t in (*case.graph.inputs, *case.graph.outputs) if t.dtype == np.int64]
        if ports:
            text = f"int64 at {some(ports)}: TensorRT 8 gives and takes int32 there"
            found.append(Finding("types", "warning", text, tuple(ports)))
        beyond = tuple(t.name for t in _tensors(case) if _loses(t))
        if beyond:
            text = (
                f"int64 constants beyond int32 ({some(beyond)}): TensorRT 8 clamps them to "
                f"{_INT32.max}"
            )
            found.append(Finding("types", "warning", text, beyond))
    ends = {id(t) for t in (*case.graph.inputs, *case.graph.outputs)}
    inner = tuple(
        t.name
        for t in _tensors(case)
        if t.dtype == np.uint8 and id(t) not in ends and not _of_qdq(t)
    )
    if inner:
        text = f"uint8 values ({some(inner)}): TensorRT has them at inputs and outputs only"
        found.append(Finding("types", "stop", text, inner))
    return found


def _loses(tensor: gs.Tensor) -> bool:
    """Whether int32 can't hold a constant; the end of a Slice may be as large as it likes."""
    values = constant(tensor)
    if values is None or values.dtype != np.int64 or not values.size:
        return False
    if all(node.op == "Slice" for node in tensor.outputs):
        return False
    return bool(values.max() > _INT32.max or values.min() < _INT32.min)


def _of_qdq(tensor: gs.Tensor) -> bool:
    around = (*tensor.inputs, *tensor.outputs)
    return any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in around)


def _zero_points(case: Case) -> list[Finding]:
    """Q/DQ that the model brings along: TensorRT wants int8 and zero points of 0."""
    wrong = [
        node
        for node in case.nodes
        if node.op in ("QuantizeLinear", "DequantizeLinear")
        and len(node.inputs) > 2
        and not node.inputs[2].is_empty()
        and ((constant(node.inputs[2]) is None) or np.any(constant(node.inputs[2]) != 0))
    ]
    if not wrong:
        return []
    names = tuple(node.outputs[0].name for node in wrong)
    text = (
        f"Q/DQ with zero points other than 0 ({some(names)}): {case.library()} takes symmetric "
        "int8 only; give the float model and let the build quantize it"
    )
    return [Finding("types", "stop", text, names)]
