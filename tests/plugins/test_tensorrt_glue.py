"""TensorRT's glue of every plugin: compiles against the headers of each release, and says the right
things. Opt-in: TENSORRT_INCLUDE (see tensorrt_headers); needs no TensorRT library and no GPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tensorrt_headers import RELEASES, cuda_include, cxx, headers

from deploy import registry

HERE = Path(__file__).resolve().parent
PLUGINS = HERE.parents[1] / "plugins"
OPS = [name for name in registry.names("plugin") if (PLUGINS / name / "trt.h").is_file()]
# IPluginV2DynamicExt is everywhere, deprecated from 10; IPluginV3 came with 10
BUILDS = [(r, 2) for r in RELEASES] + [(r, 3) for r in RELEASES if not r.startswith("8.")]

HOST = HERE / "tensorrt_host"
WIDE_INTEGERS = """\
created
not created: onnx_deploy.ShuffleDepthwise: attribute 'groups' is 1099511627776, out of the range of int32
"""  # noqa: E501
DAMAGED = """\
damaged 137 taken 0
refused: onnx_deploy.SePointwise: an engine's bytes for it are 68, expected 32
damaged 57 taken 0
refused: onnx_deploy.SePointwise: an engine's bytes for it are 28, expected 32
refused: onnx_deploy.SePointwise: the engine was built with another version of this plugin; build it again
"""  # noqa: E501


def compile_command(release: str) -> list[str]:
    folders = ["-I", str(PLUGINS), "-isystem", str(headers(release)), "-isystem"]
    strict = ["-std=c++14", "-Wall", "-Wextra", "-Werror", "-Wno-deprecated-declarations"]
    return [cxx(), *strict, *folders, str(cuda_include())]


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize(("release", "interface"), BUILDS)
def test_it_compiles(release: str, interface: int, op: str) -> None:
    source = PLUGINS / op / f"trt_v{interface}.cpp"
    command = [*compile_command(release), "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("release", ["8.5", "8.6"])
def test_the_newer_interface_says_which_file_to_take(release: str) -> None:
    source = PLUGINS / OPS[0] / "trt_v3.cpp"
    command = [*compile_command(release), "-fsyntax-only", str(source)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode != 0
    assert "compile trt_v2.cpp instead of trt_v3.cpp" in done.stderr


@pytest.mark.parametrize(("release", "interface"), BUILDS)
def test_it_answers(release: str, interface: int, tmp_path: Path) -> None:
    """Shapes, types, refusals, what the launchers get, and damaged engines: the same answers by
    both interfaces in every release. The sanitizers end the program at a bad access."""
    program = tmp_path / "answers"
    command = [
        *compile_command(release),
        *("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        *(f"-DGLUE={interface}", str(HOST / "questions.cpp"), "-o", str(program)),
    ]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, encoding="utf-8", errors="replace")
    assert done.returncode == 0, done.stderr
    expected = (HOST / "answers.txt").read_text(encoding="utf-8")
    expected += WIDE_INTEGERS if not release.startswith("8.") else ""
    expected += DAMAGED if interface == 2 else ""
    assert done.stdout.splitlines() == expected.splitlines()
