"""A `tensorrt` of a given version, with ONNX Runtime behind it: `make("8.5.2", gpu)`.

It has the names, values and parameters of that version's real bindings (`tensorrt_facts`) and does
what `deploy.on_device` has to cope with: parser errors, caches of another version, tensors without
a scale, engines of another GPU. It computes what the ONNX graph computes, rounded to the types
that the build chose; it is no statement on speed or on which layers real TensorRT fuses.
"""

from __future__ import annotations

from typing import Any

import tensorrt_facts

from doubles import (
    builder_double,
    config_double,
    network_double,
    parser_double,
    registry_double,
    runtime_double,
)
from doubles.gpu import Gpu
from doubles.surface import assemble

_SOURCES = (
    builder_double,
    config_double,
    network_double,
    parser_double,
    registry_double,
    runtime_double,
)


def make(version: str, gpu: Gpu | None = None) -> Any:
    """The module; "rtx-1.7.1" gives tensorrt_rtx. gpu: None for a machine without one."""
    known = tensorrt_facts.known(version)
    said = version if version.count(".") > 1 else known
    module = assemble(known, implementations(), said)
    module.__dict__["__version__"] = said.replace("rtx-", "")
    module._state["gpu"] = gpu or Gpu(devices=0)
    module._state["registry"] = module._own["IPluginRegistry"]._create()
    return module


def implementations() -> dict[str, type]:
    """What is written for any version, by the name of the class it gives behaviour to."""
    return {
        name: thing
        for source in _SOURCES
        for name, thing in vars(source).items()
        if isinstance(thing, type) and thing.__module__ == source.__name__
    }
