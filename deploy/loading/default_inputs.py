"""Inputs that have a default: an initializer of the same name, as IR version 4 and newer allow."""

from __future__ import annotations

import onnx

IR_WITHOUT_WEIGHT_INPUTS = 4
_NAMED = 3


def default_inputs(proto: onnx.ModelProto) -> list[str]:
    """The names of those inputs; none where the file lists every weight among the inputs, as
    exporters did before IR version 4 and long after."""
    given = {tensor.name for tensor in proto.graph.initializer}
    listed = [value.name for value in proto.graph.input if value.name in given]
    every_weight = len(listed) == len(given) and len(given) > 1
    return [] if proto.ir_version < IR_WITHOUT_WEIGHT_INPUTS or every_weight else listed


def kept_default(names: list[str]) -> str:
    """What becomes of them, in a line."""
    named = ", ".join(repr(name) for name in names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    what = "input has a default and is" if len(names) == 1 else "inputs have defaults and are"
    return (
        f"{len(names)} {what} a constant of the engine from here on: {named}{more}; to feed one, "
        "delete its initializer from the model"
    )
