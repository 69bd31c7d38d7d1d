"""Engines of the double: arrays in, arrays out, and nothing left on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from planned import NETWORK, ORIN, RELEASES, SAMPLE, XAVIER, Release, float_plan, implicit_plan
from tiny_models import model, node, normal, residual

from deploy import registry
from deploy.artifacts.model import Model
from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_run import Runner

BATCHES = {"x": ((1, 3, 6, 8), (4, 3, 6, 8), (8, 3, 6, 8))}
INDEXED = model(
    [
        node("Gather", ["table", "ids"], ["looked_up"]),
        node("Mul", ["x", "looked_up"], ["y"]),
        node("Add", ["ids", "ids"], ["twice"]),
    ],
    {"x": [2, 4], "ids": (TensorProto.INT64, [2, 4])},
    {"y": [2, 4], "twice": (TensorProto.INT64, [2, 4])},
    {"table": normal(5)},
)
INDICES = np.array([[0, 1, 2, 3], [4, 3, 2, 1]])


@pytest.fixture(params=RELEASES.values(), ids=list(RELEASES))
def release(request: pytest.FixtureRequest) -> Release:
    found: Release = request.param
    return found


def engine_of(here: Any, release: Release, network: Model, **more: Any) -> bytes:
    return build_plan(here.trt, float_plan(release, network, **more)).engine


@pytest.fixture
def here(release: Release) -> Iterator[Any]:
    """The double; at the end nothing may be left on its GPU."""
    with release.on() as installed:
        yield installed


@pytest.fixture
def runner(here: Any, release: Release) -> Iterator[Runner]:
    with Runner(here.trt, engine_of(here, release, residual(), profiles=BATCHES)) as made:
        yield made


def reference(x: np.ndarray) -> np.ndarray:
    with registry.module("backend", "reference").build(residual()) as engine:
        found: np.ndarray = engine.run({"x": x})["y"]
        return found


class TestRun:
    def test_inputs_and_outputs(self, runner: Runner) -> None:
        assert [(t.name, t.dtype.name, t.shape) for t in runner.inputs] == [
            ("x", "float32", (None, 3, 6, 8))
        ]
        assert [(t.name, t.dtype.name, t.shape) for t in runner.outputs] == [
            ("y", "float32", (None, 5))
        ]

    def test_batches_of_changing_size(self, runner: Runner) -> None:
        for batch in (2, 8, 1, 8):
            x = normal(batch, 3, 6, 8, seed=batch)
            assert np.allclose(runner.run({"x": x})["y"], reference(x), atol=1e-5)

    def test_memory_is_used_again(self, here: Any, runner: Runner) -> None:
        x = normal(8, 3, 6, 8)
        runner.run({"x": x})
        before = here.gpu.free_bytes
        for batch in (8, 2, 8):
            runner.run({"x": x[:batch]})
        assert here.gpu.free_bytes == before

    def test_results_are_the_callers_to_keep(self, runner: Runner) -> None:
        x = normal(2, 3, 6, 8)
        first = runner.run({"x": x})["y"]
        kept = first.copy()
        runner.run({"x": 2 * x})
        assert np.array_equal(first, kept)

    def test_feeds_may_lie_in_any_order_and_are_left_alone(self, runner: Runner) -> None:
        x = np.asfortranarray(normal(2, 3, 6, 8))
        x.flags.writeable = False
        assert np.allclose(runner.run({"x": x})["y"], reference(x), atol=1e-5)

    def test_the_gpu_it_runs_on(self, runner: Runner, release: Release) -> None:
        assert runner.memory.compute_capability() == f"{release.sm // 10}.{release.sm % 10}"


class TestTimed:
    def test_the_gpus_time_of_each_call(self, here: Any, runner: Runner) -> None:
        """The double takes a quarter of a millisecond per layer."""
        small, large = (runner.timed({"x": normal(n, 3, 6, 8)}) for n in (1, 8))
        for call in (small, large, small):
            before = here.gpu.clock_ms
            assert call() == here.gpu.clock_ms - before > 0

    def test_without_events_nothing_is_told(
        self, runner: Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused() -> int:
            raise DeviceError("no event of the GPU: out of memory")

        monkeypatch.setattr(runner.memory, "event", refused)
        call = runner.timed({"x": normal(2, 3, 6, 8)})
        assert call() is None

    def test_a_closed_engine_says_so(self, runner: Runner) -> None:
        call = runner.timed({"x": normal(2, 3, 6, 8)})
        runner.close()
        with pytest.raises(DeviceError, match="the engine is closed"):
            call()


class TestPrepare:
    def test_calls_take_turns(self, runner: Runner) -> None:
        small, large = normal(1, 3, 6, 8), normal(8, 3, 6, 8, seed=1)
        calls = [runner.prepare({"x": x}) for x in (small, large)]
        for call in (*calls, *reversed(calls)):
            call()
        other = normal(2, 3, 6, 8, seed=2)
        assert np.allclose(runner.run({"x": other})["y"], reference(other), atol=1e-5)
        calls[1]()
        # each has its own feeds and results on the GPU
        for buffers, x in zip(runner._buffers, (small, large, other), strict=True):
            assert np.allclose(buffers.results()["y"], reference(x), atol=1e-5)

    def test_a_call_copies_nothing(self, here: Any, runner: Runner) -> None:
        call = runner.prepare({"x": normal(2, 3, 6, 8)})
        before = here.gpu.free_bytes, here.gpu.clock_ms
        for _ in range(3):
            call()
        assert here.gpu.free_bytes == before[0]
        assert here.gpu.clock_ms > before[1]

    def test_after_closing(self, runner: Runner) -> None:
        call = runner.prepare({"x": normal(2, 3, 6, 8)})
        runner.close()
        with pytest.raises(DeviceError, match="the engine is closed; load it again"):
            call()


class TestTypes:
    def test_int64_goes_into_int32_where_there_is_no_int64(
        self, here: Any, release: Release
    ) -> None:
        kind = "int32" if release.version.startswith("8") else "int64"
        with Runner(here.trt, engine_of(here, release, INDEXED)) as runner:
            assert [t.dtype.name for t in runner.inputs] == ["float32", kind]
            got = runner.run({"x": np.ones((2, 4), "f4"), "ids": INDICES})
        assert got["twice"].dtype.name == kind
        assert np.array_equal(got["twice"], 2 * INDICES)

    def test_values_that_int32_cannot_hold(self) -> None:
        feeds = {"x": np.ones((2, 4), "f4"), "ids": INDICES + (1 << 40)}
        with XAVIER.on() as here:
            engine = engine_of(here, XAVIER, INDEXED)
            with (
                Runner(here.trt, engine) as runner,
                pytest.raises(DeviceError, match=r"input 'ids' holds 1099\d+ to 1099\d+"),
            ):
                runner.run(feeds)

    def test_a_type_numpy_lacks(self) -> None:
        made = model(
            [node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)],
            {"x": (TensorProto.BFLOAT16, [2])},
            {"y": [2]},
        )
        with ORIN.on() as here:
            engine = build_plan(here.trt, float_plan(ORIN, made, precision="bf16")).engine
            with pytest.raises(
                DeviceError, match="tensor 'x' is BF16, which numpy has no type for"
            ):
                Runner(here.trt, engine)


class TestRefused:
    @pytest.mark.parametrize(
        ("feeds", "reason"),
        [
            ({}, r"fed \[\]; the engine's inputs are \['x'\]"),
            ({"z": normal(1, 3, 6, 8)}, r"fed \['z'\]"),
            ({"x": normal(1, 3, 6)}, r"was fed float32\[1, 3, 6\]; the engine needs float32"),
            ({"x": normal(1, 3, 6, 9)}, r"was fed float32\[1, 3, 6, 9\]"),
            ({"x": normal(1, 3, 6, 8).astype("f2")}, r"was fed float16"),
            ({"x": normal(9, 3, 6, 8)}, r"isn't between \[1, 3, 6, 8\] and \[8, 3, 6, 8\]"),
        ],
    )
    def test_feeds(self, feeds: dict[str, np.ndarray], reason: str) -> None:
        with XAVIER.on() as here:
            engine = engine_of(here, XAVIER, residual(), profiles=BATCHES)
            with Runner(here.trt, engine) as runner:
                for call in (runner.run, runner.prepare):
                    with pytest.raises(DeviceError, match=reason):
                        call(feeds)
                x = normal(2, 3, 6, 8)
                assert np.allclose(runner.run({"x": x})["y"], reference(x), atol=1e-5)

    def test_an_engine_of_another_gpu(self) -> None:
        with XAVIER.on() as here:
            engine = engine_of(here, XAVIER, NETWORK)
        reason = r"can't load the engine: .*incompatible device"
        other = Release("8.5.2", 87, "pycuda")
        with other.on() as here, pytest.raises(DeviceError, match=reason):
            Runner(here.trt, engine)

    def test_an_engine_of_another_version(self) -> None:
        with XAVIER.on() as here:
            engine = engine_of(here, XAVIER, NETWORK)
        reason = r"Version tag does not match.*build it again"
        other = Release("8.6.1", 72, "pycuda")
        with other.on() as here, pytest.raises(DeviceError, match=reason):
            Runner(here.trt, engine)

    def test_bytes_that_are_no_engine(self) -> None:
        with XAVIER.on() as here, pytest.raises(DeviceError, match="magicTag does not match"):
            Runner(here.trt, b"no engine")

    def test_a_dla_engine_needs_its_core(self) -> None:
        with XAVIER.on(dla_cores=2) as here:
            plan = implicit_plan(XAVIER, use_dla=True, dla_core=1)
            engine = build_plan(here.trt, plan).engine
            with pytest.raises(DeviceError, match="the engine needs a DLA core"):
                Runner(here.trt, engine)
            with Runner(here.trt, engine, dla_core=1) as runner:
                assert runner.run(SAMPLE.feeds)["y"].shape == (1, 5)

    def test_tensorrt_stops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with XAVIER.on() as here:
            engine = engine_of(here, XAVIER, NETWORK)
            with Runner(here.trt, engine) as runner:
                kind = type(runner._context)
                monkeypatch.setattr(kind, "execute_async_v3", lambda self, stream_handle: False)
                with pytest.raises(DeviceError, match="TensorRT stopped: it gives no reason"):
                    runner.run(SAMPLE.feeds)


def test_closing_twice_does_no_harm(runner: Runner) -> None:
    runner.close()
    runner.close()
    with pytest.raises(DeviceError, match="the engine is closed"):
        runner.run({"x": normal(1, 3, 6, 8)})


def test_sizes_that_the_cpu_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT reads some inputs, and writes some outputs, in the CPU's memory."""
    with ORIN.on() as here:
        engine = engine_of(here, ORIN, INDEXED)
        host = here.trt.TensorLocation.HOST
        kind = here.trt.ICudaEngine
        monkeypatch.setattr(kind, "get_tensor_location", lambda self, name: host)
        with Runner(here.trt, engine) as runner:
            assert all(tensor.on_host for tensor in (*runner.inputs, *runner.outputs))
            seen: dict[str, int] = {}
            context = type(runner._context)
            monkeypatch.setattr(
                context,
                "set_tensor_address",
                lambda self, name, memory: seen.update({name: memory}),
            )
            runner._bind(runner._new_buffers(), {"x": np.ones((2, 4), "f4"), "ids": INDICES})
        assert not any(here.gpu.is_device(address) for address in seen.values())
        assert set(seen) == {"x", "ids", "y", "twice"}
