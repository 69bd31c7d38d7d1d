"""What NVIDIA's ONNX parser of TensorRT-RTX says of a model with our plugins: run by
test_tensorrt_parser.py, since the process ends where a plugin would join the network, which
TensorRT-RTX doesn't have.

    python in_parser.py LIBRARY MODEL
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from pathlib import Path
from typing import Any


def library_of_rtx() -> Path:
    """libtensorrt_rtx.so of the installed wheel."""
    libs = importlib.import_module("tensorrt_rtx_libs")
    return next(iter(Path(libs.__path__[0]).glob("libtensorrt_rtx.so*")))


def main(plugins: str, model: Path) -> None:
    ctypes.CDLL(str(library_of_rtx()), mode=ctypes.RTLD_GLOBAL)
    trt: Any = importlib.import_module("tensorrt_rtx_bindings")

    class Lines(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            print(severity.name, msg, flush=True)

    log = Lines()
    ctypes.CDLL(plugins)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parser.parse(model.read_bytes())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
