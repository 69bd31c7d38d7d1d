"""The GPU benchmark without a GPU: its arithmetic, its messages, and its comparison with float64,
for which the kernels run on the CPU."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import cuda_kernels
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def module(name: str) -> ModuleType:
    """A file of benchmarks/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


cases: Any = module("gpu_cases")
gpu_plugins: Any = module("gpu_plugins")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / "gpu_plugins.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def result(**changes: Any) -> Any:
    """A case that reaches its goals: 8 GB in 2 ms are 4000 GB/s, of 4500."""
    case = cases.Case("shuffle_depthwise", "float32", 100, 100, groups=4)
    wanted = {"case": case, "batch": 1000, "kernel_ms": 2.0, "torch_ms": 4.0}
    return cases.Result(**{**wanted, "copy_gb_s": 4500.0, "error": 1e-7, **changes})


def test_bytes_and_batch() -> None:
    case = cases.Case("shuffle_depthwise", "float16", 3, 5, groups=3, stride=2)
    assert case.out_size == 3
    assert case.bytes_per_image() == 3 * (25 + 9) * 2
    assert case.batch(1000) * case.bytes_per_image() >= cases.CACHES * 1000
    assert cases.Case("se_pointwise", "int8", 3, 4, out_channels=7).bytes_per_image() == 160
    assert case.batch(0) == 1


def test_goals() -> None:
    good = result()
    assert (good.gb_s, good.speedup, good.misses()) == (pytest.approx(4000), 2.0, [])
    assert result(copy_gb_s=5100.0).misses() == ["78% of the copy, at least 80%"]
    assert result(torch_ms=3.5).misses() == ["1.75x PyTorch, at least 1.8x"]
    assert result(error=2e-6).misses() == ["error 2.0e-06, at most 1e-06"]
    assert result(error=float("nan")).misses() == ["error nan, at most 1e-06"]
    beside = dataclasses.replace(good.case, op="channel_shuffle")
    assert result(case=beside, torch_ms=1.0, copy_gb_s=9e9).misses() == []


def test_table_says_what_was_missed() -> None:
    lines = cases.table([result(), result(torch_ms=3.5)]).splitlines()
    assert lines[0].split()[:3] == ["op", "type", "maps"]
    assert lines[1].endswith("1.0e-07") and "2.00x" in lines[1]
    assert lines[2].endswith("1.75x PyTorch, at least 1.8x")


@pytest.mark.parametrize("name", ["ShuffleDepthwise", "SePointwise", "ChannelShuffle"])
def test_structures_are_those_of_the_kernel_tests(name: str) -> None:
    proven = getattr(cuda_kernels, f"{name}Params")
    assert list(getattr(cases, name)._fields_) == list(proven._fields_)


def test_help() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "--compile-only" in done.stdout


def test_says_what_is_missing() -> None:
    done = run(CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stderr.startswith("PyTorch ")
    assert "--compile-only" in done.stderr

    done = run("--compile-only", PATH="")
    assert done.returncode == 2
    assert done.stderr.startswith("nvcc isn't on PATH")


def test_nvcc_errors_are_passed_on(tmp_path: Path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho unknown chip >&2\nexit 1\n")
    nvcc.chmod(0o755)
    done = run("--compile-only", "--arch", "sm_1", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "-arch=sm_1" in done.stderr and done.stderr.endswith("unknown chip\n")


@pytest.mark.parametrize("dtype", list(cases.TYPES))
@pytest.mark.parametrize("op", list(cases.OPS))
def test_comparison_with_float64(op: str, dtype: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch isn't installed; pip install torch")
    library: ctypes.CDLL = cuda_kernels.compile_kernels(op, tmp_path)
    for change in ({}, {"stride": 2} if op == "shuffle_depthwise" else {}):
        case = cases.Case(op, dtype, 6, 9, groups=3, out_channels=op == "se_pointwise" and 10)
        case = dataclasses.replace(case, **change)
        problem = gpu_plugins.Problem(torch, case, 3, device="cpu")
        problem.launcher(library)()
        assert problem.error() <= case.tolerance()
        unfused = problem.unfused(problem.float_x, *problem.floats)
        assert unfused.shape == problem.y.shape

        problem.y[0, 0, 0, 0] += 3
        assert problem.error() > case.tolerance()


class FakeEvent:
    """Tells the milliseconds between two records by how often anything was enqueued."""

    enqueued: ClassVar[list[str]] = []

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = len(self.enqueued)

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, stop: FakeEvent) -> float:
        return float(stop.at - self.at)


def test_the_gpu_waits_for_the_host_before_anything_is_timed() -> None:
    FakeEvent.enqueued = log = []
    cuda = SimpleNamespace(Event=FakeEvent, _sleep=lambda cycles: log.append("sleep"))
    twice = [lambda: log.append("a"), lambda: log.extend(["b", "b"])]
    assert gpu_plugins.medians(SimpleNamespace(cuda=cuda), twice, rounds=3) == [1.0, 2.0]
    launches = gpu_plugins.LAUNCHES
    assert log[: 2 + 3 * launches] == ["sleep", *"a" * launches, "sleep", *"b" * 2 * launches]


def test_variants_are_of_macros_that_the_kernel_reads() -> None:
    folder = cuda_kernels.PLUGINS / "shuffle_depthwise"
    source = "".join(path.read_text() for path in folder.glob("*.h"))
    for options in cases.VARIANTS.values():
        for option in options:
            assert f"#ifndef {option[2:].split('=')[0]}\n" in source
    assert next(iter(cases.VARIANTS.values())) == ()


def test_tuning_table() -> None:
    shares = dict.fromkeys(cases.VARIANTS, 0.5) | {"16 KiB": 0.9, "40 KiB": None}
    wrong = dict.fromkeys(cases.VARIANTS)
    head, line, last = cases.tuning_table({"a": shares, "b": wrong}).splitlines()
    assert head.startswith("case") and head.endswith("best")
    assert line.split()[-4:] == ["90%", "wrong", "16", "KiB"]
    assert last.split()[-2:] == ["wrong", "none"]


def test_cases_are_all_of_the_plugins() -> None:
    assert {case.op for case in cases.CASES} == set(cases.OPS)
    kernels = {path.parent.name for path in cuda_kernels.PLUGINS.glob("*/kernel.cu")}
    assert set(cases.OPS) == kernels
