"""Whether a plugin's folder keeps its promises: every kernel that can run here equals the truth."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import onnx

from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.errors import BuildError, MissingBackendError, ModelError, RecipeError, one_line
from deploy.plugin.build import (
    CUDA_SOURCE,
    OPENVINO_SOURCE,
    TENSORRT_SOURCES,
    build_cuda,
    build_tensorrt,
)
from deploy.plugin.ops import DOMAIN, expand_plugins, op_type, plugin_module
from deploy.target import EngineSettings, Target

# of the largest value of the output: kernels add up in another order than NumPy
_TOLERANCE = 1e-5
# the products of a check go, what a failing compiler said stays
_LOGS = Path(tempfile.gettempdir())

Example = tuple[Sequence[tuple[int, ...] | None], dict[str, Any]]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked on a plugin, or wasn't, and why."""

    plugin: str
    what: str
    outcome: Literal["ok", "failed", "not checked"]
    detail: str


class _UncheckedError(Exception):
    """Why something can't be checked here."""


def check(name: str, target: Target | None = None) -> list[Finding]:
    """Everything that can be shown about a plugin on this machine.

    target: an NVIDIA device that CUDA and TensorRT parts are compiled for.
    """
    module = plugin_module(name)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("shape rule", lambda: _shapes(name, module)),
        ("expansion", lambda: _expansion(name, module)),
        ("OpenVINO kernel", lambda: _openvino(name, module)),
        ("CUDA kernel", lambda: _cuda(name, target)),
        ("TensorRT glue", lambda: _tensorrt(name, target)),
    ]
    return [_finding(name, what, work) for what, work in checks]


def _finding(name: str, what: str, work: Callable[[], str]) -> Finding:
    try:
        return Finding(name, what, "ok", work())
    except (_UncheckedError, MissingBackendError) as error:
        return Finding(name, what, "not checked", one_line(error))
    except (ValueError, ModelError, RecipeError, BuildError) as error:
        return Finding(name, what, "failed", one_line(error, 1000))


def node_model(
    name: str, arrays: Sequence[np.ndarray | None], attributes: dict[str, Any], rank: int
) -> Model:
    """A model of one node of this plugin: the first input is fed, the others are constants."""
    inputs = ["" if array is None else f"i{index}" for index, array in enumerate(arrays)]
    node = onnx.helper.make_node(op_type(name), inputs, ["y"], domain=DOMAIN, **attributes)
    x = arrays[0]
    assert x is not None
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        [node],
        name,
        [onnx.helper.make_tensor_value_info("i0", kind, x.shape)],
        [onnx.helper.make_tensor_value_info("y", kind, [f"d{i}" for i in range(rank)])],
        [
            onnx.numpy_helper.from_array(array, f"i{index}")
            for index, array in enumerate(arrays)
            if index and array is not None
        ],
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(DOMAIN, 1)]
    return Model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), name)


def _cases(
    module: ModuleType,
) -> Iterator[tuple[list[np.ndarray | None], dict[str, Any], np.ndarray]]:
    """Inputs, attributes and the truth of every example, seeded."""
    examples: Sequence[Example] = getattr(module, "EXAMPLES", ())
    if not examples:
        raise _UncheckedError("op.py has no EXAMPLES: a list of (shapes of the inputs, attributes)")
    for seed, (shapes, attributes) in enumerate(examples):
        random = np.random.default_rng(seed)
        arrays = [
            None if shape is None else random.standard_normal(shape).astype(np.float32)
            for shape in shapes
        ]
        yield arrays, attributes, np.asarray(module.run(*arrays, **attributes))


def _shapes(name: str, module: ModuleType) -> str:
    count = 0
    for arrays, attributes, truth in _cases(module):
        shapes = [None if array is None else array.shape for array in arrays]
        said = tuple(module.infer_shape(*shapes, **attributes))
        if said != truth.shape:
            raise ValueError(f"infer_shape says {said}, run gives {truth.shape}, for {shapes}")
        count += 1
    return f"{count} examples"


def _expansion(name: str, module: ModuleType) -> str:
    from deploy.backends import reference

    def build(model: Model) -> Engine:
        return reference.build(Model(expand_plugins(model.proto, name), name))

    return _compared(name, module, build)


def _openvino(name: str, module: ModuleType) -> str:
    from deploy.backends import ov

    if not (registry.path("plugin", name).parent / OPENVINO_SOURCE).is_file():
        raise _UncheckedError(f"there is no {OPENVINO_SOURCE}")
    settings = EngineSettings(batch="dynamic", inference_precision={"fp32": "f32"})
    return _compared(name, module, lambda model: ov.build(model, settings, "fp32"))


def _compared(name: str, module: ModuleType, build: Callable[[Model], Engine]) -> str:
    """The largest difference to the truth, of the largest value; ValueError above the tolerance."""
    worst, count = 0.0, 0
    for arrays, attributes, truth in _cases(module):
        model = node_model(name, arrays, attributes, truth.ndim)
        with build(model) as engine:
            got = engine.run({"i0": np.asarray(arrays[0])})["y"]
        if got.shape != truth.shape:
            raise ValueError(f"gives {got.shape}, the truth is {truth.shape}, for {attributes}")
        error = np.abs(got.astype(np.float64) - truth).max() / max(np.abs(truth).max(), 1e-30)
        if not error <= _TOLERANCE:
            raise ValueError(
                f"differs from run() by {error:.1e} of the largest value, for inputs of "
                f"{[None if a is None else a.shape for a in arrays]} and {attributes}"
            )
        worst, count = max(worst, float(error)), count + 1
    return f"equals run() on {count} examples, to {worst:.0e}"


def _cuda(name: str, target: Target | None) -> str:
    if not (registry.path("plugin", name).parent / CUDA_SOURCE).is_file():
        raise _UncheckedError(f"there is no {CUDA_SOURCE}")
    nvidia = None if target is None else target.engine.nvidia
    with tempfile.TemporaryDirectory() as folder:
        build_cuda(name, nvidia, Path(folder), _LOGS)
    sm = "nvcc's default device" if nvidia is None else f"sm_{nvidia.sm}"
    return f"compiles for {sm}; not run: that takes the GPU"


def _tensorrt(name: str, target: Target | None) -> str:
    folder = registry.path("plugin", name).parent
    if not any((folder / source).is_file() for source in TENSORRT_SOURCES):
        raise _UncheckedError(f"there is no {' or '.join(TENSORRT_SOURCES)}")
    if target is None or target.engine.nvidia is None:
        raise _UncheckedError("give the device with --target")
    if shutil.which("cmake") is None:
        raise _UncheckedError("cmake isn't on PATH")
    nvidia = target.engine.nvidia
    with tempfile.TemporaryDirectory() as made:
        build_tensorrt([name], nvidia, Path(made), _LOGS)
    return f"compiles against TensorRT {nvidia.version[0]}'s headers; not run: that takes the GPU"
