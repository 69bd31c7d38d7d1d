"""Engines of a double: where they can be loaded, what they tell, when results are there."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import weight

from doubles import GpuFault, installed
from doubles.works import CONV, Work, X


def test_an_engine_of_another_version_or_gpu(xavier: Work) -> None:
    assert xavier.parse()
    content = bytes(xavier.build())
    for version, sm, text in (
        ("8.5.3", 72, "Version tag does not match"),
        ("8.5.2", 87, "expecting compute 8.7 got compute 7.2"),
    ):
        with installed(version, sm) as other:
            work = Work(other)
            assert other.trt.Runtime(work.log).deserialize_cuda_engine(content) is None
            assert text in work.said("ERROR")


def test_free_dimensions_need_a_profile(xavier: Work) -> None:
    text = CONV.replace("[1,3,6,8]", "[N,3,6,8]").replace("[1,4,6,8]", "[N,4,6,8]")
    assert xavier.parse(text)
    assert xavier.build() is None
    assert "no optimization profile" in xavier.said("ERROR")
    profile = xavier.builder.create_optimization_profile()
    profile.set_shape("x", (1, 3, 6, 8), (2, 3, 6, 8), (3, 3, 6, 8))
    xavier.config.add_optimization_profile(profile)
    content = xavier.build()
    assert xavier.run(content, weight(3, 3, 6, 8)).shape == (3, 4, 6, 8)
    engine = xavier.trt.Runtime(xavier.log).deserialize_cuda_engine(content)
    context = engine.create_execution_context()
    assert tuple(context.get_tensor_shape("x")) == (-1, 3, 6, 8)
    assert not context.set_input_shape("x", (4, 3, 6, 8))


def test_a_timing_cache_of_another_gpu_is_refused(xavier: Work) -> None:
    assert xavier.parse()
    xavier.build()
    stored = bytes(xavier.config.get_timing_cache().serialize())
    with installed("8.5.2", 87) as other:
        config = Work(other).config
        assert not config.set_timing_cache(config.create_timing_cache(stored), False)
        assert config.set_timing_cache(config.create_timing_cache(stored), True)


def test_the_inspector_says_bindings_up_to_10(xavier: Work, h100: Work) -> None:
    for work, key in ((xavier, "Bindings"), (h100, "I/O Tensors")):
        assert work.parse()
        assert list(work.inspected(work.build())) == ["Layers", key]


def test_results_are_there_once_the_stream_was_waited_for(xavier: Work) -> None:
    assert xavier.parse()
    gpu, engine = xavier.gpu, xavier.trt.Runtime(xavier.log).deserialize_cuda_engine(xavier.build())
    context = engine.create_execution_context()
    addresses = {"x": gpu.alloc(X.nbytes), "y": gpu.alloc(X.nbytes // 3 * 4)}
    gpu.write(addresses["x"], X)
    assert not context.execute_async_v3(0)
    assert "Address is not set for tensor x" in xavier.said("ERROR")
    for name, address in addresses.items():
        context.set_tensor_address(name, address)
    before = gpu.read(addresses["y"], (4,), np.float32)
    assert context.execute_async_v3(0)
    assert np.array_equal(gpu.read(addresses["y"], (4,), np.float32), before)
    gpu.synchronize(0)
    assert not np.array_equal(gpu.read(addresses["y"], (4,), np.float32), before)
    gpu.free(addresses["y"])
    with pytest.raises(GpuFault, match="after it was freed"):
        context.execute_async_v3(0)
    gpu.free(addresses["x"])
