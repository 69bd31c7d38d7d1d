"""How the engine computes: its float type, its weights' bits, and the ranges it was built with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from deploy.artifacts.audit import Finding
from deploy.artifacts.model import Model
from deploy.suspects.evidence import Evidence, some

_CLIPPED, _UNUSED = 0.02, 0.2
# values this much of a range outside it are no mere tail
_BEYOND = 0.25
_VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")


def vnni(case: Evidence) -> Finding | None:
    """Full-range 8-bit weights on a CPU that adds their products in 16 bits."""
    if case.quantized is None or case.precision != "int8" or not case.flags:
        return None
    if not {"avx2", "avx512f"} & case.flags or case.flags & set(_VNNI):
        return None
    most = max(
        (int(np.abs(w.astype(np.int64)).max()) for w in _integers(case.quantized) if w.size),
        default=0,
    )
    if most <= 64:
        return None
    return Finding(
        "overflow without VNNI",
        "warn",
        f"weights of up to {most} steps, and this CPU has none of {', '.join(_VNNI)}",
        "without them two products of 8 bits are added in 16, and saturate",
        "build with --target intel-avx2, whose weights have 7 bits",
    )


def float_type(case: Evidence) -> Finding | None:
    """An engine that computes in a shorter float than it was built for."""
    if case.engine is None:
        return None
    got = case.engine.properties().get("inference_precision", "")
    if case.precision != "fp32" or got in ("", "f32"):
        return None
    return Finding(
        "shorter floats",
        "warn",
        f"built as fp32, and the engine computes in {got}",
        "bf16 keeps 8 bits of a value: 30 to 47 dB of the outputs",
        "set inference_precision to f32 in the target, or say --bf16 to mean it",
    )


def ranges(case: Evidence) -> Finding | None:
    """Ranges that these samples leave, or hardly use."""
    if case.ranges is None:
        return None
    cut, idle = [], []
    for name, known in case.ranges.tensors.items():
        held = [t[name] for t in case.tensors if name in t]
        if not held:
            continue
        values = np.concatenate([x.astype(np.float64).reshape(-1) for x in held])
        low, high = known.range.low, known.range.high
        width = high - low
        if not width or not values.size:
            continue
        outside = float(
            ((values < low - _BEYOND * width) | (values > high + _BEYOND * width)).mean()
        )
        if outside > max(_CLIPPED, 3 * known.clipped):
            cut.append(f"{name} ({outside:.0%} of its values)")
        elif np.ptp(values) < _UNUSED * width:
            idle.append(name)
    total = len(case.ranges.tensors)
    if not cut and len(idle) < 0.5 * total:
        return None
    said = f"cut off: {some(cut)}" if cut else f"{len(idle)} of {total} ranges hardly used"
    return Finding(
        "ranges from other data",
        "warn",
        f"on these samples {said}",
        "the ranges were calibrated on samples that hold other values",
        "calibrate on samples like these, prepared the same way",
    )


def _integers(model: Model) -> list[np.ndarray]:
    weights = {w.name: w for w in model.proto.graph.initializer}
    read = [n.input[0] for n in model.proto.graph.node if n.op_type == "DequantizeLinear"]
    return [
        numpy_helper.to_array(weights[name])
        for name in read
        if name in weights and weights[name].data_type == TensorProto.INT8
    ]


def cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What this machine's CPU can do, as Linux names it; empty elsewhere."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), ":")
    return frozenset(flags.split(":", 1)[1].split())
