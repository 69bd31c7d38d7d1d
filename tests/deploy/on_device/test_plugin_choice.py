"""finish.py's choice between the engine with kernels of ours and the one without, on the double,
whose GPU takes a quarter of a millisecond per layer."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from device_folder import device_report, write_device
from doubles import installed
from two_graphs import EQUAL, FAST, OURS, PLUGINS, SLOW, device, finish, graph

from deploy.on_device.device_error import DeviceError
from deploy.on_device.engine_trial import Trial, Trials
from deploy.on_device.finish_main import main
from deploy.on_device.plugin_choice import choice_row, with_plugins

pytestmark = pytest.mark.usefixtures("at_once")
IMPLICIT: dict[str, Any] = {"precision": "int8", "quantization": "implicit", "rest": "fp16"}


def test_the_faster_engine_is_kept(
    tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = device(tmp_path / "device")
    report = finish(folder)
    choice = report["plugin_choice"]
    reason = "0.500 ms with them, 0.750 ms without (median GPU time), 33 % less"
    assert (choice["chosen"], choice["reason"]) == ("with plugins", reason)
    assert choice["with"]["gpu_median_ms"] == 0.5
    assert choice["without"]["gpu_median_ms"] == 0.75
    assert choice["with"]["median_ms"] == report["latency"]["median_ms"]
    for row in (choice["with"], choice["without"]):
        assert row["passed"] and row["problems"] == []
        assert row["sqnr_db"] > 100
    assert f"  plugins     kept: {reason}  (" in capsys.readouterr().out
    assert report["latency"]["runs"] == 20
    assert [row["folder"] for row in report["plugins"]] == ["channel_shuffle"]
    assert len(report["layers"]) == 2


def test_what_is_reported_of_the_kept_engine_lies_in_the_folder(
    tmp_path: Path, tools: Path
) -> None:
    folder = device(tmp_path / "device")
    report = finish(folder)
    engine = (folder / "model.engine").read_bytes()
    assert report["engine"]["file"] == "model.engine"
    assert report["engine"]["sha256"] == hashlib.sha256(engine).hexdigest()
    (row,) = report["plugins"]
    library = (folder / row["library"]).read_bytes()
    assert row["sha256"] == hashlib.sha256(library).hexdigest()
    # the other one is gone
    assert [p.name for p in folder.rglob("*.engine")] == ["model.engine"]


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (FAST, "0.500 ms with them, 0.250 ms without (median GPU time), 100 % more"),
        (EQUAL, "0.500 ms with them, 0.500 ms without (median GPU time), equal within 3 %"),
    ],
)
def test_kernels_that_do_not_pay_are_left_out(
    tmp_path: Path, tools: Path, plain: str, reason: str
) -> None:
    folder = device(tmp_path / "device", graph(plain))
    report = finish(folder)
    assert (report["plugin_choice"]["chosen"], report["plugin_choice"]["reason"]) == (
        "without",
        reason,
    )
    assert report["plugins"] == []
    assert report["status"] == "ok"
    assert b"ChannelShuffle" not in (folder / "model.engine").read_bytes()


def test_both_have_their_own_cache_and_layers(tmp_path: Path, tools: Path) -> None:
    """The names in them are those of the graph they go with."""
    folder = write_device(tmp_path / "first", **IMPLICIT)
    cache = (folder / "calibration.cache").read_bytes()
    folder = tmp_path / "device"
    write_device(
        folder,
        plugins=PLUGINS,
        extra_files={
            "model.onnx": graph(OURS),
            "model_plain.onnx": graph(FAST),
            "plugins/channel_shuffle/kernel.cu": b"//",
            "calibration.cache": cache.replace(b"y:", b"r:") + b"y: 3d4ccccd\n",
            "calibration_plain.cache": cache,
            "layer_precisions.txt": b"*:fp16,conv:int8",
            "layer_precisions_plain.txt": b"*:fp16,conv:int8,relu:int8",
        },
        **IMPLICIT,
    )
    report = finish(folder)
    assert report["status"] == "ok", report["problems"]
    assert report["plugin_choice"]["chosen"] == "without"
    assert report["plugin_choice"]["with"]["passed"]
    assert report["int8"]["layers_int8"] == 1


@pytest.mark.parametrize(
    ("flag", "plain", "chosen"),
    [("--with-plugins", FAST, "with plugins"), ("--without-plugins", SLOW, "without")],
)
def test_one_can_be_asked_for(
    tmp_path: Path, tools: Path, flag: str, plain: str, chosen: str
) -> None:
    report = finish(device(tmp_path / "device", graph(plain)), flag)
    assert report["plugin_choice"] == {
        "chosen": chosen,
        "reason": f"asked for by {flag}",
        "with": None,
        "without": None,
    }
    assert bool(report["plugins"]) == (chosen == "with plugins")


def test_asking_for_both_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--with-plugins", "--without-plugins"])
    assert stopped.value.code == 2


def test_nothing_timed_nothing_shown_to_pay(
    tmp_path: Path, tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = finish(device(tmp_path / "device"), "--skip-latency")
    assert report["plugin_choice"]["chosen"] == "without"
    assert "nothing shows that they pay" in report["plugin_choice"]["reason"]
    assert "  plugins     left out: --skip-latency times nothing" in capsys.readouterr().out


def test_a_folder_without_the_plain_graph(tmp_path: Path, tools: Path) -> None:
    folder = device(tmp_path / "device", leave_out=["model_plain.onnx"])
    choice = finish(folder, "--skip-latency")["plugin_choice"]
    assert (choice["chosen"], choice["reason"]) == (
        "with plugins",
        "the folder has no graph without them to compare with",
    )
    report = finish(folder, "--without-plugins", code=1)
    assert "no model_plain.onnx" in report["problems"][0]


def test_a_folder_without_plugins_has_nothing_to_choose(tmp_path: Path) -> None:
    assert finish(write_device(tmp_path / "device"))["plugin_choice"] is None


class TestGates:
    def test_wrong_numbers_are_never_kept_however_fast(self, tmp_path: Path, tools: Path) -> None:
        report = finish(device(tmp_path / "device", ours=graph(OURS, gain=1.2)))
        assert report["status"] == "ok"
        choice = report["plugin_choice"]
        assert choice["chosen"] == "without"
        reason = "the engine with plugins doesn't pass (SQNR of 'y' (dB) is "
        assert choice["reason"].startswith(reason)
        assert choice["with"]["sqnr_db"] < 20 < choice["without"]["sqnr_db"]
        assert choice["with"]["median_ms"] is None
        assert choice["without"]["median_ms"] == report["latency"]["median_ms"]

    def test_the_engine_with_them_may_be_the_one_that_passes(
        self, tmp_path: Path, tools: Path
    ) -> None:
        report = finish(device(tmp_path / "device", graph(FAST, gain=1.2)))
        assert report["status"] == "ok"
        assert report["plugin_choice"]["chosen"] == "with plugins"

    def test_neither(self, tmp_path: Path, tools: Path) -> None:
        wrong = {"plain": graph(FAST, gain=1.2), "ours": graph(OURS, gain=1.2)}
        report = finish(device(tmp_path / "device", **wrong), code=3)
        assert report["plugin_choice"]["chosen"] == "without"
        assert report["plugin_choice"]["reason"].endswith("nor does the one without them")
        assert "needs 20" in report["problems"][0]
        assert (tmp_path / "device" / "model.engine").is_file()

    def test_no_engine_at_all(self, tmp_path: Path, tools: Path) -> None:
        tools.unlink()
        report = finish(device(tmp_path / "device", b"no graph"), code=1)
        (problem,) = report["problems"]
        assert problem.startswith("no engine without plugins: ") and "with them: " in problem


def test_another_gpu_is_refused_before_either(tmp_path: Path, tools: Path) -> None:
    folder = device(tmp_path / "device")
    with installed("8.5.2", 87):
        assert main([str(folder)]) == 3
    assert "this folder is for 7.2" in device_report(folder)["problems"][0]
    assert not list(folder.rglob("*.engine"))


def test_a_timing_that_fails_keeps_the_plain_one(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Trials.time

    def one_at_a_time(self: Trials, trials: Any) -> None:
        if trials[1:]:
            raise DeviceError("the GPU has no 7 bytes left")
        time(self, trials)

    monkeypatch.setattr(Trials, "time", one_at_a_time)
    report = finish(device(tmp_path / "device"))
    assert report["plugin_choice"]["chosen"] == "without"
    assert "timing both by turns failed: the GPU has no" in report["plugin_choice"]["reason"]
    assert report["latency"]["gpu_median_ms"] == 0.75


def timed(plugins: bool, wall: float, gpu: float | None) -> Trial:
    rows = {"parity": None, "latency": {"median_ms": wall, "gpu_median_ms": gpu}}
    return Trial(plugins, rows)


@pytest.mark.parametrize(
    ("ours", "plain", "kept", "words"),
    [
        ((9.0, 1.0), (5.0, 2.0), True, "median GPU time), 50 % less"),
        ((9.0, None), (10.0, None), True, "median wall time), 10 % less"),
        ((9.0, 1.0), (10.0, None), True, "median wall time), 10 % less"),
        ((9.0, 0.98), (9.0, 1.0), False, "equal within 3 %"),
        ((9.0, 1.02), (9.0, 1.0), False, "equal within 3 %"),
        ((9.0, 1.5), (9.0, 1.0), False, "50 % more"),
    ],
)
def test_the_gpus_time_decides_where_it_is_known(
    ours: tuple[float, float | None], plain: tuple[float, float | None], kept: bool, words: str
) -> None:
    found, reason = with_plugins(timed(True, *ours), timed(False, *plain))
    assert (found, words in reason) == (kept, True)
    assert choice_row(found, reason)["chosen"] == ("with plugins" if kept else "without")
