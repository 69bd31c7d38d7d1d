"""The CUDA kernels, run on the CPU, read and write nothing that isn't theirs: the kernels' tests
once more, in a process with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cuda_kernels import PLUGINS, SANITIZE

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
_ONE_CALL = """
import sys
from pathlib import Path
import numpy as np
from cuda_kernels import call, compile_kernels, channel_shuffle_params
library = compile_kernels("channel_shuffle", Path(sys.argv[1]), Path(sys.argv[2]))
x = np.zeros((1, 6, 9, 7), np.int8)
call(library.launch_channel_shuffle, channel_shuffle_params(x, 3), [x], x.shape, 1)
"""


def run_sanitized(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the sanitizers' libraries loaded before anything else; skips without them."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ isn't there to compile the kernels for the CPU; install it")
    found = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(library).is_absolute() for library in found):
        pytest.skip("g++ comes without the sanitizers' libraries; install libasan and libubsan")
    environment = {
        **os.environ,
        SANITIZE: "1",
        "LD_PRELOAD": ":".join(found),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(HERE.parent),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize(
    ("file", "tests"),
    [
        ("test_shuffle_depthwise.py", "any_address"),
        ("test_se_pointwise.py", "any_address"),
        ("test_channel_shuffle.py", "numpy_truth"),
    ],
)
def test_kernels_stay_inside(file: str, tests: str) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-k", tests]
    done = run_sanitized("-m", "pytest", *options, str(HERE / file))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "passed" in done.stdout


def test_reading_past_the_end_is_noticed(tmp_path: Path) -> None:
    source = shutil.copytree(PLUGINS / "channel_shuffle", tmp_path / "source")
    kernel = source / "kernel.cuh"
    checked = "if (aligned < x.begin || aligned + 8 > x.end)"
    assert checked in kernel.read_text()
    kernel.write_text(kernel.read_text().replace(checked, "if (aligned < x.begin)"))

    done = run_sanitized("-c", _ONE_CALL, str(tmp_path), str(source))

    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
