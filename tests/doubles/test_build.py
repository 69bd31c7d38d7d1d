"""What a double builds, rounds, warns of and refuses, as TensorRT does."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from helpers import model_from

from doubles import Gpu, installed
from doubles.works import CONV, QDQ, SCALES, WEIGHTS, Work, X, cache, calibrator, exact


def test_a_float_engine_computes_the_graph(xavier: Work) -> None:
    assert xavier.parse()
    expected = exact(model_from(CONV, WEIGHTS))
    np.testing.assert_allclose(xavier.run(xavier.build()), expected, rtol=1e-6, atol=1e-6)


def test_fp16_rounds(xavier: Work) -> None:
    assert xavier.parse()
    expected = exact(model_from(CONV, WEIGHTS))
    error = np.abs(xavier.run(xavier.build("FP16")) - expected)
    assert 1e-5 < error.max() < 1e-2


def test_ranges_give_int8_as_q_and_dq_would(xavier: Work) -> None:
    assert xavier.parse()
    xavier.ranges()
    content = xavier.build("INT8")
    top = np.abs(WEIGHTS["w"]).max((1, 2, 3), keepdims=True) / np.float32(127)
    rounded = {**WEIGHTS, "w": np.rint(WEIGHTS["w"] / top) * top, "z": np.int8(0)}
    expected = exact(model_from(QDQ, {**rounded, "xs": SCALES["x"]}))
    np.testing.assert_allclose(xavier.run(content), np.maximum(expected, 0), rtol=1e-5, atol=1e-5)
    assert xavier.layers(content)[0]["Name"] == "conv + relu"
    assert "Int8" in xavier.layers(content)[0]["Inputs"][0]["Format/Datatype"]


def test_a_cache_of_this_version_is_taken(xavier: Work) -> None:
    assert xavier.parse()
    xavier.config.int8_calibrator = given = calibrator(xavier.trt, cache(8502))
    content = xavier.build("INT8")
    assert given.asked == 0
    assert "Int8" in xavier.layers(content)[0]["Inputs"][0]["Format/Datatype"]


@pytest.mark.parametrize("version", [8503, 8501, 8601])
def test_a_cache_of_another_version_is_ignored(xavier: Work, version: int) -> None:
    assert xavier.parse()
    xavier.config.int8_calibrator = given = calibrator(xavier.trt, cache(version))
    assert xavier.build("INT8") is None
    assert given.asked == 1
    assert "no scaling factors detected" in xavier.said("ERROR")


def test_a_tensor_without_a_scale_is_a_warning_and_floats(xavier: Work) -> None:
    assert xavier.parse()
    xavier.ranges({"x": SCALES["x"], "y": SCALES["y"]})
    layers = xavier.layers(xavier.build("INT8", "FP16"))
    assert "Missing scale and zero-point for tensor c, expect fall back" in xavier.said("WARNING")
    assert "FP16" in layers[0]["Inputs"][0]["Format/Datatype"]


def test_obeyed_precisions_fail_where_a_scale_is_missing(xavier: Work) -> None:
    assert xavier.parse()
    xavier.ranges({"x": SCALES["x"]})
    xavier.network.get_layer(0).precision = xavier.trt.DataType.INT8
    assert xavier.build("INT8", "OBEY_PRECISION_CONSTRAINTS") is None
    assert "Could not find any implementation for node conv" in xavier.said("ERROR")


def test_an_error_in_get_batch_is_printed_and_taken_for_the_end(
    xavier: Work, capsys: pytest.CaptureFixture[str]
) -> None:
    assert xavier.parse()
    given = calibrator(xavier.trt, None)
    given.get_batch = lambda names: [][0]
    xavier.config.int8_calibrator = given
    assert xavier.build("INT8") is None
    assert "Exception caught in" in capsys.readouterr().err


def test_samples_give_the_largest_value_and_a_cache(xavier: Work) -> None:
    assert xavier.parse()
    addresses = [xavier.gpu.alloc(X.nbytes) for _ in range(2)]
    for address, factor in zip(addresses, (1.0, 3.0), strict=True):
        xavier.gpu.write(address, X * np.float32(factor))
    given = calibrator(xavier.trt, None, [[address] for address in addresses])
    xavier.config.int8_calibrator = given
    assert xavier.build("INT8") is not None
    header, first, *_ = given.written.decode().splitlines()
    assert header == "TRT-8502-EntropyCalibration2"
    (scale,) = struct.unpack(">f", bytes.fromhex(first.removeprefix("x: ")))
    assert scale == pytest.approx(3 * np.abs(X).max() / 127)
    for address in addresses:
        xavier.gpu.free(address)


def test_int8_for_a_layer_needs_the_flag(xavier: Work) -> None:
    assert xavier.parse()
    xavier.network.get_layer(0).precision = xavier.trt.DataType.INT8
    assert xavier.build("FP16") is None
    assert "INT8 is not configured in the builder" in xavier.said("ERROR")


def test_q_and_dq_need_the_flag(xavier: Work) -> None:
    assert xavier.parse(QDQ, {**WEIGHTS, "xs": SCALES["x"], "z": np.int8(0)})
    assert xavier.build() is None
    assert "int8 is not configured" in xavier.said("ERROR")


def test_strong_typing_refuses_flags_and_precisions() -> None:
    with installed("10.3.0", gpu=Gpu(87)) as here:
        kinds = here.trt.NetworkDefinitionCreationFlag
        work = Work(here, 1 << int(kinds.STRONGLY_TYPED))
        assert work.parse()
        work.network.get_layer(0).precision = here.trt.DataType.HALF
        assert not work.network.get_layer(0).precision_is_set
        assert work.build("FP16") is None
        assert "strongly typed" in work.said("ERROR").lower()


def test_a_dla_takes_no_q_and_dq_and_no_float32(xavier: Work) -> None:
    xavier.config.default_device_type = xavier.trt.DeviceType.DLA
    xavier.config.DLA_core = 0
    assert xavier.parse(QDQ, {**WEIGHTS, "xs": SCALES["x"], "z": np.int8(0)})
    assert xavier.build("INT8", "GPU_FALLBACK") is None
    assert "explicit quantization" in xavier.said("ERROR")


def test_a_dla_engine_needs_its_core(xavier: Work) -> None:
    assert xavier.parse()
    xavier.config.default_device_type = xavier.trt.DeviceType.DLA
    xavier.config.DLA_core = 1
    content = xavier.build("FP16")
    assert xavier.trt.Runtime(xavier.log).deserialize_cuda_engine(content) is None
    runtime = xavier.trt.Runtime(xavier.log)
    runtime.DLA_core = 1
    assert runtime.deserialize_cuda_engine(content) is not None


def test_rtx_compiles_without_a_gpu_and_runs_with_one() -> None:
    with installed("rtx-1.7.1", gpu=Gpu(devices=0), memory="") as here:
        work = Work(here)
        assert work.parse()
        assert work.build() is None
        work.config.num_compute_capabilities = 1
        assert work.config.set_compute_capability(here.trt.ComputeCapability.SM89, 0)
        content = bytes(work.build())
        with pytest.raises(TypeError, match="factory function returned nullptr"):
            here.trt.Runtime(work.log)
    with installed("rtx-1.7.1", 89, memory="cuda-python") as there:
        assert there.trt.Runtime(Work(there).log).deserialize_cuda_engine(content) is not None
