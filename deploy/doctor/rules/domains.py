"""Operators that aren't ONNX's own: plugins of ours, and those of one runtime only."""

from __future__ import annotations

from collections import Counter

from deploy.doctor.case import Case, Finding, labels, some
from deploy.plugin.ops import op_types, plugin_nodes

_ONNX = (None, "", "ai.onnx")


def domains(case: Case) -> list[Finding]:
    """What becomes of plugin operators, and what the vendor's parser has never heard of."""
    return [*_plugins(case), *_foreign(case), *_functions(case)]


def _plugins(case: Case) -> list[Finding]:
    counts = Counter(node.op_type for node in plugin_nodes(case.raw))
    kernels = case.nvidia.plugins if case.nvidia else ()
    found = []
    for operator, count in counts.items():
        kernel = op_types().get(operator) in kernels
        said = (
            "this device may use its kernel"
            if kernel
            else "this device has no kernel of it, so it is written out in standard operators"
        )
        found.append(Finding("domains", "note", f"plugin {operator} ({count}): {said}"))
    return found


def _foreign(case: Case) -> list[Finding]:
    own = {(f.domain, f.name) for f in case.fused.proto.functions}
    foreign = [n for n in case.nodes if n.domain not in _ONNX and (n.domain, n.op) not in own]
    found = []
    for operator, domain in dict.fromkeys((n.op, n.domain) for n in foreign):
        nodes = [n for n in foreign if (n.op, n.domain) == (operator, domain)]
        found.append(
            Finding(
                "domains",
                "stop" if case.nvidia else "warning",
                f"{operator} of domain {domain} ({some(labels(nodes))}) is no ONNX operator, and "
                f"{case.library()} has none of that name; export the model without that "
                "runtime's own operators",
                labels(nodes),
            )
        )
    return found


def _functions(case: Case) -> list[Finding]:
    """TensorRT reads model-local functions from 9.0 on (onnx-tensorrt, docs/Changelog.md)."""
    names = tuple(f.name for f in case.fused.proto.functions)
    if not names or case.nvidia is None or case.nvidia.library != "tensorrt":
        return []
    if case.nvidia.version[0] >= 9:
        return []
    text = f"the model's own functions ({some(names)}) are read from TensorRT 9 on; inline them"
    return [Finding("domains", "stop", text, names)]
