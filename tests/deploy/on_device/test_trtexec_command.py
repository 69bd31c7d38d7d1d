from __future__ import annotations

from pathlib import Path

import pytest

from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_plan import BuildPlan
from deploy.on_device.trtexec_command import (
    TrtexecFiles,
    as_typed,
    build_command,
    once_flags,
    plugin_flags,
    run_command,
    timing_flags,
)

FILES = TrtexecFiles(*(Path("/d") / name for name in ("m.onnx", "c", "e", "l", "t")))


def implicit(layers: dict[str, str]) -> BuildPlan:
    return BuildPlan(
        b"", "int8", "fp16", "implicit", cache="TRT-8502-", scales={}, layer_precisions=layers
    )


def test_types_of_a_weak_network() -> None:
    command = build_command("trtexec", BuildPlan(b"", "int8", "bf16"), FILES, (10, 3, 0))
    assert [flag for flag in command if flag in ("--int8", "--fp16", "--bf16")] == [
        *("--int8", "--bf16"),
    ]
    assert "--noTF32" in command
    assert "--noTF32" not in build_command("t", BuildPlan(b"", tf32=True), FILES, (10, 3, 0))


def test_a_dla_never_obeys() -> None:
    plan = implicit({"conv": "int8"})
    plan.obey = True
    assert "--precisionConstraints=obey" in build_command("t", plan, FILES, (8, 5, 2))
    plan.use_dla, plan.dla_core = True, 1
    command = build_command("t", plan, FILES, (8, 5, 2))
    assert "--precisionConstraints=prefer" in command
    assert command[command.index("--useDLACore=1") + 1] == "--allowGPUFallback"


@pytest.mark.parametrize("name", ["it's", "a,b"])
def test_names_that_the_list_cannot_hold(name: str) -> None:
    with pytest.raises(DeviceError, match=r"has a quote or comma, which trtexec's list can't"):
        build_command("t", implicit({name: "int8"}), FILES, (8, 5, 2))
    with pytest.raises(DeviceError, match=r"has a quote or comma, which trtexec's --loadInputs"):
        once_flags({name: Path("/x")}, Path("/o"))


def test_a_list_longer_than_linux_passes() -> None:
    layers = {f"a/rather/long/name/of/a/layer/{i}": "int8" for i in range(4000)}
    with pytest.raises(DeviceError, match=r"--layerPrecisions has \d+ characters, more than Linux"):
        build_command("t", implicit(layers), FILES, (8, 5, 2))


def test_ranges_are_not_for_trtexec() -> None:
    plan = implicit({})
    plan.use_ranges = True
    with pytest.raises(DeviceError, match="takes no dynamic ranges"):
        build_command("t", plan, FILES, (8, 5, 2))


def test_plugins_by_version() -> None:
    assert plugin_flags(["/a.so", "/b.so"], (8, 5, 2)) == ["--plugins=/a.so", "--plugins=/b.so"]
    assert plugin_flags(["/a.so"], (8, 6, 1)) == ["--staticPlugins=/a.so"]


def test_runs() -> None:
    plan = BuildPlan(b"", use_dla=True, plugin_libraries=["/a.so"])
    assert run_command("t", plan, Path("/e"), (10, 3, 0), {"x:0": (2, 3)}) == [
        *("t", "--loadEngine=/e", "--shapes=x:0:2x3", "--useDLACore=0", "--staticPlugins=/a.so"),
    ]
    assert "--useSpinWait" in timing_flags(5, (10, 3, 0))
    assert "--useSpinWait" not in timing_flags(5, (11, 1, 0))


def test_as_one_types_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert as_typed(["trtexec", f"--onnx={tmp_path}/m.onnx", "--l=*:fp16"]) == (
        "trtexec --onnx=m.onnx '--l=*:fp16'"
    )
