"""A build that was stopped goes on where it was, and ends in the same bundle."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.artifacts.bundle import Bundle
from deploy.pipeline import Job, deploy_model
from deploy.progress import Progress
from deploy.recipe import Recipe

pytestmark = pytest.mark.slow

Deploy = Callable[..., Any]
STAGES = [
    *("load", "simplify", "fuse", "audit", "equalize", "calibrate", "quantize", "correct"),
    *("build", "parity", "ladder", "baseline"),
]
WORDS = ("build", "digits.onnx", "--int8", "--data", "calib.npz", "--samples", 16)
# which placement is the fastest, a clock decides: not here
WORDS += ("--eval-samples", 40, "--search-s", 0, "-o", "out")
FLAGS = {"precision": "int8", "data": "calib.npz", "samples": 16, "eval_samples": 40}
FLAGS |= {"search_s": 0}


class Stops(Progress):
    """Interrupts when a stage starts, or inside it after the first samples."""

    def __init__(self, stage: str, *, inside: bool = False) -> None:
        self.stage, self.inside, self.current = stage, inside, ""

    def start(self, stage: str, total: int | None = None) -> None:
        self.current = stage
        if stage == self.stage and not self.inside:
            raise KeyboardInterrupt

    def advance(self, count: int) -> None:
        if self.current == self.stage and self.inside:
            raise KeyboardInterrupt


class Hears(Progress):
    """Which stages there were, and which of them were reused."""

    def __init__(self) -> None:
        self.reused: dict[str, bool] = {}

    def done(self, stage: str, result: str, *, reused: bool) -> None:
        self.reused[stage] = reused


def job(progress: Progress, *, fresh: bool = False, **flags: Any) -> Job:
    recipe = Recipe.read(None, FLAGS | flags)
    return Job(Path("digits.onnx"), recipe, Path("out"), ["deploy"], fresh, progress)


def files_of(folder: Path) -> dict[str, bytes]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def assert_same_bundle(got: Path, wanted: dict[str, bytes]) -> None:
    found = files_of(got)
    assert set(found) == set(wanted)
    differs = {name for name in found if found[name] != wanted[name]}
    assert differs <= {"manifest.json", "report.html", "report.json"}, differs
    reports = [json.loads(files["report.json"]) for files in (found, wanted)]
    for report in reports:
        del report["measured"], report["command"]
    assert reports[0] == reports[1]
    assert Bundle.load(got).problems() == []


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> tuple[Path, dict[str, bytes]]:
    """The folder of a build that nobody stopped, and the files of its bundle."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("digits.onnx", "calib.npz"):
        shutil.copy(digits / name, folder / name)
    before = Path.cwd()
    os.chdir(folder)
    try:
        deploy_model(job(Progress()))
    finally:
        os.chdir(before)
    return folder, files_of(folder / "out")


@pytest.fixture
def built(here: Path, whole: tuple[Path, dict[str, bytes]]) -> Path:
    """A working folder with a finished build in it, the work folder included."""
    for name in ("out", "out.work"):
        shutil.copytree(whole[0] / name, here / name)
    return here


@pytest.mark.parametrize("inside", ["calibrate", "parity"])
def test_stopped_inside_a_stage(
    here: Path, whole: tuple[Path, dict[str, bytes]], inside: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        deploy_model(job(Stops(inside, inside=True)))
    assert not Path("out").exists()
    heard = Hears()
    deploy_model(job(heard))
    finished = STAGES[: STAGES.index(inside)]
    assert heard.reused == {s: s in finished for s in STAGES} | {"bench": False}
    assert_same_bundle(Path("out"), whole[1])


def test_stopped_at_every_stage_in_turn(here: Path, whole: tuple[Path, dict[str, bytes]]) -> None:
    """Each attempt finds what the one before it finished, and gets one stage further."""
    for n, stage in enumerate([*STAGES, "bench"]):
        heard = _Both(Hears(), Stops(stage))
        with pytest.raises(KeyboardInterrupt):
            deploy_model(job(heard))
        assert not Path("out").exists(), f"a bundle after a stop at {stage}"
        expected = {s: i < n - 1 for i, s in enumerate(STAGES[:n])}
        if stage == "bench":
            expected["baseline"] = False  # there are two of them, the second is the one heard
        assert heard.hears.reused == expected
    heard_all = Hears()
    deploy_model(job(heard_all))
    assert heard_all.reused == dict.fromkeys(STAGES, True) | {"bench": False}
    assert_same_bundle(Path("out"), whole[1])


class _Both(Progress):
    def __init__(self, hears: Hears, stops: Stops) -> None:
        self.hears, self.stops = hears, stops

    def start(self, stage: str, total: int | None = None) -> None:
        self.stops.start(stage, total)

    def done(self, stage: str, result: str, *, reused: bool) -> None:
        self.hears.done(stage, result, reused=reused)


def test_stopped_while_packaging(
    here: Path, whole: tuple[Path, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("deploy.package.write_manifest", stop)
        with pytest.raises(KeyboardInterrupt):
            deploy_model(job(Progress()))
    assert sorted(p.name for p in here.iterdir() if p.name.startswith("out")) == ["out.work"]
    heard = Hears()
    deploy_model(job(heard))
    assert heard.reused == dict.fromkeys(STAGES, True) | {"bench": False}
    assert_same_bundle(Path("out"), whole[1])


def test_a_stopped_rebuild_leaves_the_earlier_bundle(built: Path) -> None:
    before = files_of(built / "out")
    with pytest.raises(KeyboardInterrupt):
        deploy_model(job(Stops("quantize"), samples=8))
    assert files_of(built / "out") == before


KILLS = """
import os, signal, sys
from pathlib import Path
from deploy.pipeline import Job, deploy_model
from deploy.progress import Progress
from deploy.recipe import Recipe

class Dies(Progress):
    def start(self, stage, total=None):
        self.stage = stage
        if stage == sys.argv[1]:
            os.kill(os.getpid(), signal.SIGKILL)
    def advance(self, count):
        if self.stage == sys.argv[1].removeprefix("in-"):
            os.kill(os.getpid(), signal.SIGKILL)

recipe = Recipe.read(None, {flags})
deploy_model(Job(Path("digits.onnx"), recipe, Path("out"), ["deploy"], False, Dies()))
"""


@pytest.mark.parametrize("stage", ["in-calibrate", "bench"])
def test_killed_for_real(here: Path, whole: tuple[Path, dict[str, bytes]], stage: str) -> None:
    code = KILLS.replace("{flags}", repr(FLAGS))
    ran = subprocess.run(
        [sys.executable, "-c", code, stage], cwd=here, capture_output=True, timeout=60, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert not Path("out").exists()
    heard = Hears()
    deploy_model(job(heard))
    finished = STAGES if stage == "bench" else STAGES[: STAGES.index("calibrate")]
    assert heard.reused == {s: s in finished for s in STAGES} | {"bench": False}
    assert_same_bundle(Path("out"), whole[1])
    assert list(Path().rglob("*.partial")) == [], "what the killed build left is gone"


SIGNALS = """
import os, signal, sys
from deploy.cli import main, terminal

class Stops(terminal.Terminal):
    def start(self, stage, total=None):
        super().start(stage, total)
        if stage == "quantize":
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))

terminal.Terminal = Stops
from deploy.cli import build
build.Terminal = Stops
main(sys.argv[2:])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_by_a_signal(here: Path, deploy: Deploy, name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", SIGNALS, name, *map(str, WORDS)],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 130
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-1] == (
        "error: interrupted; run the same command again to go on from there"
    )
    assert ran.stderr.count("error:") == 1
    assert "Traceback" not in ran.stderr
    assert list(here.rglob("manifest.json")) == []
    again = deploy(*WORDS)
    assert again.code == 0
    assert [stage for stage, reused in again.stages.items() if reused] == (
        STAGES[: STAGES.index("quantize")]
    )


class TestWhatIsRedone:
    """Content decides: a stage is redone when anything that it was made from changed."""

    def reused(self, *, fresh: bool = False, **flags: Any) -> list[str]:
        heard = Hears()
        deploy_model(job(heard, fresh=fresh, **flags))
        return [stage for stage in STAGES if heard.reused[stage]]

    def test_nothing_changed(self, built: Path) -> None:
        assert self.reused() == STAGES

    def test_fresh_redoes_everything(
        self, built: Path, whole: tuple[Path, dict[str, bytes]]
    ) -> None:
        assert self.reused(fresh=True) == []
        assert_same_bundle(Path("out"), whole[1])

    def test_fresh_flag(self, built: Path, deploy: Deploy) -> None:
        ran = deploy(*WORDS, "--fresh")
        assert ran.code == 0
        assert list(ran.stages) == [*STAGES, "bench"]
        assert not any(ran.stages.values())

    def test_batch_size_changes_nothing(self, built: Path) -> None:
        assert self.reused(batch_size=3) == STAGES

    def test_more_samples(self, built: Path) -> None:
        assert self.reused(samples=24) == ["load", "simplify", "fuse", "baseline"]

    def test_calibrator(self, built: Path) -> None:
        # the held-out samples stay, but another engine is judged on them
        again = self.reused(calibrator="entropy")
        assert again == ["load", "simplify", "fuse", "audit", "equalize", "baseline"]

    def test_gate(self, built: Path) -> None:
        assert self.reused(max_drop=50.0) == [s for s in STAGES if s not in ("parity", "ladder")]

    def test_evaluation_samples(self, built: Path) -> None:
        # the audit holds the samples that calibrate beside those that judge
        redone = ("audit", "parity", "ladder")
        assert self.reused(eval_samples=30) == [s for s in STAGES if s not in redone]

    def test_engine_batch(self, built: Path) -> None:
        assert self.reused(batch=2) == STAGES[: STAGES.index("build")]

    def test_weight_bits(self, built: Path) -> None:
        Path("mine.toml").write_text('extends = "cpu"\n[quantization]\nweight_bits = 7\n')
        again = self.reused(target="mine.toml")
        assert again == [*STAGES[: STAGES.index("quantize")], "baseline"]

    def test_shape(self, built: Path) -> None:
        # the batch is fixed in the graph: every later stage sees another model
        assert self.reused(shape={"image": (1, 1, 8, 8)}) == []

    @pytest.mark.parametrize("damage", ["flip", "remove", "record"])
    def test_damaged_stage_is_noticed(
        self, built: Path, whole: tuple[Path, dict[str, bytes]], damage: str
    ) -> None:
        (file,) = Path("out.work").glob("quantize-*/model.onnx")
        if damage == "remove":
            file.unlink()
        elif damage == "record":
            (file.parent / "stage.json").write_text("{")
        else:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        assert self.reused() == [s for s in STAGES if s != "quantize"]
        assert_same_bundle(Path("out"), whole[1])

    def test_earlier_recipes_leave_nothing_behind(self, built: Path) -> None:
        self.reused(samples=8)
        names = sorted(p.name.split("-")[0] for p in Path("out.work").iterdir())
        assert names == sorted([*STAGES, "baseline", "onnx"])


def test_two_builds_at_once_are_refused(built: Path, deploy: Deploy) -> None:
    from deploy.work import Work

    with Work(Path("out.work"), {}):
        ran = deploy(*WORDS)
    assert (ran.code, len(ran.errors)) == (2, 1)
    assert "out.work: another build is working here; wait for it or give another -o" in ran.err


class TestRanges:
    """`ranges.json` is the calibration cache: reused when it fits, refused when it doesn't."""

    CALIBRATE = ("calibrate", "fused.onnx", "--data", "calib.npz", "-o", "ranges.json", "--json")

    @pytest.fixture
    def fused(self, here: Path, whole: tuple[Path, dict[str, bytes]]) -> Path:
        shutil.copy(whole[0] / "out/model/fused.onnx", here / "fused.onnx")
        return here

    def test_reused(self, fused: Path, deploy: Deploy) -> None:
        first = deploy(*self.CALIBRATE, "--samples", 12)
        assert (first.code, first.json["reused"], first.json["samples"]) == (0, False, 12)
        before = Path("ranges.json").stat()
        again = deploy(*self.CALIBRATE, "--samples", 12)
        assert (again.code, again.json["reused"]) == (0, True)
        assert "(reused)" in again.err
        assert Path("ranges.json").stat().st_mtime_ns == before.st_mtime_ns

    @pytest.mark.parametrize(
        ("flags", "reason"),
        [
            (("--samples", 13), r"made from other samples \(\d+ differ\); give another"),
            (
                ("--samples", 12, "--calibrator", "entropy"),
                "made with calibrator = auto, this bu",
            ),
        ],
    )
    def test_refused(
        self, fused: Path, deploy: Deploy, flags: tuple[Any, ...], reason: str
    ) -> None:
        assert deploy(*self.CALIBRATE, "--samples", 12).code == 0
        before = Path("ranges.json").read_bytes()
        ran = deploy(*self.CALIBRATE, *flags)
        assert (ran.code, len(ran.errors), ran.out) == (1, 1, "")
        assert "; give another -o, or --fresh to replace it" in ran.errors[0]
        assert re.search(reason, ran.errors[0]), ran.errors[0]
        assert Path("ranges.json").read_bytes() == before
        ran = deploy(*self.CALIBRATE, *flags, "--fresh")
        assert (ran.code, ran.json["reused"]) == (0, False)
        assert Path("ranges.json").read_bytes() != before

    def test_refused_for_another_model(self, fused: Path, deploy: Deploy) -> None:
        assert deploy(*self.CALIBRATE, "--samples", 12).code == 0
        before = Path("ranges.json").read_bytes()
        words = ("calibrate", "digits.onnx", *self.CALIBRATE[2:], "--samples", 12)
        ran = deploy(*words)
        assert ran.code == 1
        assert "ranges.json: made from model " in ran.errors[0]
        assert Path("ranges.json").read_bytes() == before

    def test_a_file_that_is_no_ranges_file_is_not_overwritten(
        self, fused: Path, deploy: Deploy
    ) -> None:
        Path("ranges.json").write_text("my notes")
        ran = deploy(*self.CALIBRATE)
        assert (ran.code, len(ran.errors)) == (1, 1)
        assert "ranges.json: not a ranges file" in ran.errors[0]
        assert Path("ranges.json").read_text() == "my notes"

    def test_build_takes_matching_ranges(
        self, built: Path, deploy: Deploy, whole: tuple[Path, dict[str, bytes]]
    ) -> None:
        shutil.copy("out/ranges.json", "ranges.json")
        ran = deploy(*WORDS[:-1], "second", "--ranges", "ranges.json")
        assert ran.code == 0, ran.err
        assert ran.stages["calibrate"] is True
        got = files_of(Path("second"))
        for name in ("ranges.json", "model/quantized.onnx", "engine/model.bin"):
            assert got[name] == whole[1][name], name

    def test_build_refuses_other_ranges(self, built: Path, deploy: Deploy) -> None:
        shutil.copy("out/ranges.json", "ranges.json")
        before = Path("ranges.json").read_bytes()
        for flags, reason in (
            (("--calibrator", "entropy"), "made with calibrator = auto, this build has"),
            # the equalized model is another one with other samples
            (("--samples", "20"), "made from model"),
        ):
            ran = deploy(*WORDS[:-1], "second", *flags, "--ranges", "ranges.json")
            assert (ran.code, len(ran.errors)) == (1, 1)
            assert f"ranges.json: {reason}" in ran.errors[0]
            assert "leave out --ranges to calibrate again" in ran.errors[0]
            assert not Path("second").exists()
        assert Path("ranges.json").read_bytes() == before
