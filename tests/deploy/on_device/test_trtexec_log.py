from __future__ import annotations

import math

import numpy as np
import pytest

from deploy.on_device.device_error import DeviceError
from deploy.on_device.trtexec_log import (
    cache_problems,
    complaints,
    device_of_log,
    outputs_of_json,
    timing_of_log,
    unscaled_tensors,
    version_of_log,
)

# lines as real logs have them, of 8.5 and 8.6
READ = """\
[05/02/2023-10:11:12] [I] [TRT] Reading Calibration Cache for calibrator: EntropyCalibration2
[05/02/2023-10:11:12] [I] [TRT] Generated calibration scales using calibration cache. Make sure \
that calibration cache has latest scales.
[05/02/2023-10:11:12] [I] [TRT] To regenerate calibration cache, please delete the existing one.
[05/02/2023-10:11:12] [W] [TRT] Missing scale and zero-point for tensor (Unnamed Layer* 7) \
[Shuffle]_output, expect fall back to non-int8 implementation for any layer consuming or producing \
given tensor
[05/02/2023-10:11:12] [E] Error[2]: [x.cpp::f::1] Error Code 2: Internal Error (no tactic)
"""
PERFORMANCE = """\
[I] Timing trace has 1302 queries over 3.00284 s
[I] Throughput: 433.589 qps
[I] Latency: min = 2.31 ms, max = 2.9 ms, mean = 2.33 ms, median = 2.32 ms, \
percentile(90%) = 2.35 ms
[I] GPU Compute Time: min = 2.27 ms, max = 2.86 ms, mean = 2.29 ms, median = 2.28 ms, \
percentile(90%) = 2.3125 ms
"""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", "8.5.2"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101601] [b11] # trtexec", "10.16.1"),
        ("[I] TensorRT version: 10.3.0", "10.3.0"),
        ("bash: trtexec", ""),
    ],
)
def test_versions(text: str, version: str) -> None:
    assert version_of_log(text) == version


def test_the_device() -> None:
    text = "[I] Selected Device: Xavier\n[I] Compute Capability: 7.2\n[I] SMs: 8\n"
    assert device_of_log(text) == ("Xavier", "7.2")
    assert device_of_log("") == ("", "")


def test_a_cache_that_was_read_is_no_problem() -> None:
    assert cache_problems(READ, {"x", "y"}) == []
    assert unscaled_tensors(READ) == ["(Unnamed Layer* 7) [Shuffle]_output"]


@pytest.mark.parametrize(
    "line",
    [
        "[W] [TRT] Calibration table does not match calibrator algorithm type.",
        "[I] [TRT] Starting Calibration.",
        "[I] [TRT]   Calibrated batch 0 in 0.0159 seconds.",
        "[E] Error[1]: Tensor `images` is bound to nullptr",
    ],
)
def test_a_cache_that_was_not(line: str) -> None:
    (problem,) = cache_problems(READ + line, {"x"})
    assert problem.startswith("calibration.cache was ignored: TensorRT says")
    assert line in problem


def test_errors_come_before_warnings() -> None:
    found = complaints(READ + READ)
    assert [text[:12] for text in found] == ["Error[2]: [x", "Missing scal"]


def test_outputs() -> None:
    text = """[
  { "name" : "a/b:0"
  , "dimensions" : "1x2x2"
  , "values" : [ 1.5, -nan, inf, -2e-05 ]
  }
, { "name" : "count"
  , "dimensions" : ""
  , "values" : [ 3 ]
  }
]
"""
    found = outputs_of_json(text)
    assert found["a/b:0"].shape == (1, 2, 2)
    assert found["a/b:0"][0, 0, 0] == 1.5
    assert math.isnan(found["a/b:0"][0, 0, 1])
    assert not np.isfinite(found["a/b:0"][0, 1, 0])
    assert found["count"] == 3


def test_outputs_that_are_cut_off() -> None:
    with pytest.raises(DeviceError, match="isn't readable"):
        outputs_of_json('[ { "name" : "a", "dimensions" : "4", "values" : [ 1, 2 ] } ]')


def test_timing() -> None:
    row = timing_of_log(PERFORMANCE, 4)
    assert (row["min_ms"], row["median_ms"], row["p90_ms"]) == (2.27, 2.28, 2.3125)
    assert (row["runs"], row["throughput_per_s"]) == (1302, pytest.approx(4 * 433.589))
    with pytest.raises(DeviceError, match="no performance summary"):
        timing_of_log("[I] Throughput: 12 qps", 1)
