"""What a plan asks for, as flags and settings of every version; and what a version can't do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planned import (
    H100,
    LATEST,
    ORIN,
    RELEASES,
    STRONG,
    T4,
    XAVIER,
    Release,
    explicit_plan,
    float_plan,
    implicit_plan,
)
from tiny_models import residual

from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_config import (
    builder_config,
    check_plan,
    load_timing_cache,
    save_timing_cache,
)
from deploy.on_device.trt_library import LogLines
from deploy.on_device.trt_network import read_network
from deploy.on_device.trt_plan import BuildPlan

TYPES = {"INT8", "FP16", "BF16", "FP8"}
BATCHES = {"x": ((1, 3, 6, 8), (8, 3, 6, 8), (32, 3, 6, 8))}


def configured(trt: Any, plan: BuildPlan) -> tuple[Any, Any, list[str]]:
    """The settings and the network of a plan, and what was left out."""
    log = LogLines(trt)
    builder = trt.Builder(log)
    network, _ = read_network(trt, log, builder, plan)
    config, notes = builder_config(trt, builder, network, plan)
    return config, network, notes


def flags(trt: Any, config: Any) -> set[str]:
    members = trt.BuilderFlag.__members__
    return {name for name, flag in members.items() if config.get_flag(flag)}


@pytest.mark.parametrize(
    ("release", "precision", "rest", "wanted"),
    [
        (XAVIER, "fp32", "fp32", set()),
        (XAVIER, "fp16", "fp16", {"FP16"}),
        (XAVIER, "int8", "fp16", {"INT8", "FP16"}),
        (XAVIER, "int8", "fp32", {"INT8"}),
        (T4, "fp8", "fp16", {"FP8", "FP16"}),
        (ORIN, "bf16", "bf16", {"BF16"}),
        (H100, "int8", "bf16", {"INT8", "BF16"}),
        (STRONG, "fp16", "fp16", set()),
        (LATEST, "fp16", "fp16", set()),
    ],
)
def test_types_are_flags_where_the_library_chooses_them(
    release: Release, precision: str, rest: str, wanted: set[str]
) -> None:
    with release.on() as here:
        plan = float_plan(release, precision=precision, rest=rest)
        config, *_ = configured(here.trt, plan)
        assert flags(here.trt, config) & TYPES == wanted


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_float32_is_not_19_bits_unless_asked_for(release: Release) -> None:
    with release.on() as here:
        for tf32 in (False, True):
            config, *_ = configured(here.trt, float_plan(release, tf32=tf32))
            assert config.get_flag(here.trt.BuilderFlag.TF32) == tf32


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_layers_are_told_in_detail_and_memory_is_limited(release: Release) -> None:
    with release.on() as here:
        config, *_ = configured(here.trt, float_plan(release, workspace_bytes=1 << 20))
        workspace = here.trt.MemoryPoolType.WORKSPACE
        assert config.get_memory_pool_limit(workspace) == 1 << 20
        assert config.profiling_verbosity == here.trt.ProfilingVerbosity.DETAILED
        usual, *_ = configured(here.trt, float_plan(release))
        assert usual.get_memory_pool_limit(workspace) > 1 << 40


@pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
def test_the_network_is_typed_as_the_plan_says(release: Release) -> None:
    with release.on() as here:
        _, network, _ = configured(here.trt, float_plan(release))
        assert not network.has_implicit_batch_dimension
        if release is STRONG:
            strongly = here.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            assert network.get_flag(strongly)


@pytest.mark.parametrize(
    ("release", "fields", "reason"),
    [
        (LATEST, {"typing": "weak"}, "typing = weak, and TensorRT 11.4.0 lets the graph alone"),
        (XAVIER, {"typing": "strong"}, "typing = strong, which TensorRT 8.5.2 doesn't know"),
        (XAVIER, {"precision": "bf16"}, "bf16, which TensorRT 8.5.2 doesn't have"),
        (XAVIER, {"precision": "fp8"}, "fp8, which TensorRT 8.5.2 doesn't have"),
        (T4, {"precision": "int8", "rest": "bf16"}, "bf16, which TensorRT 8.6.1 doesn't have"),
        (STRONG, {"quantization": "implicit", "cache": "TRT-1"}, "cache with typing = strong"),
        (LATEST, {"quantization": "implicit"}, "a calibration cache, which TensorRT 11.4.0"),
        (XAVIER, {"quantization": "implicit"}, "implicit INT8 without a scale"),
        (XAVIER, {"use_dla": True}, "a DLA with fp32; it computes in int8 and fp16 alone"),
        (
            XAVIER,
            {"layer_precisions": {"*": "fp16", "conv": "bf16"}},
            "'conv' of the list in 'bf16', and TensorRT 8.5.2 has int8, fp16, fp32; build the",
        ),
        (T4, {"layer_precisions": {"*": "int7"}}, r"layer '\*' of the list in 'int7'"),
    ],
)
def test_what_a_version_cannot_do(release: Release, fields: dict[str, Any], reason: str) -> None:
    plan = BuildPlan(**{"model": b"", "typing": release.typing, **fields})
    with release.on() as here, pytest.raises(DeviceError, match=reason):
        check_plan(here.trt, plan)


class TestSinceEightSix:
    def test_the_level_of_effort(self) -> None:
        with T4.on() as here:
            config, _, notes = configured(here.trt, float_plan(T4, optimization_level=5))
            assert config.builder_optimization_level == 5
            assert notes == []

    def test_no_level_of_effort_is_noted(self) -> None:
        with XAVIER.on() as here:
            _, _, notes = configured(here.trt, float_plan(XAVIER, optimization_level=5))
            assert notes == ["optimization level left out: TensorRT 8.5.2 has none"]

    def test_an_engine_for_later_versions(self) -> None:
        with ORIN.on() as here:
            config, *_ = configured(here.trt, float_plan(ORIN, version_compatible=True))
            assert config.get_flag(here.trt.BuilderFlag.VERSION_COMPATIBLE)

    def test_an_engine_for_other_gpus(self) -> None:
        with ORIN.on() as here:
            config, *_ = configured(here.trt, float_plan(ORIN, hardware_compatible=True))
            level = here.trt.HardwareCompatibilityLevel.AMPERE_PLUS
            assert config.hardware_compatibility_level == level

    @pytest.mark.parametrize("field", ["version_compatible", "hardware_compatible"])
    def test_neither_before(self, field: str) -> None:
        with XAVIER.on() as here, pytest.raises(DeviceError, match=f"{field}, which TensorRT 8.5"):
            configured(here.trt, float_plan(XAVIER, **{field: True}))


class TestProfiles:
    @pytest.mark.parametrize("release", RELEASES.values(), ids=RELEASES)
    def test_a_free_input_takes_its_sizes(self, release: Release) -> None:
        with release.on() as here:
            built = build_plan(here.trt, float_plan(release, residual(), profiles=BATCHES))
            runtime = here.trt.Runtime(LogLines(here.trt))
            engine = runtime.deserialize_cuda_engine(built.engine)
            assert [tuple(s) for s in engine.get_tensor_profile_shape("x", 0)] == [*BATCHES["x"]]

    def test_calibration_knows_them_too(self) -> None:
        """Without one TensorRT refuses to calibrate dynamic inputs."""
        with XAVIER.on() as here:
            plan = implicit_plan(XAVIER, model=residual().serialized, profiles=BATCHES)
            config, *_ = configured(here.trt, plan)
            assert config.get_calibration_profile() is not None

    def test_a_free_input_without_sizes(self) -> None:
        reason = r"input 'x' has free dimensions \[-1, 3, 6, 8\] and no profile"
        with XAVIER.on() as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, float_plan(XAVIER, residual()))

    @pytest.mark.parametrize(
        "shapes",
        [
            ((4, 3, 6, 8), (2, 3, 6, 8), (8, 3, 6, 8)),
            ((1, 3, 6, 9), (2, 3, 6, 9), (8, 3, 6, 9)),
            ((1, 3, 6), (2, 3, 6), (8, 3, 6)),
            ((1, 3, 6, 8), (8, 3, 6, 8)),
        ],
    )
    def test_sizes_that_do_not_fit(self, shapes: Any) -> None:
        plan = float_plan(XAVIER, residual(), profiles={"x": shapes})
        with XAVIER.on() as here, pytest.raises(DeviceError, match="of input 'x', whose shape is"):
            build_plan(here.trt, plan)


class TestDla:
    def test_what_it_cannot_run_goes_to_the_gpu(self) -> None:
        with XAVIER.on(dla_cores=2) as here:
            plan = implicit_plan(XAVIER, use_dla=True, dla_core=1)
            config, *_ = configured(here.trt, plan)
            assert config.default_device_type == here.trt.DeviceType.DLA
            assert config.DLA_core == 1
            assert config.get_flag(here.trt.BuilderFlag.GPU_FALLBACK)
            built = build_plan(here.trt, plan)
        assert built.problems == []
        assert built.on_dla["conv1"] and not built.on_dla["head"]

    def test_no_such_core(self) -> None:
        plan = implicit_plan(XAVIER, use_dla=True, dla_core=2)
        reason = r"DLA core 2, and TensorRT 8\.5\.2 sees 2 here; give a smaller number"
        with XAVIER.on(dla_cores=2) as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, plan)

    def test_no_core_at_all(self) -> None:
        reason = "DLA core 0, and .* sees 0 here; build for the target of this device's GPU"
        with XAVIER.on() as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, implicit_plan(XAVIER, use_dla=True))

    def test_an_engine_of_which_it_takes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with XAVIER.on(dla_cores=2) as here:
            monkeypatch.setattr(
                here.trt.IBuilderConfig, "can_run_on_DLA", lambda self, layer: False
            )
            built = build_plan(here.trt, implicit_plan(XAVIER, use_dla=True))
        assert built.problems == ["no layer runs on the DLA, which this engine is for"]


class TestTimingCache:
    def test_what_was_measured_is_kept(self, tmp_path: Path) -> None:
        plan = float_plan(XAVIER, timing_cache=str(tmp_path / "timing.cache"))
        with XAVIER.on() as here:
            first = build_plan(here.trt, plan)
            stored = (tmp_path / "timing.cache").read_bytes()
            assert b"conv1" in stored
            config, *_ = configured(here.trt, plan)
            assert load_timing_cache(config, plan) == []
            assert bytes(config.get_timing_cache().serialize()) == stored
        assert first.messages == []
        assert [path.name for path in tmp_path.iterdir()] == ["timing.cache"]

    def test_one_of_another_gpu_is_not_used(self, tmp_path: Path) -> None:
        path = str(tmp_path / "timing.cache")
        with ORIN.on() as here:
            build_plan(here.trt, float_plan(ORIN, timing_cache=path))
        with XAVIER.on() as here:
            plan = float_plan(XAVIER, timing_cache=path)
            config, *_ = configured(here.trt, plan)
            (note,) = load_timing_cache(config, plan)
            assert "is of another GPU or TensorRT; started a new one" in note
            save_timing_cache(config, plan)
        assert b"conv1" not in Path(path).read_bytes()

    def test_none_is_written_unasked(self, tmp_path: Path) -> None:
        with XAVIER.on() as here:
            config, *_ = configured(here.trt, explicit_plan(XAVIER, rest="fp16"))
            save_timing_cache(config, float_plan(XAVIER))
        assert list(tmp_path.iterdir()) == []
