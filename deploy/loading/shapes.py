"""Input shapes as the user fixes them: `--shape name=1,3,224,224`."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from deploy.artifacts.model import TensorSpec, tensor_spec
from deploy.errors import ModelError, RecipeError, nearest

Shapes = Mapping[str, tuple[int | None, ...]]


def apply_shapes(proto: onnx.ModelProto, shapes: Shapes, name: str) -> None:
    """Write the shapes into the graph's inputs, in place.

    The first dimension may stay symbolic, it is the batch; another one needs an entry in `shapes`
    (None there keeps it dynamic on purpose), else ModelError.
    """
    weights = {i.name for i in proto.graph.initializer}
    inputs = {
        v.name: v for v in proto.graph.input if v.name not in weights and not _is_no_tensor(v)
    }
    for given in shapes:
        if given not in inputs:
            raise RecipeError(
                f"--shape names input {given!r}{nearest(given, inputs)}; {name} has: "
                f"{', '.join(inputs)}"
            )
    changed = False
    for value in inputs.values():
        spec = tensor_spec(value)
        if value.name in shapes:
            changed |= _fix(value, spec, shapes[value.name])
        elif None in spec.shape[1:]:
            example = ",".join(str(d or "?") for d in (spec.shape[0] or 1, *spec.shape[1:]))
            raise ModelError(
                f"{name}: input {spec} has a dynamic dimension besides the batch; give its size: "
                f"--shape {spec.name}={example} (a ? left in place keeps it dynamic)"
            )
    if changed:
        # shapes inferred for other inputs would contradict the new ones
        del proto.graph.value_info[:]
        produced = {o for n in proto.graph.node for o in n.output}
        for out in proto.graph.output:
            if out.name in produced and out.type.HasField("tensor_type"):
                _forget_sizes(out)


def _is_no_tensor(value: onnx.ValueInfoProto) -> bool:
    """Whether a value is a sequence, an optional one or a map, which has no shape to fix."""
    return value.type.WhichOneof("value") not in (None, "tensor_type")


def _fix(value: onnx.ValueInfoProto, spec: TensorSpec, wanted: tuple[int | None, ...]) -> bool:
    if len(wanted) != len(spec.shape):
        raise RecipeError(f"--shape {value.name} has {len(wanted)} dimensions; the input is {spec}")
    dims = value.type.tensor_type.shape.dim
    changed = False
    for axis, (size, old) in enumerate(zip(wanted, spec.shape, strict=True)):
        if size is not None and size < 1:
            raise RecipeError(f"--shape {value.name}: dimension {axis} is {size}; sizes start at 1")
        if old is not None and size not in (None, old):
            raise RecipeError(
                f"--shape {value.name}: dimension {axis} is {size}; the model fixes it at {old}"
            )
        if size is not None and old is None:
            dims[axis].Clear()
            dims[axis].dim_value = size
            changed = True
        elif old is None and not dims[axis].dim_param:
            dims[axis].Clear()
            dims[axis].dim_param = f"{value.name}_{axis}"
    return changed


def _forget_sizes(value: onnx.ValueInfoProto) -> None:
    for dim in value.type.tensor_type.shape.dim:
        dim.Clear()
