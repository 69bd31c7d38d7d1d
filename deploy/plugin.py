"""Custom ops of the domain `onnx_deploy`, one folder each under `plugins/`.

A plugin's `op.py` gives `EXPANSION` (the op as a function of standard ONNX operators),
`infer_shape` and `run` (the NumPy truth). Where a target has no kernel of it, the expansion runs.
"""

from __future__ import annotations

import onnx
import onnx.inliner
import onnx.parser

from deploy import registry
from deploy.artifacts.model import copy_proto
from deploy.errors import ModelError, nearest

DOMAIN = "onnx_deploy"


def op_types() -> dict[str, str]:
    """Folder name by ONNX operator name: `channel_shuffle` is the op `ChannelShuffle`."""
    folders = registry.names("plugin")
    return {"".join(part.capitalize() for part in name.split("_")): name for name in folders}


def expand_plugins(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The model with every plugin op spelled out in standard operators; itself if it has none.

    ModelError for an op of the domain that no folder has.
    """
    used = {node.op_type for node in proto.graph.node if node.domain == DOMAIN}
    if not used:
        return proto
    known = op_types()
    expanded = copy_proto(proto)
    for op_type in sorted(used):
        if op_type not in known:
            raise ModelError(
                f"{name}: unknown plugin op {op_type!r}{nearest(op_type, known)}; there are: "
                f"{', '.join(known)}"
            )
        plugin = registry.module("plugin", known[op_type])
        expanded.functions.append(onnx.parser.parse_function(plugin.EXPANSION))
    if not any(entry.domain == DOMAIN for entry in expanded.opset_import):
        expanded.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return onnx.inliner.inline_local_functions(expanded, convert_version=True)
