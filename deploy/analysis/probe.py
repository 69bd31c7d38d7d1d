"""This machine's own roofline, measured in about two seconds with the target's backend.

Compute is the best of several runs of a chain of 3x3 convolutions, per precision; bandwidth the
best of several large copies, read and written bytes together. Both are what software reaches, not
what the vendor prints; another process on the machine lowers them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.target import Precision, Target

# large enough for the best kernels, small enough for a CPU's caches; not symmetric in H and W
_CHANNELS, _HEIGHT, _WIDTH, _LAYERS = 128, 28, 24, 3
# larger than any L3 cache we know of
_COPIED_BYTES = 96_000_000
_SECONDS, _ROUNDS = 0.04, 3


@dataclass(frozen=True)
class Measured:
    """What one machine reached on so many threads."""

    machine: str
    threads: int
    peak_flops: dict[Precision, float]
    bandwidth_bytes_per_s: float


def probe(target: Target) -> tuple[Measured, ...]:
    """The figures on one thread and, where there are more, on all of them."""
    threads = _cores()
    return tuple(_measured(target, count) for count in dict.fromkeys((1, threads)))


def convolutions(precision: Precision) -> tuple[Model, int]:
    """The model that is timed, and its FLOPs; int8 with explicit Q/DQ around every layer."""
    shape = [1, _CHANNELS, _HEIGHT, _WIDTH]
    random = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {
        "act_scale": np.asarray(0.02, np.float32),
        "act_zero": np.asarray(128, np.uint8),
        "weight_scale": np.asarray(0.001, np.float32),
        "weight_zero": np.asarray(0, np.int8),
    }
    value = "x"
    for index in range(_LAYERS):
        kernel = random.integers(-60, 61, (_CHANNELS, _CHANNELS, 3, 3))
        value, weight = _operands(nodes, weights, value, kernel, precision)
        node = helper.make_node("Conv", [value, weight], [f"y{index}"], pads=[1, 1, 1, 1])
        nodes.append(node)
        value = f"y{index}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in ("x", value)]
    stored = [numpy_helper.from_array(w, name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "probe", ends[:1], ends[1:], stored)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    flops = 2 * _LAYERS * _HEIGHT * _WIDTH * _CHANNELS * _CHANNELS * 9
    return Model(proto, "probe"), flops


def _operands(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    value: str,
    kernel: np.ndarray,
    precision: Precision,
) -> tuple[str, str]:
    """The names a convolution reads: the plain value and weights, or both behind Q/DQ."""
    if precision != "int8":
        weights[f"{value}_w"] = (kernel * 0.001).astype(np.float32)
        return value, f"{value}_w"
    weights[f"{value}_w"] = kernel.astype(np.int8)
    act, weight = ["act_scale", "act_zero"], ["weight_scale", "weight_zero"]
    nodes += [
        helper.make_node("QuantizeLinear", [value, *act], [f"{value}_q"]),
        helper.make_node("DequantizeLinear", [f"{value}_q", *act], [f"{value}_dq"]),
        helper.make_node("DequantizeLinear", [f"{value}_w", *weight], [f"{value}_wdq"]),
    ]
    return f"{value}_dq", f"{value}_wdq"


def _measured(target: Target, threads: int) -> Measured:
    settings = target.engine.model_copy(update={"threads": threads, "streams": 1, "cache_dir": ""})
    backend = registry.module("backend", target.backend)
    calls: dict[Precision, Callable[[], None]] = {}
    machine, flops = "", 0
    with ExitStack() as opened:
        for precision in target.precisions:
            model, flops = convolutions(precision)
            engine: Engine = opened.enter_context(backend.build(model, settings, precision))
            said = engine.properties()
            machine = said.get("device_name", machine)
            # a device without bf16 would run it as float32 under another name
            if precision == "bf16" and said.get("inference_precision", "bf16") != "bf16":
                continue
            random = np.random.default_rng(1)
            x = random.standard_normal((1, _CHANNELS, _HEIGHT, _WIDTH), dtype=np.float32)
            calls[precision] = engine.prepare({"x": x})
        # in turns: who else is busy for a moment doesn't fall on one precision alone
        rounds = [{p: _best_s(call) for p, call in calls.items()} for _ in range(_ROUNDS)]
    peaks = {p: flops / min(times[p] for times in rounds) for p in calls}
    return Measured(machine, threads, peaks, _bandwidth(threads))


def _bandwidth(threads: int) -> float:
    """Bytes read and written per second by `threads` copies of disjoint parts at once."""
    source = np.ones(_COPIED_BYTES // 8)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best_s(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2 * source.nbytes / seconds


def _best_s(call: Callable[[], object]) -> float:
    """The shortest of at least three runs: everything else on the machine only adds to it."""
    call()
    best = float("inf")
    started = time.perf_counter()
    runs = 0
    while runs < 3 or time.perf_counter() - started < _SECONDS:
        before = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - before)
        runs += 1
    return best


def _cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
