"""`plugin_check`: what a folder promises is held against it; what wasn't checked is named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from plugin_folders import copied, forget, needs_compiler

from deploy import registry
from deploy.plugin.check import Finding, check
from deploy.plugin.listing import rows
from deploy.target import Target


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of a test's own; and without nvcc, which takes its time."""
    forget(monkeypatch)
    hide(monkeypatch, "nvcc")


def hide(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else real(name))


def found(name: str, target: Target | None = None) -> dict[str, Finding]:
    return {finding.what: finding for finding in check(name, target)}


@pytest.mark.parametrize("name", registry.names("plugin"))
def test_built_in_ones_hold(name: str) -> None:
    needs_compiler()
    findings = found(name)
    for what in ("shape rule", "expansion", "OpenVINO kernel"):
        assert findings[what].outcome == "ok", findings[what]
    assert "failed" not in {finding.outcome for finding in findings.values()}


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    copied(tmp_path, "my_shuffle")
    registry.add_plugin_path(tmp_path)
    findings = found("my_shuffle")
    assert {what: (f.outcome, f.detail) for what, f in findings.items()} == {
        "shape rule": ("ok", "3 examples"),
        "expansion": ("ok", "equals run() on 3 examples, to 0e+00"),
        "OpenVINO kernel": ("not checked", "there is no ov.cpp"),
        "CUDA kernel": ("not checked", "there is no kernel.cu"),
        "TensorRT glue": ("not checked", "there is no trt_v2.cpp or trt_v3.cpp"),
    }


def test_glue_needs_a_device_to_be_compiled_for() -> None:
    glue = found("shuffle_depthwise")["TensorRT glue"]
    assert (glue.outcome, glue.detail) == ("not checked", "give the device with --target")


def test_cuda_without_nvcc() -> None:
    cuda = found("shuffle_depthwise")["CUDA kernel"]
    assert cuda.outcome == "not checked"
    assert "nvcc isn't on PATH" in cuda.detail


def test_cuda_with_nvcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc isn't on PATH")
    cuda = found("channel_shuffle")["CUDA kernel"]
    assert cuda.outcome == "ok"
    assert "not run: that takes the GPU" in cuda.detail


def test_no_examples(tmp_path: Path) -> None:
    copied(tmp_path, "my_shuffle", before="EXAMPLES =", after="OTHERS =")
    registry.add_plugin_path(tmp_path)
    findings = found("my_shuffle")
    for what in ("shape rule", "expansion"):
        assert findings[what].outcome == "not checked"
        assert findings[what].detail.startswith("op.py has no EXAMPLES")


@pytest.mark.parametrize(
    ("before", "after", "what", "reason"),
    [
        (".reshape(shape)", ".reshape(-1)", "shape rule", "infer_shape says .* run gives"),
        ("perm: ints = [0, 2, 1, 3]", "perm: ints = [0, 1, 2, 3]", "expansion", "differs from run"),
        ("swapaxes(1, 2)", "swapaxes(1, 1)", "OpenVINO kernel", "differs from run"),
        ("Reshape (mixed, shape)", "Flatten (mixed)", "expansion", "gives .* the truth is"),
    ],
)
def test_a_broken_promise(before: str, after: str, what: str, reason: str, tmp_path: Path) -> None:
    kernel = what == "OpenVINO kernel"
    if kernel:
        needs_compiler()
    copied(tmp_path / "mine", "my_shuffle", kernel=kernel, before=before, after=after)
    registry.add_plugin_path(tmp_path / "mine")
    finding = found("my_shuffle")[what]
    assert finding.outcome == "failed"
    assert re.search(reason, finding.detail), finding


def test_a_kernel_that_does_not_compile(tmp_path: Path) -> None:
    needs_compiler()
    folder = copied(tmp_path / "mine", "my_shuffle", kernel=True)
    (folder / "ov.cpp").write_text("nothing\n")
    registry.add_plugin_path(tmp_path / "mine")
    finding = found("my_shuffle")["OpenVINO kernel"]
    assert finding.outcome == "failed"
    log = Path(finding.detail.split("all of it is in ")[1])
    assert "nothing" in log.read_text()
    log.unlink()


class TestList:
    def test_what_a_folder_has_and_who_uses_it(self, tmp_path: Path) -> None:
        folder = copied(tmp_path, "my_shuffle", kernel=True)
        registry.add_plugin_path(tmp_path)
        listed = {row.name: row for row in rows()}
        mine = listed["my_shuffle"]
        assert (mine.op, mine.folder, mine.targets) == ("MyShuffle", folder, ())
        assert mine.parts == ("expansion", "NumPy truth", "OpenVINO kernel")
        depthwise = listed["shuffle_depthwise"]
        assert {"CUDA kernel", "TensorRT 8 glue", "TensorRT 10+ glue"} <= set(depthwise.parts)
        assert {"xavier", "orin"} <= set(depthwise.targets)
        assert "cpu" not in depthwise.targets

    def test_a_broken_one_is_listed_too(self, tmp_path: Path) -> None:
        copied(tmp_path, "my_shuffle", before="import numpy", after="import no_numpy")
        registry.add_plugin_path(tmp_path)
        (mine,) = [row for row in rows() if row.name == "my_shuffle"]
        assert mine.parts == ()
        assert "No module named 'no_numpy'" in mine.problem
