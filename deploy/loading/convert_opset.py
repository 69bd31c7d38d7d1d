"""A model of an old opset at the lowest one that quantizes per channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
import onnx.version_converter

from deploy.artifacts.model import copy_proto, graphs
from deploy.errors import ModelError, one_line

# per-channel QuantizeLinear/DequantizeLinear begin with 13
LOWEST_OPSET = 13
_ADVICE = "Export it with opset 13 or above"
# Scan took a batch, and the lengths of its sequences, in opset 8 alone
_BATCHED_SCAN = 8
# keeps ONNX's converter away from a node: it leaves operators of other domains as they are
_ASIDE = "onnx_deploy.aside"
_OTHER_FLOATS: dict[int, np.dtype] = {
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
}


def convert_opset(proto: onnx.ModelProto, version: int, name: str) -> onnx.ModelProto:
    """The model at LOWEST_OPSET; ModelError names what has no equal there."""
    try:
        converted = _converted(proto, version, name)
        _mend_bounds(converted, onnx.shape_inference.infer_shapes(proto))
    except (
        RuntimeError,
        ValueError,
        onnx.version_converter.ConvertError,
        onnx.shape_inference.InferenceError,
    ) as error:
        raise ModelError(
            f"{name}: opset {version} can't be converted to {LOWEST_OPSET}, the lowest that "
            f"quantizes per channel: {one_line(error, 160)}. {_ADVICE}"
        ) from None
    if not _same_interface(proto, converted):
        raise ModelError(
            f"{name}: opset {version} can't be converted to {LOWEST_OPSET}: the converter changes "
            f"the inputs. {_ADVICE}"
        )
    return converted


def _converted(proto: onnx.ModelProto, version: int, name: str) -> onnx.ModelProto:
    scans = [n for n in proto.graph.node if n.op_type == "Scan" and version == _BATCHED_SCAN]
    if not scans:
        return onnx.version_converter.convert_version(proto, LOWEST_OPSET)
    aside = copy_proto(proto)
    aside.opset_import.append(onnx.helper.make_opsetid(_ASIDE, 1))
    for node in aside.graph.node:
        if node.op_type == "Scan":
            _put_aside(node, name)
    converted = onnx.version_converter.convert_version(aside, LOWEST_OPSET)
    nested = iter([_nested(scan, name) for scan in scans])
    nodes = [next(nested) if n.domain == _ASIDE else n for n in converted.graph.node]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del converted.graph.node[:]
    converted.graph.node.extend(copies)
    kept = [entry for entry in converted.opset_import if entry.domain != _ASIDE]
    del converted.opset_import[:]
    converted.opset_import.extend(kept)
    return converted


def _mend_bounds(converted: onnx.ModelProto, original: onnx.ModelProto) -> None:
    """Finish what the converter leaves half done where attributes became inputs, in place.

    The bounds of Clip and the value of Pad are constants of float32 whatever the data is, which
    ONNX Runtime refuses for float16 and float64; and a Pad that repeats the data keeps its value
    as an attribute, which no later opset has.
    """
    described = [v for g in graphs(original.graph) for v in (*g.input, *g.value_info, *g.output)]
    types = {value.name: value.type.tensor_type.elem_type for value in described}
    types |= {w.name: w.data_type for g in graphs(original.graph) for w in g.initializer}
    types |= {
        out: node.attribute[0].t.data_type
        for node in original.graph.node
        if node.op_type == "Constant"
        for out in node.output
    }
    for graph in graphs(converted.graph):
        made = {n.output[0]: n for n in graph.node if n.op_type == "Constant"}
        for node in graph.node:
            if node.op_type not in ("Clip", "Pad"):
                continue
            bounds = [made[name] for name in node.input[1:] if name in made]
            for bound in bounds:
                _retype(bound, types.get(node.input[0], onnx.TensorProto.FLOAT))
            for index, attribute in reversed(list(enumerate(node.attribute))):
                if (node.op_type, attribute.name) == ("Pad", "value"):
                    del node.attribute[index]


def _retype(bound: onnx.NodeProto, wanted: int) -> None:
    """Give a float32 constant another float type."""
    tensor = bound.attribute[0].t
    dtype = _OTHER_FLOATS.get(wanted)
    if tensor.data_type != onnx.TensorProto.FLOAT or dtype is None:
        return
    with np.errstate(over="ignore"):  # the lowest float32, which means no bound
        values = onnx.numpy_helper.to_array(tensor).astype(dtype)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


def _put_aside(node: onnx.NodeProto, name: str) -> None:
    """Make a batched Scan an operator that the converter doesn't know."""
    if node.input[0]:
        raise ModelError(
            f"{name}: {node.name or node.output[0]!r} is a Scan of opset 8 with the lengths of its "
            f"sequences, {node.input[0]!r}, which no later opset has. {_ADVICE}"
        )
    node.domain = _ASIDE
    del node.input[0], node.attribute[:]


def _nested(scan: onnx.NodeProto, name: str) -> onnx.NodeProto:
    """A Scan over the batch around the Scan over the sequence, which is what a batched Scan does.

    States of shape [batch, …] are cut along the batch like the sequences [batch, steps, …]: every
    sample has its own, and what it ends with is stacked again.
    """
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in scan.attribute}
    body, count = attributes["body"], attributes["num_scan_inputs"]
    states = len(body.input) - count
    outer = f"{scan.output[0]}/sample"
    takes = [f"{outer}/{v.name}" for v in body.input]
    gives = [f"{outer}/{v.name}" for v in body.output]
    inner = onnx.helper.make_node(
        "Scan",
        takes,
        gives,
        name=outer,
        body=_converted_body(body, name),
        num_scan_inputs=count,
        scan_input_directions=attributes.get("directions", [0] * count),
    )
    sample = onnx.helper.make_graph(
        [inner],
        outer,
        _values(takes, body.input, states),
        _values(gives, body.output, states),
    )
    return onnx.helper.make_node(
        "Scan",
        scan.input[1:],
        scan.output,
        name=scan.name,
        body=sample,
        num_scan_inputs=len(takes),
    )


def _converted_body(body: onnx.GraphProto, name: str) -> onnx.GraphProto:
    opset = [onnx.helper.make_opsetid("", _BATCHED_SCAN)]
    model = onnx.helper.make_model(body, opset_imports=opset, ir_version=3)
    return convert_opset(model, _BATCHED_SCAN, name).graph


def _values(
    names: Sequence[str], values: Sequence[onnx.ValueInfoProto], states: int
) -> list[onnx.ValueInfoProto]:
    """The body's values as those of a whole sample: behind the states, one more axis in front."""
    found = []
    for index, (own, value) in enumerate(zip(names, values, strict=True)):
        tensor = value.type.tensor_type
        shape = [d.dim_value or d.dim_param or None for d in tensor.shape.dim]
        steps = [] if index < states else [None]
        known = [*steps, *shape] if tensor.HasField("shape") else None
        found.append(onnx.helper.make_tensor_value_info(own, tensor.elem_type, known))
    return found


def _same_interface(proto: onnx.ModelProto, converted: onnx.ModelProto) -> bool:
    """The same inputs, of the same rank and type: the converter has been seen to drop the batch."""

    def described(model: onnx.ModelProto) -> list[tuple[str, int, int]]:
        tensors = ((v.name, v.type.tensor_type) for v in model.graph.input)
        return [(name, tensor.elem_type, len(tensor.shape.dim)) for name, tensor in tensors]

    return described(proto) == described(converted)
