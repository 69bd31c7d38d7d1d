"""Every way to build and run that deploy/on_device has, on a double of every version.

`ways(version)` are the plans a version can take; `used(version)` builds and runs them all by the
real code and gives the names of TensorRT that it touched.
"""

from __future__ import annotations

import ast
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from doubles import Gpu, Installed, installed, plugin_library
from helpers import model_from, weight

from deploy.backends import reference, rtx
from deploy.on_device.cuda_memory import open_device_memory
from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_library import LogLines
from deploy.on_device.trt_plan import BuildPlan, Built
from deploy.on_device.trt_run import Runner

ROOT = Path(__file__).resolve().parents[3]
# everything that may touch TensorRT
SOURCES = (
    *sorted((ROOT / "deploy" / "on_device").glob("*.py")),
    *(ROOT / "deploy" / "backends" / name for name in ("trt.py", "rtx.py")),
)
VERSIONS = ("8.5.2", "8.6.1", "10.3.0", "10.13.3", "10.16.1", "11.4.0", "rtx-1.7.1")
GPUS = {"8.5.2": 72, "8.6.1": 75, "10.3.0": 87, "10.13.3": 110, "rtx-1.7.1": 89}

FLOAT = """
g (float[N,3,6,8] x) => (float[N,5] y) {
    [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    [relu] r = Relu(c)
    [pool] p = GlobalAveragePool(r)
    [flatten] f = Flatten(p)
    [head] y = Gemm <transB = 1> (f, hw, hb)
}
"""
QDQ = """
g (float[N,3,6,8] x) => (float[N,4,6,8] y) {
    xq = QuantizeLinear(x, xs, z)
    xd = DequantizeLinear(xq, xs, z)
    wq = QuantizeLinear <axis = 0> (w, ws, wz)
    wd = DequantizeLinear <axis = 0> (wq, ws, wz)
    [conv] c = Conv <pads = [1, 1, 1, 1]> (xd, wd, b)
    [relu] y = Relu(c)
}
"""
SHUFFLE = """
g (float[N,4,6,8] x) => (float[N,4,6,8] y) {
    [shuffle] y = onnx_deploy.ChannelShuffle <groups = 2> (x)
}
"""
WEIGHTS = {"w": weight(4, 3, 3, 3), "b": weight(4, seed=1)}
HEAD = {**WEIGHTS, "hw": weight(5, 4, seed=2), "hb": weight(5, seed=3)}
W_SCALE = (np.abs(WEIGHTS["w"]).max((1, 2, 3)) / 127).astype(np.float32)
QUANTIZED = {**WEIGHTS, "xs": np.float32(0.03), "z": np.int8(0), "ws": W_SCALE}
QUANTIZED["wz"] = np.zeros(4, np.int8)
X = np.clip(weight(2, 3, 6, 8, seed=4), -3.8, 3.8)
SCALES = {"x": 0.03, "c": 0.12, "r": 0.12, "p": 0.02, "f": 0.02, "y": 0.05}
LAYERS = {"*": "fp32", "conv": "int8", "relu": "int8", "head": "int8"}
SHAPES = {"x": ((1, 3, 6, 8), (2, 3, 6, 8), (4, 3, 6, 8))}


@dataclass
class Way:
    """plan: what is built; fits: which versions can; tolerance: of the largest result."""

    plan: BuildPlan
    fits: Callable[[str], bool]
    tolerance: float = 1e-5
    x: np.ndarray = field(default_factory=lambda: X)
    library: bool = False  # a plugin library is needed


def weak(version: str) -> bool:
    return version.startswith(("8.", "10."))


def since(*first: int) -> Callable[[str], bool]:
    def fits(version: str) -> bool:
        return tuple(int(p) for p in version.replace("rtx-1", "11").split(".")[:2]) >= first

    return fits


def cache_of(version: str) -> str:
    major, minor, patch = (int(part) for part in version.split(".")[:3])
    number = major * (1000 if major < 10 else 10000) + minor * 100 + patch
    lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in SCALES.items()]
    return "\n".join([f"TRT-{number}-EntropyCalibration2", *lines, ""])


def ways(version: str) -> dict[str, Way]:
    """By name, those that a version has."""
    typing = "weak" if weak(version) else "strong"
    net = BuildPlan(model_from(FLOAT, HEAD).serialized, typing=typing, profiles=SHAPES)
    qdq = replace(net, model=model_from(QDQ, QUANTIZED).serialized, precision="int8")
    qdq = replace(qdq, quantization="explicit", rest="fp16" if weak(version) else "fp32")
    by_list = replace(net, precision="int8", quantization="implicit", layer_precisions=LAYERS)
    cached = replace(by_list, cache=cache_of(version) if weak(version) else "")
    shuffle = replace(net, model=model_from(SHUFFLE).serialized, profiles={})
    shuffle.profiles["x"] = tuple((n, 4, 6, 8) for n in (1, 2, 4))
    dla = weak if version != "10.13.3" else (lambda _: False)  # its target has no DLA
    every = {
        "fp32": Way(replace(net, workspace_bytes=1 << 24, timing_cache="timing.cache"), since(8)),
        "tf32": Way(replace(net, tf32=True), since(8)),
        "strong": Way(replace(net, typing="strong"), since(10)),
        "fp16": Way(replace(net, precision="fp16", rest="fp16"), weak, 1e-2),
        "bf16": Way(
            replace(net, precision="bf16", rest="bf16"), lambda v: weak(v) and since(10)(v), 5e-2
        ),
        "fp16, best tactics": Way(
            replace(net, precision="fp16", rest="fp16", optimization_level=5), weak, 1e-2
        ),
        "int8 by Q/DQ": Way(qdq, since(8), 3e-2),
        "int8 by cache": Way(cached, weak, 5e-2),
        "int8 by cache, obeyed": Way(replace(cached, obey=True), weak, 5e-2),
        "int8 by cache, beside fp16": Way(
            replace(cached, layer_precisions={**LAYERS, "*": "fp16"}, rest="fp16"), weak, 5e-2
        ),
        "int8 by ranges": Way(replace(by_list, scales=dict(SCALES), use_ranges=True), weak, 5e-2),
        "int8 by cache on a DLA": Way(
            replace(cached, layer_precisions={**LAYERS, "*": "fp16"}, rest="fp16", use_dla=True),
            dla,
            5e-2,
        ),
        "fp16 on a DLA": Way(
            replace(net, precision="fp16", rest="fp16", use_dla=True, dla_core=1), dla, 1e-2
        ),
        "for later versions": Way(
            replace(net, version_compatible=True), lambda v: since(8, 6)(v) and v[0] != "r"
        ),
        "for later GPUs": Way(
            replace(net, hardware_compatible=True),
            lambda v: since(8, 6)(v) and v[0] != "r" and GPUS.get(v, 90) >= 80,
        ),
        "with a plugin": Way(
            shuffle, lambda v: v[0] != "r", x=weight(2, 4, 6, 8, seed=6), library=True
        ),
    }
    return {name: way for name, way in every.items() if way.fits(version)}


@cache
def reference_of(name: str) -> np.ndarray:
    """What the float graph of a way gives."""
    if name == "with a plugin":
        return weight(2, 4, 6, 8, seed=6)[:, [0, 2, 1, 3]]
    float_conv = QDQ.replace(
        "Conv <pads = [1, 1, 1, 1]> (xd, wd, b)", "Conv <pads=[1,1,1,1]> (x, w, b)"
    )
    text, weights = (float_conv, QUANTIZED) if "Q/DQ" in name else (FLOAT, HEAD)
    with reference.build_exact(model_from(text, weights)) as engine:
        return engine.run({"x": X})["y"]


def here_for(version: str) -> Any:
    """The double of a version on a GPU that it is meant for."""
    sm = GPUS.get(version, 90)
    gpu = Gpu(sm, f"GPU of sm_{sm}", dla_cores=2 if weak(version) else 0)
    return installed(version, gpu=gpu, memory="pycuda" if version[0] == "8" else "cuda-python")


def go(
    here: Installed,
    way: Way,
    folder: Path,
    build: Callable[..., Built] = build_plan,
    runner: Callable[..., Any] = Runner,
) -> tuple[Built, np.ndarray]:
    """Build the way's plan, run the engine once, and once as it's timed."""
    plan = way.plan
    if plan.timing_cache:
        plan = replace(plan, timing_cache=str(folder / plan.timing_cache))
    if way.library:
        listed = int(here.trt.__version__.split(".")[0]) >= 10
        made = plugin_library(folder / "libplugins.so", "ChannelShuffle", listed=listed)
        plan = replace(plan, plugin_libraries=[str(made)])
    built = build(here.trt, plan)
    core = plan.dla_core if plan.use_dla else None
    with runner(
        here.trt, built.engine, plan.plugin_libraries, core, plan.version_compatible
    ) as engine:
        engine.prepare({"x": way.x})()
        return built, engine.run({"x": way.x})["y"]


def refusals(here: Installed, folder: Path) -> Iterator[str]:
    """What the code says where TensorRT refuses: each of these goes through its error path."""
    version = here.trt.__version__
    typing = "weak" if weak(version) and "rtx" not in here.trt.__name__ else "strong"
    net = BuildPlan(model_from(FLOAT, HEAD).serialized, typing=typing, profiles=SHAPES)
    bad = replace(net, model=model_from(QDQ, {**QUANTIZED, "z": np.int8(1)}).serialized)
    engine = build_plan(here.trt, net).engine
    stale = folder / "stale.cache"
    stale.write_bytes(b'["another TensorRT", []]')
    yield from _said(lambda: build_plan(here.trt, bad))
    yield from _said(lambda: build_plan(here.trt, replace(net, profiles={})))
    yield from build_plan(here.trt, replace(net, timing_cache=str(stale))).messages
    yield from _said(lambda: Runner(here.trt, b"no engine"))
    with Runner(here.trt, engine) as runner:
        wide = np.zeros((5, 3, 6, 8), np.float32)
        yield from _said(lambda: runner.run({"x": wide}))
    if typing == "weak":
        cached = ways(version)["int8 by cache"].plan
        for other in (cached.cache.replace("TRT-", "TRT-1"), cached.cache.replace("x: ", "X: ")):
            yield from _said(lambda other=other: build_plan(here.trt, replace(cached, cache=other)))


def _said(call: Callable[[], Any]) -> Iterator[str]:
    try:
        made = call()
    except DeviceError as error:
        yield str(error)
    else:
        yield from made.problems


@dataclass(frozen=True)
class Used:
    """touched: names of TensorRT that were used, missed: those asked for and not there."""

    touched: frozenset[str]
    missed: frozenset[str]


@cache
def used(version: str) -> Used:
    """What all ways of a version use."""
    with tempfile.TemporaryDirectory() as name, here_for(version) as here:
        for way in ways(version).values():
            go(here, way, Path(name))
        assert list(refusals(here, Path(name)))
        open_device_memory().close()
        if version.startswith("rtx"):
            _compile_elsewhere(here)
        return Used(frozenset(here.trt._touched), frozenset(here.trt._missed))


def _compile_elsewhere(here: Installed) -> None:
    """TensorRT-RTX's own path, which needs no GPU."""
    plan = BuildPlan(model_from(FLOAT, HEAD).serialized, typing="strong", profiles=SHAPES)
    content, _ = rtx._compile(here.trt, LogLines(here.trt), plan, "SM120")
    assert content


def chains(tree: ast.AST) -> set[str]:
    """Names reached from the variable `trt`: "BuilderFlag.TF32"; "BuilderFlag.*" where getattr
    gets a name that only the run knows."""
    found = set()
    for scope in ast.walk(tree):
        if isinstance(scope, ast.FunctionDef):
            known = {"trt": ""}
            for node in ast.walk(scope):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                    value = _chain(node.value, known)
                    if value:
                        known[node.targets[0].id] = value
            found |= {c for node in ast.walk(scope) if (c := _chain(node, known))}
    return found


def _chain(node: ast.AST, known: dict[str, str]) -> str | None:
    """The name a node stands for: "" for the module; None for anything else."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _chain(node.value, known)
        return None if owner is None else f"{owner}.{node.attr}".lstrip(".")
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    if called and node.func.id in ("getattr", "hasattr") and len(node.args) > 1:  # type: ignore[attr-defined]
        owner, name = _chain(node.args[0], known), node.args[1]  # type: ignore[attr-defined]
        member = name.value if isinstance(name, ast.Constant) else "*"
        return None if owner is None else f"{owner}.{member}".lstrip(".")
    return None
