"""A serialized engine, read by the TensorRT that is here."""

from __future__ import annotations

from typing import Any

from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_library import last_errors, version_text


def read_engine(
    trt: Any, log: Any, runtime: Any, content: bytes, dla_core: int | None, host_code: bool
) -> Any:
    """The engine for this GPU; DeviceError when it is of another one or another TensorRT."""
    if dla_core is not None:
        runtime.DLA_core = dla_core
    if host_code and hasattr(runtime, "engine_host_code_allowed"):
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise DeviceError(
            "{} can't load the engine: {}; build it again on this machine, with this TensorRT and "
            "its plugins".format(version_text(trt), last_errors(log, "it gives no reason"))
        )
    return engine
