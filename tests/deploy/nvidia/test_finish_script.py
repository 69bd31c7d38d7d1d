from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.nvidia.finish_script import finish_script, stitched

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "deploy" / "on_device"
# runs the script given first over the doubles of TensorRT
OVER_DOUBLES = """
import functools, runpy, sys
if not hasattr(functools, "cache"):
    functools.cache = functools.lru_cache(None)
sys.path.insert(0, {tests!r})
from doubles import installed
with installed("8.5.2", 72):
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def write_with_script(folder: Path, **changes: object) -> Path:
    sys.path.insert(0, str(HERE))
    try:
        from device_folder import write_device
    finally:
        sys.path.remove(str(HERE))
    return write_device(folder, extra_files={"finish.py": finish_script().encode()}, **changes)


def test_python_3_8_reads_it() -> None:
    ast.parse(finish_script(), feature_version=(3, 8))


def test_it_is_one_file() -> None:
    tree = ast.parse(finish_script())
    modules = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    allowed = set(sys.stdlib_module_names) | {"numpy", "pycuda", "cuda"}
    assert {str(module).split(".")[0] for module in modules} <= allowed
    first = next(node for node in tree.body if not isinstance(node, ast.Expr))
    assert ast.unparse(first) == "from __future__ import annotations"
    assert finish_script().count("from __future__") == 1
    assert ast.unparse(tree.body[-1]).startswith("if __name__ == '__main__':")


def test_it_says_how_to_use_it_and_what_made_it() -> None:
    top = finish_script().split("from __future__")[0]
    assert top.startswith('#!/usr/bin/env python3\n"""Builds, checks and times')
    assert "Run it in the folder: python3 finish.py" in top
    assert re.search(r"# onnx-deploy \S+", top)


# names that modules, and methods and parameters that types got after Python 3.8
NEWER = {
    "math": {"lcm", "nextafter", "ulp", "cbrt", "exp2", "sumprod"},
    "functools": {"cache"},
    "os": {"waitstatus_to_exitcode", "pidfd_open", "process_cpu_count"},
    "hashlib": {"file_digest"},
}
NEWER_METHODS = {
    *("removeprefix", "removesuffix", "is_relative_to", "with_stem", "readlink", "hardlink_to"),
    *("bit_count", "batched", "pairwise", "unparse"),
}
NEWER_KEYWORDS = {"strict", "slots", "kw_only", "root_dir", "delete_on_close"}


def test_it_uses_nothing_newer_than_3_8() -> None:
    """By name; the run under a real Python 3.8 below is the proof where one is installed."""
    for node in ast.walk(ast.parse(finish_script())):
        if isinstance(node, ast.Attribute):
            assert node.attr not in NEWER_METHODS, f"line {node.lineno}: .{node.attr}"
            if isinstance(node.value, ast.Name):
                assert node.attr not in NEWER.get(node.value.id, set()), f"line {node.lineno}"
        if isinstance(node, ast.keyword):
            assert node.arg not in NEWER_KEYWORDS, f"line {node.value.lineno}: {node.arg}="


def test_types_are_never_evaluated() -> None:
    """`list[int]` and `X | None` stand in annotations alone, which 3.8 doesn't look at."""
    tree = ast.parse(finish_script())
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if part is not None
        for inner in ast.walk(part)
    }
    generic = {
        "list",
        "dict",
        "tuple",
        "set",
        "type",
        "Callable",
        "Sequence",
        "Mapping",
        "Iterator",
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            assert node.value.id not in generic or id(node) in annotations, f"line {node.lineno}"


def run_script(python: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    driver = folder.parent / "over_doubles.py"
    driver.write_text(OVER_DOUBLES.format(tests=str(ROOT / "tests")))
    command = [python, "-W", "error", str(driver), str(folder / "finish.py"), "--skip-latency"]
    return subprocess.run([*command, *flags], capture_output=True, text=True, check=False)


def test_it_runs_alone(tmp_path: Path) -> None:
    """In another process, from the folder it lies in, where onnx-deploy can't be imported."""
    folder = write_with_script(
        tmp_path / "device", precision="int8", quantization="implicit", rest="fp16"
    )
    done = run_script(sys.executable, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "device_report.json").read_text())
    assert (report["status"], report["int8"]["layers_int8"]) == ("ok", 1)


def python38(*modules: str) -> str:
    python = os.environ.get("PYTHON38") or shutil.which("python3.8")
    if python is None:
        pytest.skip("no python3.8 on PATH and none in PYTHON38")
    check = [python, "-c", f"import {', '.join(modules)}"]
    if subprocess.run(check, capture_output=True, check=False).returncode:
        pytest.skip(f"{python} has no {' or '.join(modules)}; pip install them there")
    return python


def test_it_runs_under_python_3_8(tmp_path: Path) -> None:
    python = python38("numpy", "onnx", "onnxruntime")
    folder = write_with_script(
        tmp_path / "device", precision="int8", quantization="implicit", rest="fp16"
    )
    done = run_script(python, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "device_report.json").read_text())
    assert report["status"] == "ok"
    assert report["device"]["python"].startswith("3.8.")


def test_it_runs_trtexec_under_python_3_8(tmp_path: Path) -> None:
    """numpy is all it needs then."""
    python = python38("numpy")
    folder = write_with_script(tmp_path / "device")
    tool = tmp_path / "trtexec"
    double = ROOT / "tests" / "doubles" / "trtexec_double.py"
    settings = '{"version": "8.5.2", "capability": "7.2"}'
    tool.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{double}' '{settings}' \"$@\"\n")
    tool.chmod(0o755)
    command = [python, str(folder / "finish.py"), "--trtexec", str(tool)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((folder / "device_report.json").read_text())["built_with"] == "trtexec"


MAIN = '"""Main."""\nfrom deploy.on_device.one import f\n\ndef main(argv=None):\n    return f()\n'


def test_modules_come_behind_what_they_import() -> None:
    one = '"""One."""\n\nfrom __future__ import annotations\n\nimport os\n\ndef f(): return 7\n'
    text = stitched(
        {"finish_main": MAIN, "one": one, "nobody": "import antigravity"}, "finish_main"
    )
    assert text.index("def f") < text.index("def main")
    assert "antigravity" not in text
    assert "import os\nimport sys\n" in text
    names: dict[str, Callable[[], int]] = {}
    exec(compile(text, "finish.py", "exec"), names)
    assert names["main"]() == 7


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        ("def f(): ...\ndef main(): ...", r"both define main; rename one"),
        ("from x import main\ndef f(): ...", r"both define main"),
        ("def g(): ...", r"finish_main\.py: one\.py has no f"),
        ("def f():\n    from deploy.on_device.two import g", "import it at the top"),
        ("from deploy.on_device.two import g as f", "under its name"),
        ("import deploy.on_device.two\ndef f(): ...", "import names from it"),
        ("from deploy.errors import DeployError as f", "under its name"),
        ("from deploy.errors import DeployError\ndef f(): ...", r"no module deploy\.errors\.py"),
        ("from deploy.on_device.finish_main import main\ndef f(): ...", "import each other"),
        ("match f:\n    case 1: pass", "not Python 3.8"),
    ],
)
def test_what_one_file_cannot_hold_is_refused(one: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        stitched({"finish_main": MAIN, "one": one, "two": "def g(): ..."}, "finish_main")


def test_one_import_under_two_names_is_refused() -> None:
    sources = {
        "finish_main": "from typing import Iterable\n" + MAIN,
        "one": "from collections.abc import Iterable\ndef f(): ...",
    }
    with pytest.raises(ValueError, match="both define Iterable"):
        stitched(sources, "finish_main")


def test_without_numpy_it_says_so_in_a_line(tmp_path: Path) -> None:
    script = tmp_path / "finish.py"
    script.write_text(finish_script())
    hidden = "import sys; sys.modules['numpy'] = None; import runpy; "
    hidden += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    ran = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    assert "finish.py needs numpy: pip install numpy" in ran.stderr
