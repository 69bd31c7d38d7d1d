"""Doubles of TensorRT, pycuda and cuda-python, for machines without an NVIDIA GPU.

with installed("8.5.2", sm=72) as here:
    ...                      # import tensorrt, pycuda.driver: the doubles
    here.trt, here.gpu       # the module and the GPU behind it
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doubles.cuda_python_double import make_cuda_python
from doubles.gpu import Gpu, GpuFault
from doubles.pycuda_double import make_pycuda
from doubles.registry_double import LIBRARY, plugin_library
from doubles.tensorrt_double import make

__all__ = ["Gpu", "GpuFault", "Installed", "installed", "make", "plugin_library"]
_PARTS = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda", "cuda")


class Installed:
    """trt: the module of TensorRT; gpu: what it runs on."""

    def __init__(self, trt: Any, gpu: Gpu) -> None:
        self.trt, self.gpu = trt, gpu


@contextlib.contextmanager
def installed(
    version: str = "8.5.2",
    sm: int = 72,
    memory: str = "pycuda",
    *,
    gpu: Gpu | None = None,
    leaks: bool = True,
) -> Iterator[Installed]:
    """The doubles in sys.modules. memory: pycuda, cuda-python, or cudart for its older name; ""
    for neither. leaks: AssertionError at the end if GPU memory or a stream is still held."""
    gpu = gpu or Gpu(sm)
    trt = make(version, gpu)
    modules = {trt.__name__: trt}
    if memory == "pycuda":
        modules.update(make_pycuda(gpu))
    elif memory in ("cuda-python", "cudart"):
        modules.update(make_cuda_python(gpu, old=memory == "cudart"))
    elif memory:
        raise ValueError(f"memory = {memory!r}; pycuda, cuda-python, cudart or the empty string")
    before = {k: m for k, m in sys.modules.items() if k.split(".")[0] in _PARTS}
    for name in before:
        del sys.modules[name]
    # what isn't doubled isn't there, even if this machine has it
    absent = {name: None for name in _PARTS if name not in modules}
    sys.modules.update({**modules, **absent})  # type: ignore[dict-item]
    library, ctypes.CDLL = ctypes.CDLL, _plugins_too(trt, ctypes.CDLL)  # type: ignore[misc]
    try:
        yield Installed(trt, gpu)
        if leaks and gpu.leaks():
            gc.collect()  # what pycuda frees with the last reference
            assert not gpu.leaks(), f"still held on the GPU: {'; '.join(gpu.leaks())}"
    finally:
        ctypes.CDLL = library  # type: ignore[misc]
        for name in [k for k in sys.modules if k.split(".")[0] in _PARTS]:
            del sys.modules[name]
        sys.modules.update(before)


def _plugins_too(trt: Any, real: Any) -> Any:
    """ctypes.CDLL that also takes what `plugin_library` writes."""

    def load(name: Any, *args: Any, **kwargs: Any) -> Any:
        path = Path(str(name))
        content = path.read_bytes() if name and path.is_file() else b""
        if not content.startswith(LIBRARY):
            return real(name, *args, **kwargs)
        about = json.loads(content[len(LIBRARY) :])
        loaded = _Library()
        if about["listed"]:
            loaded.getCreators = print  # looked for, not called from here
        else:
            trt._state["registry"]._register(about)
        return loaded

    return load


class _Library:
    """What CDLL gives for a file of `plugin_library`."""

    getCreators: Any  # noqa: N815, exported by a library that load_library takes
