"""What trtexec says: version, device, INT8's tensors without a scale, outputs, timing."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

import numpy as np

from deploy.on_device.device_error import DeviceError

# TensorRT recalibrates, which trtexec lets it do with random data or none, when it doesn't take
# the cache
_RECALIBRATED = (
    "Calibration table does not match",
    "Starting Calibration",
    "Calibrated batch",
    "is bound to nullptr",
    "Int8 calibration failed",
)
_NO_SCALE = re.compile(r"Missing scale and zero-point for tensor (.+?), expect fall back")
_TOOL_HEADER = re.compile(r"\[TensorRT v(\d+)\]")
_TOOL_VERSION = re.compile(r"TensorRT version: (\d+\.\d+\.\d+)")
_TOOL_CAPABILITY = re.compile(r"Compute Capability: (\d+\.\d+)")
_SELECTED = re.compile(r"Selected Device: (.+)")
_TIMES = re.compile(
    r"GPU Compute Time: min = (\S+) ms.*? median = (\S+) ms.*?percentile\(90%\) = (\S+) ms"
)
_QUERIES = re.compile(r"Timing trace has (\d+) queries")
_QPS = re.compile(r"Throughput: (\S+) qps")
# the tool's own lines and TensorRT's, by severity
_SEVERITY = re.compile(r"^(?:\[[^\]]*\] )*?\[([EW])\] (?:\[TRT\] )?(.*)$", re.M)
# JSON has no such numbers, trtexec writes them as C++ does
_NOT_JSON = re.compile(r"(?<=[\s,\[])-?(?:nan|inf)(?=[\s,\]])")


def version_of_log(text: str) -> str:
    """The library's version: "8.5.2"; "" when the text doesn't say."""
    found = _TOOL_VERSION.search(text)
    if found:
        return found.group(1)
    found = _TOOL_HEADER.search(text)
    if not found:
        return ""
    number = int(found.group(1))
    thousand = 10000 if number >= 100000 else 1000
    return f"{number // thousand}.{number % thousand // 100}.{number % 100}"


def device_of_log(text: str) -> tuple[str, str]:
    """The GPU's name and compute capability; "" for what the text doesn't say."""
    name, capability = _SELECTED.search(text), _TOOL_CAPABILITY.search(text)
    return name.group(1).strip() if name else "", capability.group(1) if capability else ""


def cache_problems(text: str, scaled: Collection[str]) -> list[str]:
    """Why INT8 isn't what the cache says: it was ignored, or a tensor of it has no scale.

    scaled: the tensors the cache has.
    """
    problems = []
    seen = next((line for line in text.splitlines() if any(s in line for s in _RECALIBRATED)), "")
    if seen:
        problems.append(
            f"calibration.cache was ignored: TensorRT says {seen.strip()!r}; its first line has to "
            "name this very release: build on the host for a target with it"
        )
    missing = sorted(set(_NO_SCALE.findall(text)) & set(scaled))
    if missing:
        problems.append(
            f"{len(missing)} tensors of calibration.cache got no scale: {', '.join(missing[:5])}; "
            "TensorRT reads other names out of model.onnx: build the bundle again on the host"
        )
    return problems


def unscaled_tensors(text: str) -> list[str]:
    """Tensors TensorRT has no scale for, in the order it says so."""
    return list(dict.fromkeys(_NO_SCALE.findall(text)))


def complaints(text: str) -> list[str]:
    """Errors and warnings, each once, errors first."""
    found = _SEVERITY.findall(text)
    ordered = [line for kind in "EW" for severity, line in found if severity == kind]
    return list(dict.fromkeys(line.strip() for line in ordered if line.strip()))


def outputs_of_json(text: str) -> dict[str, np.ndarray]:
    """Output by name of --exportOutput, as float64 in its shape; DeviceError when it isn't that."""
    try:
        rows = json.loads(_NOT_JSON.sub("NaN", text))
        found = {}
        for row in rows:
            sizes = [int(size) for size in re.findall(r"\d+", row["dimensions"])]
            found[row["name"]] = np.asarray(row["values"], dtype=np.float64).reshape(sizes)
    except (ValueError, KeyError, TypeError) as error:
        raise DeviceError(
            f"trtexec's --exportOutput isn't readable ({error}); use the Python bindings"
        ) from None
    return found


def timing_of_log(text: str, batch: int) -> dict[str, Any]:
    """The latency row of a report from trtexec's performance summary; DeviceError without one."""
    times, queries, qps = _TIMES.search(text), _QUERIES.search(text), _QPS.search(text)
    if not times or not queries or not qps:
        raise DeviceError(
            "trtexec printed no performance summary; its whole output is in the log beside the "
            "engine"
        )
    fastest, median, slow = (float(value) for value in times.groups())
    return {
        "median_ms": median,
        "p90_ms": slow,
        "min_ms": fastest,
        "gpu_median_ms": median,
        "runs": int(queries.group(1)),
        "throughput_per_s": float(qps.group(1)) * batch,
        "how": "trtexec: GPU compute time of one inference after the other, data on the device",
    }
