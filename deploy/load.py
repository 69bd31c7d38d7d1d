"""From an ONNX file to a checked model with shapes, or an error that names what is wrong."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import google.protobuf.message
import onnx
import onnx.checker
import onnx.shape_inference

from deploy.artifacts.model import Decision, Model, copy_proto, graphs, tensor_spec
from deploy.errors import ModelError, nearest, one_line
from deploy.loading.convert_opset import LOWEST_OPSET, convert_opset
from deploy.loading.default_inputs import IR_WITHOUT_WEIGHT_INPUTS, default_inputs, kept_default
from deploy.loading.external_data import embed_external_data
from deploy.loading.shapes import apply_shapes
from deploy.loading.weights import check_weights
from deploy.plugin.ops import expand_plugins

_IR_EVERYWHERE = 10
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


def read(path: Path) -> Model:
    """The file as it is, external data embedded: what parity will compare against."""
    if not path.exists():
        siblings = [p.name for p in path.parent.glob("*.onnx")] if path.parent.is_dir() else []
        raise ModelError(f"{path}: no such file{nearest(path.name, siblings)}; check the path")
    if not path.is_file():
        raise ModelError(f"{path}: not a file; give the .onnx file itself")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; make the file readable") from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except google.protobuf.message.DecodeError:
        raise ModelError(
            f"{path}: {_looks_like(content)}; export or download the model again"
        ) from None
    if not proto.opset_import or not proto.graph.node:
        what = "an ONNX file without nodes" if proto.opset_import else _looks_like(content)
        raise ModelError(f"{path}: {what}; export or download the model again")
    embed_external_data(proto, path)
    # newer than most runtimes take, and only a label where the opset needs no more
    needed = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    proto.ir_version = min(proto.ir_version, max(needed, _IR_EVERYWHERE))
    return Model(expand_plugins(proto, path.name), path.stem)


def load(source: Model, shapes: Mapping[str, tuple[int | None, ...]] | None = None) -> Model:
    """The model checked, sorted, at opset 13 or above, with all shapes inferred.

    ModelError names the first thing that can't be taken. Symbolic dimensions other than the batch
    need an entry in `shapes`, where None keeps a dimension dynamic. Sequences and optional values
    may go in and out here, and through simplify and fuse; no engine takes them, so whatever runs
    the model refuses them by name.
    """
    proto = copy_proto(source.proto)
    decisions: list[Decision] = []
    if not proto.graph.output:
        raise ModelError(f"{source.name}: the graph has no outputs; export the model again")
    _check_domains(proto, source.name)
    _check_opset(proto, source.name)
    defaults = default_inputs(proto)
    if _keep_real_inputs(proto):
        reason = "weights listed among the inputs, as before IR version 4, are constants"
        decisions.append(
            _note("inputs", source.name, kept_default(defaults) if defaults else reason)
        )
    if _sort(proto, source.name):
        decisions.append(_note("sort", source.name, "nodes were not in topological order"))
    check_weights(proto, source.name)
    _check(proto, source.name)
    proto = _convert(proto, source.name, decisions)
    apply_shapes(proto, shapes or {}, source.name)
    _spell_out_axes(proto)
    proto = _infer(proto, source.name)
    for value in (*proto.graph.input, *proto.graph.output):
        if value.type.HasField("tensor_type"):
            tensor_spec(value, any_rank=True)  # names what has no known element type
    return source.derive(proto, decisions)


def _looks_like(content: bytes) -> str:
    if not content:
        return "an empty file, not ONNX"
    if content[:4] == b"PK\x03\x04":
        return "a zip archive (a PyTorch checkpoint?), not ONNX"
    if content[:1] in (b"<", b"{") or content[:7] == b"version":
        return "a text file (a Git LFS pointer or a web page?), not ONNX"
    return f"{len(content)} bytes that are not ONNX, or a truncated ONNX file"


def _note(rule: str, subject: str, reason: str) -> Decision:
    return Decision("load", rule, "applied", subject, reason)


def _check_domains(proto: onnx.ModelProto, name: str) -> None:
    own = {(f.domain, f.name) for f in proto.functions}
    for graph in graphs(proto.graph):
        for node in graph.node:
            if node.domain in _KNOWN_DOMAINS or (node.domain, node.op_type) in own:
                continue
            raise ModelError(
                f"{name}: node {_label(node)} is {node.op_type} of domain {node.domain!r}, which "
                "nothing here can run; export it with standard ONNX operators or as a model-local "
                "function"
            )


def _check_opset(proto: onnx.ModelProto, name: str) -> None:
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and not 1 <= entry.version <= newest:
            raise ModelError(
                f"{name}: opset {entry.version}; this onnx-deploy knows 1 to {newest}. Export "
                "with an opset in that range, 17 runs everywhere"
            )
    if any(e.domain in ("", "ai.onnx") for e in proto.opset_import):
        return
    nodes = (node for graph in graphs(proto.graph) for node in graph.node)
    if any(node.domain in ("", "ai.onnx") for node in nodes):
        raise ModelError(
            f"{name}: no version of the default operator set is given; export it again"
        )
    # nothing needs one yet, but what quantize adds will
    proto.opset_import.append(onnx.helper.make_opsetid("", LOWEST_OPSET))
    lowest_ir = onnx.helper.find_min_ir_version_for(proto.opset_import, ignore_unknown=True)
    proto.ir_version = max(proto.ir_version, lowest_ir)


def _keep_real_inputs(proto: onnx.ModelProto) -> bool:
    """Take weights off the list of inputs, where old exporters had to put them."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in weights]
    proto.ir_version = max(proto.ir_version, IR_WITHOUT_WEIGHT_INPUTS)
    if len(kept) == len(proto.graph.input):
        return False
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del proto.graph.input[:]
    proto.graph.input.extend(copies)
    return True


def _sort(proto: onnx.ModelProto, name: str) -> bool:
    """Put nodes in topological order; False if they were. ModelError names a cycle."""
    nodes = list(proto.graph.node)
    makers: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for out in filter(None, node.output):
            if out in makers:
                raise ModelError(
                    f"{name}: value {out!r} is made by two nodes, {_label(nodes[makers[out]])} and "
                    f"{_label(node)}; export the model again"
                )
            makers[out] = index
    needs = [{makers[name] for name in _reads(node) if name in makers} for node in nodes]
    readers: dict[int, list[int]] = defaultdict(list)
    for index, wanted in enumerate(needs):
        for maker in wanted:
            readers[maker].append(index)
    if all(max(wanted, default=-1) < index for index, wanted in enumerate(needs)):
        return False
    missing = [len(wanted) for wanted in needs]
    ready = [index for index, count in enumerate(missing) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)  # the exporter's order among those that can go next
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(order) < len(nodes):
        stuck = nodes[next(index for index, count in enumerate(missing) if count > 0)]
        raise ModelError(
            f"{name}: the graph has a cycle through {_label(stuck)}; a node's input "
            "depends on its own output. Export the model again"
        )
    in_order = [onnx.NodeProto.FromString(nodes[i].SerializeToString()) for i in order]
    del proto.graph.node[:]
    proto.graph.node.extend(in_order)
    return True


def _reads(node: onnx.NodeProto) -> set[str]:
    """Every value a node needs, those its subgraphs take from outside included."""
    names = set(node.input)
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else []
        for body in [*bodies, *attribute.graphs]:
            for inner in body.node:
                names |= _reads(inner)
    return names


def _check(proto: onnx.ModelProto, name: str) -> None:
    try:
        onnx.checker.check_model(proto, full_check=False)
    except (onnx.checker.ValidationError, ValueError) as error:
        text = one_line(error)
        if "No Op registered" in text:
            op = text.split("No Op registered for ")[1].split()[0]
            known = {s.name for s in onnx.defs.get_all_schemas()}
            raise ModelError(
                f"{name}: unknown operator {op!r}{nearest(op, known)} at opset "
                f"{_default_opset(proto)}; export it with standard ONNX operators"
            ) from None
        text = text.removesuffix(".")
        raise ModelError(
            f"{name}: the ONNX checker refuses it: {text}; export the model again"
        ) from None


def _default_opset(proto: onnx.ModelProto) -> int:
    return int(next(e.version for e in proto.opset_import if e.domain in ("", "ai.onnx")))


def _convert(proto: onnx.ModelProto, name: str, decisions: list[Decision]) -> onnx.ModelProto:
    version = _default_opset(proto)
    if version >= LOWEST_OPSET:
        return proto
    converted = convert_opset(proto, version, name)
    reason = f"opset {version} -> {LOWEST_OPSET}, the lowest that quantizes per channel"
    decisions.append(_note("convert_opset", name, reason))
    return converted


def _spell_out_axes(proto: onnx.ModelProto) -> None:
    """Write down the axes of MeanVarianceNormalization where they are left to the default, which
    ONNX's own shape inference forgets in the operator's function body."""
    for graph in graphs(proto.graph):
        for node in graph.node:
            if node.op_type == "MeanVarianceNormalization" and not node.attribute:
                node.attribute.append(onnx.helper.make_attribute("axes", [0, 2, 3]))


def _infer(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(
            f"{name}: shapes don't fit together: {one_line(error)}; if --shape was given, check it"
        ) from None


def _label(node: onnx.NodeProto) -> str:
    return repr(node.name or f"{node.op_type} -> {node.output[0] if node.output else '?'}")
