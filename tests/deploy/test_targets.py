"""Every target file keeps the contract, and a wrong one is refused with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import conv, ranges_of, residual

from deploy import registry
from deploy.artifacts.model import Model
from deploy.errors import RecipeError
from deploy.fuse import fuse
from deploy.nvidia.settings import Nvidia
from deploy.placed import place
from deploy.placement import NOTHING
from deploy.target import Target

TARGETS = registry.names("target")
OPENVINO = [
    "arm-cpu",
    "cpu",
    "intel-amx",
    "intel-avx2",
    "intel-gpu",
    "intel-npu",
    "intel-vnni",
    "rpi3",
]
NVIDIA = [
    "a100",
    "h100",
    "h200",
    "l4",
    "orin",
    "orin-dla",
    "rtx30",
    "rtx40",
    "rtx50",
    "t4",
    "thor",
    "v100",
    "xavier",
    "xavier-dla",
]
# what TensorRT's parser lacks, and the fusion that writes it out
EXPANDED = {
    (8, 5): {"gelu", "mish", "swish", "rms_norm", "group_norm", "layer_norm"},
    (8, 6): {"gelu", "mish", "swish", "rms_norm", "group_norm"},
    (10, 3): {"swish", "rms_norm", "group_norm"},
    (10, 13): {"swish", "rms_norm", "group_norm"},
    (10, 16): {"swish"},
    (1, 7): set(),
}


def write(folder: Path, text: str, name: str = "mine") -> str:
    """A target file of the user's own; its path as the user would give it."""
    file = folder / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def refuses(name_or_path: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(reason)) as caught:
        Target.load(name_or_path)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_the_documented_targets_are_found() -> None:
    assert set(TARGETS) == {*OPENVINO, *NVIDIA}


def test_only_one_target_is_the_host() -> None:
    assert [name for name in TARGETS if Target.load(name).host] == ["cpu"]


def test_titles_tell_targets_apart() -> None:
    titles = [Target.load(name).title for name in TARGETS]
    assert len(set(titles)) == len(titles)  # a child that forgot its title has its parent's


@pytest.mark.parametrize("name", TARGETS)
class TestContract:
    def test_name_is_the_file_stem(self, name: str) -> None:
        assert Target.load(name).name == registry.path("target", name).stem == name

    def test_tables_speak_of_the_offered_precisions_only(self, name: str) -> None:
        target = Target.load(name)
        offered = set(target.precisions)
        assert len(offered) == len(target.precisions)
        assert set(target.roofline.peak_flops) == offered
        assert set(target.tolerances) == offered
        assert set(target.engine.inference_precision) == offered

    def test_every_precision_has_a_noise_floor(self, name: str) -> None:
        floors = {p: t.min_sqnr_db for p, t in Target.load(name).tolerances.items()}
        assert all(floor is not None and floor > 0 for floor in floors.values())
        # coarser arithmetic is never held to a tighter floor than finer arithmetic
        ordered = [floors[p] or 0.0 for p in ("fp32", "fp16", "bf16", "int8") if p in floors]
        assert ordered == sorted(ordered, reverse=True)

    def test_accuracy_drop_is_left_to_the_user(self, name: str) -> None:
        assert all(t.max_drop_pct is None for t in Target.load(name).tolerances.values())

    def test_fewer_bits_are_never_slower_on_paper(self, name: str) -> None:
        peak = Target.load(name).roofline.peak_flops
        assert all(rate > 0 for rate in peak.values())
        # the tensor cores of a V100 take fp16 only
        whole = ("fp32", "int8") if name == "v100" else ("fp32", "fp16", "int8")
        ordered = [peak[p] for p in whole if p in peak]
        assert ordered == sorted(ordered)
        if "bf16" in peak:
            assert min(peak.values()) < peak["bf16"] < max(peak.values())

    def test_roofline_bends_where_real_devices_do(self, name: str) -> None:
        roofline = Target.load(name).roofline
        for precision, peak in roofline.peak_flops.items():
            # FLOP per byte; outside, a figure has lost or gained a factor of 1000
            assert 1 < peak / roofline.bandwidth_bytes_per_s < 2000, precision
        assert 2**18 <= roofline.on_chip_bytes <= 2**28

    def test_only_avx2_gives_up_a_weight_bit(self, name: str) -> None:
        # 2 x 255 x 127 overflows the int16 of vpmaddubsw, 2 x 255 x 63 doesn't
        assert Target.load(name).quantization.weight_bits == (7 if name == "intel-avx2" else 8)

    def test_notes_are_sentences(self, name: str) -> None:
        notes = Target.load(name).notes
        assert notes
        assert all(note.endswith(".") and "\n" not in note for note in notes)
        assert any("roofline" in note for note in notes)  # whose figures they are

    def test_one_line_in_the_list(self, name: str) -> None:
        title = Target.load(name).title
        assert 0 < len(title) <= 70
        assert "\n" not in title


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("network", [conv, residual])
def test_plans_the_tiny_models(name: str, network: Callable[[], Model]) -> None:
    target = Target.load(name)
    fused = fuse(network(), target.fusions)
    assert all(v.name and v.title for v in target.variants)
    if "int8" not in target.precisions:
        return
    planned = place(fused, ranges_of(fused), target, NOTHING)
    assert {node.op for node in planned.placement.layers} >= {"Conv"}


@pytest.mark.parametrize("name", OPENVINO)
class TestOpenVino:
    def test_parts(self, name: str) -> None:
        target = Target.load(name)
        assert (target.backend, target.placement) == ("ov", "openvino")

    def test_latency_settings(self, name: str) -> None:
        engine = Target.load(name).engine
        assert (engine.batch, engine.performance_hint) == (1, "LATENCY")
        assert (engine.threads, engine.streams, engine.cache_dir) == (0, 0, "")

    def test_fusions_are_in_order(self, name: str) -> None:
        target = Target.load(name)
        order = {fusion: at for at, fusion in enumerate(target.fusions)}
        assert len(order) == len(target.fusions), "a fusion is listed twice"
        # a recognition comes before what folds its constants away
        assert order["recognize_hard_swish"] < order["fold_affine"] < order["fold_affine_before"]
        assert order["sink_transpose"] < order["cancel_transpose"] < order["absorb_transpose"]
        # measured slower in OpenVINO
        assert not {"merge_sibling_convs", "split_concat_conv"} & set(order)
        assert "hoist_quantize" in target.quantized_fusions

    def test_openvino_takes_asymmetric_uint8(self, name: str) -> None:
        quantization = Target.load(name).quantization
        assert quantization.activation_dtype == "uint8"
        assert not quantization.activation_symmetric


def nvidia(name: str) -> Nvidia:
    found = Target.load(name).engine.nvidia
    assert found is not None
    return found


@pytest.mark.parametrize("name", NVIDIA)
class TestNvidia:
    def test_parts(self, name: str) -> None:
        target = Target.load(name)
        assert target.backend == ("rtx" if name.startswith("rtx") else "trt")
        implicit = target.quantization.form == "implicit"
        by_cache = "tensorrt_dla" if name.endswith("-dla") else "tensorrt_implicit"
        assert target.placement == (by_cache if implicit else "tensorrt")
        assert target.instruction_set.split(" ")[0] == f"sm_{nvidia(name).sm}"
        assert not target.host

    def test_int8_has_no_zero_points(self, name: str) -> None:
        quantization = Target.load(name).quantization
        assert quantization.activation_dtype == "int8"
        assert quantization.activation_symmetric
        assert quantization.weight_per_channel

    def test_the_dialect_is_the_oldest_release_s(self, name: str) -> None:
        target, found = Target.load(name), nvidia(name)
        releases = [tuple(map(int, version.split("."))) for version in found.versions]
        assert releases == sorted(releases)
        old = found.library == "tensorrt" and found.version < (10, 0, 0)
        assert target.quantization.highest_opset is not None
        assert (target.quantization.highest_opset == 17) == old
        explicit = target.quantization.form == "qdq"
        assert (target.quantization.weight_form == "fp32") == (old or not explicit)

    def test_strong_typing_where_the_release_knows_nothing_else(self, name: str) -> None:
        found = nvidia(name)
        needed = found.library == "tensorrt_rtx" or any(
            int(version.split(".")[0]) >= 11 for version in found.versions
        )
        assert found.typing == "strong" or not needed
        # 8.x has only weak typing, and so has implicit quantization
        implicit = Target.load(name).quantization.form == "implicit"
        assert found.typing == "weak" or (found.version[0] != 8 and not implicit)

    def test_what_the_parser_lacks_is_written_out_first(self, name: str) -> None:
        fusions = Target.load(name).fusions
        assert len(set(fusions)) == len(fusions)
        expanded = [f for f in fusions if f.startswith("expand_")]
        assert list(fusions[: len(expanded)]) == expanded
        hard = {"hard_sigmoid", "hard_swish"}
        own = {f.removeprefix("expand_") for f in expanded} - hard
        # every parser has these two, a DLA has neither
        assert nvidia(name).use_dla == all(f"expand_{each}" in expanded for each in hard)
        lacking = EXPANDED[(8, 5) if nvidia(name).use_dla else nvidia(name).version[:2]]
        assert own == lacking
        both = {f.removeprefix("recognize_") for f in fusions if f.startswith("recognize_")} & own
        assert not both

    def test_tensorrt_moves_qdq_itself(self, name: str) -> None:
        assert Target.load(name).quantized_fusions == ()

    def test_centering_only_with_the_correction_behind_it(self, name: str) -> None:
        target = Target.load(name)
        assert "activation_centering" in target.equalizations
        assert target.corrections == ("bias_correction",)

    def test_a_pad_of_its_own_only_where_qdq_says_what_runs_in_int8(self, name: str) -> None:
        target = Target.load(name)
        explicit = target.quantization.form == "qdq"
        assert ("padded_centering" in target.equalizations) == explicit

    def test_dla(self, name: str) -> None:
        target, found = Target.load(name), nvidia(name)
        assert found.use_dla == name.endswith("-dla")
        assert bool(found.dla_cores) == name.startswith(("xavier", "orin"))
        if found.use_dla:
            assert target.quantization.form == "implicit"
            assert target.precisions == ("fp16", "int8")
            assert not found.plugins, "plugins run on the GPU"
            assert any("static" in note for note in target.notes)
            assert not {"recognize_hard_swish", "recognize_hard_sigmoid"} & set(target.fusions)

    def test_bf16_from_ampere_on(self, name: str) -> None:
        offered = "bf16" in Target.load(name).precisions
        assert offered == (nvidia(name).sm >= 80 and not nvidia(name).use_dla)

    def test_a_jetson_says_its_jetpack(self, name: str) -> None:
        jetson = name.startswith(("xavier", "orin", "thor"))
        assert bool(nvidia(name).jetpack) == jetson
        assert any("built on the device" in n for n in Target.load(name).notes) == jetson

    def test_only_what_was_shown(self, name: str) -> None:
        # nothing has run on a device here
        expected = {"rtx": "compiler", "thor": "predicted"}.get(name.rstrip("0123456789"), "api")
        assert nvidia(name).shown == expected

    def test_int8_is_the_default_where_it_is_the_fastest(self, name: str) -> None:
        slow = name == "v100" or name.startswith("rtx")
        target = Target.load(name)
        assert target.default_precision == ("fp16" if slow else "int8")
        assert not slow or any("INT8" in note for note in target.notes)
        assert target.variants[0].name == "all"

    def test_nominal_figures_are_called_so(self, name: str) -> None:
        notes = " ".join(Target.load(name).notes)
        assert "nominal, not measured" in notes


# cores or engines x GHz x operations per cycle, as the comments in the files say
@pytest.mark.parametrize(
    ("name", "precision", "gflops"),
    [
        ("cpu", "fp32", 278),  # measured, one core
        ("cpu", "bf16", 550),
        ("cpu", "int8", 1100),
        ("intel-avx2", "fp32", 6 * 3.2 * 32),
        ("intel-avx2", "int8", 6 * 3.2 * 64),
        ("intel-vnni", "fp32", 40 * 2.3 * 64),
        ("intel-vnni", "int8", 40 * 2.3 * 256),
        ("intel-amx", "fp32", 56 * 2.0 * 64),
        ("intel-amx", "bf16", 56 * 2.0 * 1024),
        ("intel-amx", "int8", 56 * 2.0 * 2048),
        ("intel-gpu", "fp32", 512 * 2.1 * 16),
        ("intel-gpu", "fp16", 512 * 2.1 * 128),
        ("intel-gpu", "int8", 512 * 2.1 * 256),
        ("intel-npu", "fp16", 1.16 * 4096),
        ("intel-npu", "int8", 1.16 * 4096 * 2),
        ("arm-cpu", "fp32", 4 * 2.4 * 16),
        ("arm-cpu", "fp16", 4 * 2.4 * 32),
        ("rpi3", "fp32", 4 * 1.2 * 8),
        ("v100", "fp32", 15000),  # as published: 5120 x 1.455 x 2 = 14899
        ("v100", "fp16", 120000),
        ("v100", "int8", 60000),
        ("t4", "fp32", 2560 * 1.59 * 2),
        ("t4", "int8", 320 * 1.59 * 256),
        ("xavier", "fp32", 512 * 1.377 * 2),
        ("xavier", "fp16", 64 * 1.377 * 128),
        ("xavier", "int8", 64 * 1.377 * 256),
        ("xavier-dla", "int8", 11400 / 2),
        ("orin", "fp32", 2048 * 1.3 * 2),
        ("orin", "int8", 64 * 1.3 * 1024),
        ("orin-dla", "int8", 105000 / 2 / 2),
        ("thor", "fp32", 2560 * 1.575 * 2),
        ("thor", "int8", 2070000 / 4),
        ("a100", "fp32", 6912 * 1.41 * 2),
        ("a100", "bf16", 432 * 1.41 * 512),
        ("a100", "int8", 432 * 1.41 * 1024),
        ("l4", "fp32", 7424 * 2.04 * 2),
        ("l4", "int8", 232 * 2.04 * 512),
        ("h100", "fp32", 16896 * 1.98 * 2),
        ("h100", "int8", 528 * 1.83 * 2048),
        ("h200", "fp16", 528 * 1.83 * 1024),
        ("rtx30", "fp32", 10496 * 1.695 * 2),
        ("rtx30", "int8", 328 * 1.695 * 512),
        ("rtx40", "fp16", 512 * 2.52 * 128),
        ("rtx40", "int8", 512 * 2.52 * 512),
        ("rtx50", "fp32", 21760 * 2.407 * 2),
        ("rtx50", "int8", 680 * 2.407 * 512),
    ],
)
def test_peak_rates_are_the_arithmetic_beside_them(
    name: str, precision: str, gflops: float
) -> None:
    peak = Target.load(name).roofline.peak_flops
    assert peak[precision] == pytest.approx(gflops * 1e9, rel=3e-3)  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "gbytes_per_s", "on_chip_kib"),
    [
        ("cpu", 39, 1024),  # measured, one core
        ("intel-avx2", 2 * 8 * 2.666, 6 * 256),
        ("intel-vnni", 8 * 8 * 3.2, 40 * 1280),
        ("intel-amx", 8 * 8 * 4.8, 56 * 2048),
        ("intel-gpu", 32 * 17.5, 16 * 1024),
        ("intel-npu", 16 * 7.467, 2 * 2048),
        ("arm-cpu", 4 * 4.267, 4 * 512),
        ("rpi3", 4 * 0.9, 512),
        ("v100", 900, 36 * 1024),
        ("t4", 32 * 10, 40 * (256 + 96) + 4096),
        ("xavier", 32 * 4.266, 8 * (256 + 128) + 512),
        ("xavier-dla", 32 * 4.266, 4096),
        ("orin", 32 * 6.4, 16 * (256 + 192) + 4096),
        ("orin-dla", 32 * 6.4, 1024),
        ("thor", 273, 20 * (256 + 256) + 32 * 1024),
        ("a100", 2039, 108 * (256 + 192) + 40 * 1024),
        ("l4", 300, 58 * (256 + 128) + 48 * 1024),
        ("h100", 3350, 132 * (256 + 256) + 50 * 1024),
        ("h200", 4800, 132 * (256 + 256) + 50 * 1024),
        ("rtx30", 48 * 19.5, 82 * (256 + 128) + 6 * 1024),
        ("rtx40", 48 * 21, 128 * (256 + 128) + 72 * 1024),
        ("rtx50", 64 * 28, 170 * (256 + 128) + 96 * 1024),
    ],
)
def test_memory_figures_are_the_arithmetic_beside_them(
    name: str, gbytes_per_s: float, on_chip_kib: int
) -> None:
    roofline = Target.load(name).roofline
    assert roofline.bandwidth_bytes_per_s == pytest.approx(gbytes_per_s * 1e9, rel=4e-3)
    assert roofline.on_chip_bytes == on_chip_kib * 1024


class TestDevices:
    def test_fp16_on_x86_may_run_as_bf16_and_is_judged_so(self) -> None:
        for name in ("cpu", "intel-amx"):
            target = Target.load(name)
            assert target.engine.inference_precision["fp16"] == ""
            assert target.tolerances["fp16"] == target.tolerances["bf16"]

    def test_rest_of_an_int8_engine_runs_in_f32_on_the_host(self) -> None:
        assert Target.load("cpu").engine.inference_precision["int8"] == "f32"

    @pytest.mark.parametrize("name", ["intel-avx2", "intel-vnni", "intel-gpu", "intel-npu"])
    def test_no_bf16_without_the_hardware(self, name: str) -> None:
        assert "bf16" not in Target.load(name).precisions

    def test_npu_is_static_and_computes_in_fp16(self) -> None:
        target = Target.load("intel-npu")
        assert target.engine.device == "NPU"
        assert target.engine.batch == 1
        assert target.precisions == ("fp16", "int8")
        assert any("static" in note for note in target.notes)

    def test_arm_defaults_to_fp16_and_says_why_not_int8(self) -> None:
        target = Target.load("arm-cpu")
        assert target.default_precision == "fp16"
        assert "int8" not in target.precisions
        assert any("INT8 isn't offered" in note for note in target.notes)

    def test_rpi3_stores_fp16_but_computes_in_fp32(self) -> None:
        target = Target.load("rpi3")
        assert target.default_precision == "fp32"
        assert target.precisions == ("fp32", "fp16")
        assert target.engine.inference_precision == {"fp32": "f32", "fp16": "f32"}
        assert target.roofline.peak_flops["fp16"] == target.roofline.peak_flops["fp32"]


class TestOwnFile:
    def test_extends_a_built_in_target(self, tmp_path: Path) -> None:
        text = 'extends = "cpu"\ntitle = "my server"\n[engine]\nthreads = 3\n'
        mine, cpu = Target.load(write(tmp_path, text)), Target.load("cpu")
        assert (mine.name, mine.title) == ("mine", "my server")
        assert mine.engine == cpu.engine.model_copy(update={"threads": 3})
        assert mine.roofline == cpu.roofline

    def test_extends_a_target_that_extends(self, tmp_path: Path) -> None:
        text = 'extends = "intel-amx"\n[roofline.peak_flops]\nint8 = 1e12\n'
        mine, amx = Target.load(write(tmp_path, text)), Target.load("intel-amx")
        assert mine.roofline.peak_flops == amx.roofline.peak_flops | {"int8": 1e12}
        assert mine.quantization.weight_bits == 8

    def test_extends_another_file_of_the_users(self, tmp_path: Path) -> None:
        base = write(tmp_path, 'extends = "cpu"\n[engine]\nstreams = 2\n', "base")
        mine = Target.load(write(tmp_path, f"extends = '{base}'\n[engine]\nthreads = 3\n"))
        assert (mine.engine.streams, mine.engine.threads) == (2, 3)

    def test_a_list_is_replaced_not_joined(self, tmp_path: Path) -> None:
        mine = Target.load(write(tmp_path, 'extends = "cpu"\nfusions = ["hoist_downcast"]\n'))
        assert mine.fusions == ("hoist_downcast",)

    def test_batch_may_be_dynamic(self, tmp_path: Path) -> None:
        text = 'extends = "cpu"\n[engine]\nbatch = "dynamic"\n'
        assert Target.load(write(tmp_path, text)).engine.batch == "dynamic"


class TestRefused:
    def test_unknown_target(self) -> None:
        refuses("intel-vnn", "unknown target 'intel-vnn' (did you mean 'intel-vnni'?)")

    def test_missing_file(self, tmp_path: Path) -> None:
        refuses(str(tmp_path / "none.toml"), "no such target file; `deploy targets`")

    def test_bad_toml(self, tmp_path: Path) -> None:
        refuses(write(tmp_path, 'extends = "cpu'), "mine.toml: not valid TOML")

    def test_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_bytes(b'title = "\xff"')
        refuses(str(tmp_path / "mine.toml"), "mine.toml: not valid TOML")

    def test_extends_itself(self, tmp_path: Path) -> None:
        refuses(write(tmp_path, 'extends = "mine.toml"'), "extends itself; name another target")

    def test_two_that_extend_each_other(self, tmp_path: Path) -> None:
        (tmp_path / "other.toml").write_text('extends = "mine.toml"')
        refuses(write(tmp_path, 'extends = "other.toml"'), "extends itself; name another target")

    def test_a_target_of_the_same_name_may_extend_the_built_in_one(self, tmp_path: Path) -> None:
        path = tmp_path / "cpu.toml"
        path.write_text('extends = "cpu"\ntitle = "mine"')
        assert Target.load(str(path)).title == "mine"

    def test_extends_an_unknown_target(self, tmp_path: Path) -> None:
        refuses(write(tmp_path, 'extends = "arm_cpu"'), "(did you mean 'arm-cpu'?)")

    def test_missing_key(self, tmp_path: Path) -> None:
        refuses(write(tmp_path, 'title = "mine"'), "mine.toml: backend is missing")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('presicions = ["fp32"]', "unknown key 'presicions' (did you mean 'precisions'?)"),
            ("[engine]\nthread = 2", "unknown key 'engine.thread' (did you mean 'threads'?)"),
            (
                "[quantization]\nbits = 8",
                "allowed: activation_dtype, activation_symmetric, bias_form",
            ),
            ("[engine]\nbatch = 0", "batch = 0; give a size from 1 up"),
            ("[engine]\nthreads = -1", "engine.threads = -1: should be greater than or equal to 0"),
            ("[quantization]\nweight_bits = 9", "weight_bits = 9: should be less than or equal"),
            ("[roofline]\nbandwidth_bytes_per_s = 0", "should be greater than 0"),
            ('precisions = ["int4"]', "'int4': should be 'fp32', 'fp16', 'bf16', 'int8' or 'fp8'"),
            ('precisions = ["fp32"]', "default_precision = 'int8' is not in precisions: fp32"),
            ('fusions = ["fold_afine"]', "fusion 'fold_afine' (did you mean 'fold_affine'?)"),
            ('backend = "ovv"', "mine.toml: unknown backend 'ovv' (did you mean 'ov'?)"),
            ('placement = "openvin"', "placement 'openvin' (did you mean 'openvino'?)"),
        ],
    )
    def test_wrong_value(self, tmp_path: Path, text: str, reason: str) -> None:
        refuses(write(tmp_path, f'extends = "cpu"\n{text}\n'), reason)
