"""INT8 without Q/DQ, as TensorRT does it: scales from ranges, a cache or samples.

A cache whose first line names another version or algorithm is passed over without a word, and the
calibrator is asked for samples; an exception in a calibrator is printed and taken for "no more".
"""

from __future__ import annotations

import struct
import sys
from typing import Any

import numpy as np

from doubles.simulate import run_tensors


def scales_of(builder: Any, network: Any, config: Any) -> dict[str, float]:
    """Scale per tensor name: dynamic ranges win over what calibration found."""
    calibrator = config._set_to("int8_calibrator")
    found = {} if calibrator is None else _calibrated(builder, network, calibrator)
    for tensor in network._tensors.values():
        if tensor._range is not None:
            found[tensor._name] = max(map(abs, tensor._range)) / 127.0
    return found


def header(version: str, algorithm: str) -> str:
    """The first line of a cache: TRT-8502-EntropyCalibration2."""
    parts = [int(part) for part in version.split(".")[:3]]
    thousand = 1000 if parts[0] < 10 else 10000
    return f"TRT-{parts[0] * thousand + parts[1] * 100 + parts[2]}-{algorithm}"


def _calibrated(builder: Any, network: Any, calibrator: Any) -> dict[str, float]:
    wanted = header(builder._version, calibrator._algorithm)
    stored = _call(calibrator.read_calibration_cache)
    lines = bytes(stored).decode("latin-1").splitlines() if stored is not None else []
    if lines and lines[0].strip() == wanted:
        return dict(_entry(line) for line in lines[1:] if line.strip())
    batch = _call(calibrator.get_batch_size) or 1
    largest: dict[str, float] = {}
    names = [value.name for value in network._graph.inputs]
    while True:
        addresses = _call(calibrator.get_batch, names)
        if not addresses:
            break
        for name, reach in _observed(builder, network, addresses, int(batch)).items():
            largest[name] = max(largest.get(name, 0.0), reach)
    scales = {name: reach / 127.0 or 1.0 for name, reach in largest.items()}
    if scales:
        text = [wanted, *(f"{n}: {struct.pack('>f', s).hex()}" for n, s in scales.items()), ""]
        _call(calibrator.write_calibration_cache, "\n".join(text).encode("latin-1"))
    return scales


def _entry(line: str) -> Any:
    name, _, digits = line.rpartition(":")
    return name, struct.unpack(">f", bytes.fromhex(digits.strip()))[0]


def _call(function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except Exception as error:  # what a C++ caller does with a Python error
        print(f"[ERROR] Exception caught in {function.__name__}(): {error}", file=sys.stderr)
        return None


def _observed(builder: Any, network: Any, addresses: list[Any], batch: int) -> dict[str, float]:
    """The largest magnitude per tensor of the network over one batch on the GPU."""
    feeds = {}
    for value, address in zip(network._graph.inputs, addresses):  # noqa: B905, Python 3.8
        shape = tuple(batch if i == 0 and s < 0 else s for i, s in enumerate(value.shape))
        feeds[value.source] = builder._gpu().read(int(address), shape, np.float32)
    arrays: dict[str, np.ndarray | None] = dict(run_tensors(network._graph.model, feeds))
    found = {}
    for step in network._graph.steps:
        for value in [*step.inputs, *step.outputs]:
            array = (
                step.weights
                if step.weights is not None
                else arrays.get(getattr(value, "source", ""))
            )
            if value is not None and array is not None and array.dtype == np.float32:
                found[value.name] = float(np.max(np.abs(array), initial=0.0))
    return found
