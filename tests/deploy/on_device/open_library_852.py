"""`python open_library_852.py SITE LIBRARY`: a plugin library that isn't linked with TensorRT, in
the process of a real TensorRT 8.5, whose wheel lies unpacked in SITE; prints JSON.

Of a process of its own, in the Python that the wheel is for.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]


def of(name: str) -> Any:
    """A module of deploy.on_device, without the rest of deploy, or numpy."""
    package = ModuleType("deploy")
    package.__path__ = [str(_ROOT / "deploy")]
    sys.modules.setdefault("deploy", package)
    return importlib.import_module("deploy.on_device." + name)


def main(site: Path, library: str) -> dict[str, Any]:
    sys.path.insert(0, str(_ROOT / "tests" / "plugins"))
    from in_registry import empty_libraries

    empty_libraries(["libcublas.so.11", "libcublasLt.so.11", "libcudnn.so.8"])
    # lazily, since CUDA's libraries are empty here
    sys.path.insert(0, str(site))
    sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_LOCAL)
    import tensorrt as trt

    try:
        ctypes.CDLL(library)
        before = "loaded"
    except OSError as error:
        before = str(error)
    trt_library = of("trt_library")
    trt_library.load_plugin_libraries(trt, trt_library.LogLines(trt), [library])
    creator = trt.get_plugin_registry().get_plugin_creator("ChannelShuffle", "1", "")
    found = [creator.name, creator.plugin_version] if creator else None
    return {"version": trt.__version__, "before": before, "creator": found}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
    sys.stdout.flush()
    os._exit(0)  # TensorRT's own clean-up isn't the subject, and it runs without its CUDA
