from __future__ import annotations

import numpy as np
import pytest

from deploy.on_device.calibration_cache import cache_scales, cache_with
from deploy.on_device.device_error import DeviceError

CACHE = "TRT-8502-EntropyCalibration2\ninput: 3b810a13\nblock:0/out: 3f800000\n"


def test_scales_are_big_endian_float32() -> None:
    scales = cache_scales(CACHE)
    assert list(scales) == ["input", "block:0/out"]  # a name may hold colons
    assert scales["block:0/out"] == 1.0
    assert np.float32(scales["input"]).tobytes()[::-1].hex() == "3b810a13"


def test_the_samples_of_others_read_alike() -> None:
    # from NVIDIA/TensorRT issue 2958
    scales = cache_scales("TRT-8205-EntropyCalibration2\ninput: 3b810a13\n")
    assert scales["input"] == pytest.approx(0.0039379, rel=1e-4)


def test_more_tensors_go_to_the_end() -> None:
    longer = cache_with(CACHE, {"(Unnamed Layer* 1) [Shuffle]_output": 0.5})
    assert longer == CACHE + "(Unnamed Layer* 1) [Shuffle]_output: 3f000000\n"
    assert cache_scales(longer)["(Unnamed Layer* 1) [Shuffle]_output"] == 0.5


def test_nothing_more_leaves_it_as_it_is() -> None:
    assert cache_with(CACHE, {}) == CACHE


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with ''"),
        ("input: 3b810a13\n", "begins with 'input: 3b810a13'"),
        ("TRT-8502-EntropyCalibration2\ninput: 3b81", "cache line 'input: 3b81'"),
        ("TRT-8502-EntropyCalibration2\nno colon", "cache line 'no colon'"),
        ("TRT-8502-EntropyCalibration2\nx: 3e80zz00", "not `tensor: <8 hexadecimal digits>`"),
        ("TRT-8502-EntropyCalibration2\nx: 00000000", "scale 0 of 'x', and a scale is a positive"),
        ("TRT-8502-EntropyCalibration2\nx: bf800000", "scale -1 of 'x'"),
        ("TRT-8502-EntropyCalibration2\nx: 7fc00000", "scale nan of 'x'"),
        ("TRT-8502-EntropyCalibration2\nx: 7f800000", "scale inf of 'x'"),
    ],
)
def test_another_text_is_refused(text: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        cache_scales(text)
