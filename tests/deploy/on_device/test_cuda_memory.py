"""Memory of a double of the GPU, through each of the modules it may be reached by."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from doubles.cuda_python_double import make_cuda_python
from doubles.gpu import Gpu
from doubles.pycuda_double import make_pycuda

from deploy.on_device.cuda_memory import DeviceMemory, open_device_memory
from deploy.on_device.device_error import DeviceError, MissingLibraryError, NoDeviceError

WAYS = ["pycuda", "cuda-python", "cuda-python before 12.8"]


def modules(way: str, gpu: Gpu) -> dict[str, ModuleType]:
    return make_pycuda(gpu) if way == "pycuda" else make_cuda_python(gpu, old="before" in way)


def only(patch: pytest.MonkeyPatch, found: dict[str, ModuleType]) -> None:
    """Nothing but these modules of CUDA can be imported."""
    for name in [n for n in sys.modules if n.split(".")[0] in ("cuda", "pycuda")]:
        patch.delitem(sys.modules, name)
    for name in ("pycuda", "cuda"):
        patch.setitem(sys.modules, name, None)
    for name, module in found.items():
        patch.setitem(sys.modules, name, module)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gpu() -> Gpu:
    return Gpu(sm=87, name="Orin", driver=12060, runtime=12060)


@pytest.fixture
def memory(way: str, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceMemory]:
    only(monkeypatch, modules(way, gpu))
    opened = open_device_memory()
    yield opened
    opened.close()
    assert gpu.leaks() == []


def test_there_and_back(memory: DeviceMemory) -> None:
    x = np.arange(12, dtype="f4").reshape(3, 4)
    address = memory.alloc(x.nbytes)
    memory.copy_in(address, x)
    back = np.empty_like(x)
    memory.copy_out(back, address)
    memory.free(address)
    assert np.array_equal(back, x)


@pytest.mark.parametrize("shape", [(0, 4), ()])
def test_nothing_and_a_scalar(memory: DeviceMemory, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 7, "f4")
    address = memory.alloc(x.nbytes)
    memory.copy_in(address, x)
    back = np.zeros_like(x)
    memory.copy_out(back, address)
    memory.free(address)
    assert np.array_equal(back, x)


def test_waiting_runs_what_lies_on_the_stream(memory: DeviceMemory, gpu: Gpu) -> None:
    done: list[str] = []
    stream = memory.stream()
    gpu.put(stream, lambda: done.append("work"))
    assert done == []
    memory.synchronize(stream)
    memory.end_stream(stream)
    assert done == ["work"]


def test_events_tell_the_gpus_time(memory: DeviceMemory, gpu: Gpu) -> None:
    stream, first, last = memory.stream(), memory.event(), memory.event()
    memory.record(first, stream)
    gpu.put(stream, lambda: setattr(gpu, "clock_ms", gpu.clock_ms + 1.5))
    memory.record(last, stream)
    with pytest.raises(DeviceError, match=r"device not ready|cudaErrorNotReady"):
        memory.elapsed_ms(first, last)
    memory.synchronize(stream)
    assert memory.elapsed_ms(first, last) == 1.5
    for event in (first, last):
        memory.end_event(event)
    memory.end_stream(stream)


def test_facts(memory: DeviceMemory) -> None:
    assert memory.device_name() == "Orin"
    assert memory.compute_capability() == "8.7"
    assert memory.cuda_versions() == {"driver": "12.6", "runtime": "12.6"}


def test_pycudas_context_is_current_only_while_open(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_pycuda(gpu)
    only(monkeypatch, found)
    current = found["pycuda.driver"].Context.get_current
    memory = open_device_memory()
    assert current() is not None
    memory.close()
    assert current() is None


def test_closing_twice_does_no_harm(memory: DeviceMemory) -> None:
    memory.close()


def test_too_much(memory: DeviceMemory) -> None:
    with pytest.raises(DeviceError, match=f"the GPU has no {1 << 40} bytes left"):
        memory.alloc(1 << 40)


def test_no_gpu(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, modules(way, Gpu(devices=0)))
    with pytest.raises(NoDeviceError, match="no NVIDIA GPU here: "):
        open_device_memory()


class Unloadable:
    """An import hook: a module that ends in an error of its own."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name, self.error = name, error

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == self.name:
            raise self.error
        return None


@pytest.mark.parametrize(
    "error",
    [
        OSError("libcurand.so.10: cannot open shared object file"),
        AttributeError("module 'numpy' has no attribute 'bool'"),
        RuntimeError("module compiled against another numpy"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_module_that_ends_in_an_error_of_its_own(
    error: Exception, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, make_cuda_python(gpu))
    monkeypatch.delitem(sys.modules, "pycuda")
    monkeypatch.setattr(sys, "meta_path", [Unloadable("pycuda", error), *sys.meta_path])
    memory = open_device_memory()
    assert memory.device_name() == "Orin"
    memory.close()
    only(monkeypatch, {})
    monkeypatch.delitem(sys.modules, "pycuda")
    with pytest.raises(MissingLibraryError, match="neither pycuda nor cuda-python") as caught:
        open_device_memory()
    assert str(error) in str(caught.value)


def test_no_module_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, {})
    with pytest.raises(MissingLibraryError, match="neither pycuda nor cuda-python") as caught:
        open_device_memory()
    assert "pip install pycuda" in str(caught.value)


def test_pycuda_comes_first(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Gpu(name="another")
    only(monkeypatch, {**make_cuda_python(other), **make_pycuda(gpu)})
    memory = open_device_memory()
    assert memory.device_name() == "Orin"
    memory.close()


def test_a_pycuda_that_cannot_be_loaded_is_passed_over(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pycuda.driver is where its libraries are missing."""
    found = {**make_cuda_python(gpu), "pycuda": ModuleType("pycuda")}
    only(monkeypatch, found)
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    memory = open_device_memory()
    assert memory.device_name() == "Orin"
    memory.close()
