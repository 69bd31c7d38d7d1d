"""Both images, built and run by a Docker engine (opt-in: `make docker-test`).

DOCKER: the command, "docker" or a path. DOCKER_BASE: the base image, python:3.11-slim if not
given; DOCKER_NETWORK: what the build may use, "host" where there is no bridge.
Containers run without a network: each has its own 127.0.0.1, and what asks them runs inside.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"
COMMAND = os.environ.get("DOCKER", "")
_HEALTHY_S = 120

# run inside of a container: asks the server for the samples in a .npz and prints its answer
_ASK = """
import json, sys, urllib.request
import numpy as np
x = np.load("/bundle/parity/samples.npz")["image"][:1]
rows = {"name": "image", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
url = "http://127.0.0.1:8000/v2/models/digits/infer"
request = urllib.request.Request(url, json.dumps({"inputs": [rows]}).encode())
print(json.dumps(json.load(urllib.request.urlopen(request, timeout=10))["outputs"][0]["data"]))
"""

pytestmark = pytest.mark.skipif(
    not COMMAND or shutil.which(COMMAND) is None,
    reason="opt-in: DOCKER names no command (make docker-test)",
)


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run([COMMAND, *arguments], capture_output=True, text=True)
    assert not check or ran.returncode == 0, f"{arguments[:3]}: {ran.stdout[-2000:]}{ran.stderr}"
    return ran


def built(context: Path, *arguments: str) -> str:
    tag = f"onnx-deploy-test:{uuid.uuid4().hex[:12]}"
    base = os.environ.get("DOCKER_BASE", "python:3.11-slim")
    network = os.environ.get("DOCKER_NETWORK", "default")
    docker("build", "--network", network, "--build-arg", f"BASE={base}", "-t", tag, *arguments,
           str(context))  # fmt: skip
    return tag


@pytest.fixture(scope="module")
def own() -> Iterator[str]:
    """The image of the command line."""
    tag = built(ROOT)
    yield tag
    docker("rmi", "-f", tag, check=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("docker") / "bundle"
    keys = {"target": "cpu", "precision": "fp32", "eval_data": str(DIGITS / "test.npz")}
    deploy_model(Job(DIGITS / "digits.onnx", Recipe.read(None, keys), output))
    return output


@pytest.fixture(scope="module")
def packaged(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of a packaged bundle."""
    context = tmp_path_factory.mktemp("context") / "digits"
    package_bundle(bundle, "docker", context, None, PackageOptions())
    tag = built(context)
    yield tag
    docker("rmi", "-f", tag, check=False)


@contextlib.contextmanager
def healthy(tag: str, *flags: str) -> Iterator[str]:
    """A container of that image, from when it is healthy."""
    started = docker("run", "-d", "--network", "none", "--health-interval", "1s", *flags, tag)
    name = started.stdout.strip()
    pause, ends = threading.Event(), threading.Event()
    timer = threading.Timer(_HEALTHY_S, ends.set)
    timer.start()
    try:
        while state(name)["Health"]["Status"] != "healthy":
            logs = docker("logs", name)
            assert state(name)["Running"], logs.stdout + logs.stderr
            assert not ends.is_set(), logs.stdout + logs.stderr
            pause.wait(0.2)
        yield name
    finally:
        timer.cancel()
        docker("rm", "-f", name, check=False)


@pytest.fixture
def running(packaged: str) -> Iterator[str]:
    """The served bundle, with no more rights than it needs."""
    with healthy(packaged, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL") as name:
        yield name


def state(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", name).stdout)[0]["State"]
    return found


def config(tag: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", tag).stdout)[0]["Config"]
    return found


def inside(tag: str, *command: str) -> str:
    flags = ("--rm", "--network", "none", "--entrypoint", command[0])
    return docker("run", *flags, tag, *command[1:]).stdout


def test_the_command_line_builds_a_bundle(own: str, tmp_path: Path) -> None:
    for name in ("digits.onnx", "test.npz"):
        shutil.copy(DIGITS / name, tmp_path / name)
    tmp_path.chmod(0o777)
    flags = ("--rm", "--network", "none", "-v", f"{tmp_path}:/work")
    wanted = ("build", "digits.onnx", "--target", "cpu", "--fp32", "--eval-data", "test.npz")
    docker("run", *flags, own, *wanted, "-o", "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["status"] == "ok"
    # the templates are in the wheel too
    for form in ("triton", "docker"):
        docker("run", *flags, own, "package", "bundle", "--format", form, "-o", form)
        assert (tmp_path / form / "package.json").is_file()
    # of the container's user: this one may not be able to remove them
    made = ("bundle", "bundle.work", "triton", "docker")
    docker("run", *flags, "--entrypoint", "rm", own, "-rf", *made)


@pytest.mark.parametrize("which", ["own", "packaged"])
def test_it_is_not_root_and_has_no_tools(which: str, request: pytest.FixtureRequest) -> None:
    tag: str = request.getfixturevalue(which)
    assert inside(tag, "id", "-u").strip() == "10001"
    found = inside(tag, "sh", "-c", "command -v gcc cc make cmake git; true")
    assert found == ""
    assert config(tag)["User"] == "10001:10001"


def test_the_label_is_the_manifests_hash(packaged: str, bundle: Path) -> None:
    labels = config(packaged)["Labels"]
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert labels["onnx-deploy.manifest-sha256"] == manifest["manifest_sha256"]


def test_neither_onnx_nor_calibration_is_in_the_served_image(packaged: str) -> None:
    names = ["onnx", "onnxruntime", "onnxslim", "pydantic_settings", "calibrators"]
    names += ["deploy.pipeline", "deploy.recipe", "deploy.cli"]
    code = f"import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert inside(packaged, "python", "-c", code).strip() == "[]"


def test_the_command_line_is_healthy(own: str) -> None:
    # reads its standard input until the container is removed
    with healthy(own, "-i", "--entrypoint", "cat") as name:
        assert "deploy, version" in docker("exec", name, "deploy", "--version").stdout


def test_it_becomes_healthy_and_answers(running: str, bundle: Path) -> None:
    answer = json.loads(docker("exec", running, "python", "-c", _ASK).stdout)
    wanted = np.load(bundle / "parity" / "engine.npz")["logits"][:1].ravel()
    np.testing.assert_allclose(answer, wanted, rtol=1e-3, atol=1e-3)


def test_it_stops_within_a_second(running: str) -> None:
    # what runs on is killed after that second, and leaves with 137
    docker("stop", "-t", "1", running)
    assert state(running)["ExitCode"] == 0
