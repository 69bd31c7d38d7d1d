"""Operators that TensorRT's parser has, but not with these attributes or inputs.

Facts: docs/operators.md of onnx-tensorrt, column "Restrictions", 7583da4c (8.5) to TensorRT 10.15,
in which none of these was lifted.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_graphsurgeon as gs

from deploy.doctor.case import Case, Finding, labels, some
from deploy.surgery.graph import constant, is_output, rank

_MOST_TOP = 3840
_MODES = (
    *("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn"),
    *("asymmetric", "align_corners"),
)


def restrictions(case: Case) -> list[Finding]:
    """A finding per operator and reason."""
    if case.nvidia is None:
        return []
    refused: dict[tuple[str, str], list[gs.Node]] = {}
    for node in case.nodes:
        check = _CHECKS.get(node.op)
        reason = check(node) if check is not None else None
        if reason is not None:
            refused.setdefault((node.op, reason), []).append(node)
    return [
        Finding(
            "restrictions",
            "stop",
            f"{operator} ({some(labels(nodes))}) {reason}; export it another way",
            labels(nodes),
        )
        for (operator, reason), nodes in refused.items()
    ]


def _used(node: gs.Node, index: int) -> bool:
    if index >= len(node.outputs):
        return False
    tensor = node.outputs[index]
    return not tensor.is_empty() and bool(tensor.outputs or is_output(tensor))


def _pool(node: gs.Node) -> str | None:
    if node.op == "MaxPool" and _used(node, 1):
        return "gives its indices out, which TensorRT doesn't compute"
    if any(size != 1 for size in node.attrs.get("dilations", ())):
        return "is dilated, and TensorRT pools without"
    return None


def _resize(node: gs.Node) -> str | None:
    if node.attrs.get("mode", "nearest") == "cubic":
        return "is cubic; TensorRT has nearest and linear"
    if node.attrs.get("antialias", 0):
        return "filters (antialias), which TensorRT doesn't"
    way = node.attrs.get("coordinate_transformation_mode", "half_pixel")
    return None if way in _MODES else f"maps coordinates by {way!r}, which TensorRT doesn't know"


def _lstm(node: gs.Node) -> str | None:
    if int(node.attrs.get("layout", 0)) != 0:
        return "has the batch first (layout = 1)"
    return "couples its gates (input_forget = 1)" if node.attrs.get("input_forget", 0) else None


def _layer_norm(node: gs.Node) -> str | None:
    if _used(node, 1) or _used(node, 2):
        return "gives its mean or deviation out; TensorRT computes the first output only"
    return None


def _top_k(node: gs.Node) -> str | None:
    if not int(node.attrs.get("sorted", 1)):
        return "is unsorted (sorted = 0); TensorRT sorts"
    count = constant(node.inputs[1])
    if count is not None and count.size and int(count.reshape(-1)[0]) >= _MOST_TOP:
        return (
            f"asks for {int(count.reshape(-1)[0])} elements; TensorRT gives fewer than {_MOST_TOP}"
        )
    return None


def _scatter(node: gs.Node) -> str | None:
    how = node.attrs.get("reduction", "none")
    return None if how == "none" else f"reduces by {how!r}; TensorRT only replaces"


def _grid(node: gs.Node) -> str | None:
    dims = rank(node.inputs[0])
    return None if dims in (None, 4) else f"samples an input of rank {dims}; TensorRT takes 4"


def _cum_sum(node: gs.Node) -> str | None:
    return None if constant(node.inputs[1]) is not None else "computes its axis at run time"


_CHECKS: dict[str, Callable[[gs.Node], str | None]] = {
    "MaxPool": _pool,
    "AveragePool": _pool,
    "LpPool": _pool,
    "Resize": _resize,
    "LSTM": _lstm,
    "LayerNormalization": _layer_norm,
    "TopK": _top_k,
    "ScatterND": _scatter,
    "GridSample": _grid,
    "CumSum": _cum_sum,
}
