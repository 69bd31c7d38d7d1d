"""Repositories as we write them, in the real Triton server (opt-in, see tritonserver.py).

The server and its Python backend are NVIDIA's; only the OpenVINO backend is a stand-in of ours.
"""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_configs import BROKEN, Broken
from served_bundles import mobilenetv2
from triton_clients import LARGEST, REQUESTS, Reference, wrong_answers
from tritonserver import Server, tritonserver, why_not

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.packaging.triton_check import problems_of_repository

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can run")


def executions(server: Server, model: str) -> tuple[int, int]:
    """Samples computed and groups they were computed in, as the server counts them."""
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    counts = []
    for name in ("nv_inference_count", "nv_inference_exec_count"):
        rows = [r for r in lines if r.startswith(f"{name}{{") and f'model="{model}"' in r]
        counts.append(int(float(rows[0].rsplit(" ", 1)[1])))
    return counts[0], counts[1]


@pytest.fixture(scope="module")
def digits_answers(digits: Path) -> Reference:
    return Reference(digits)


def test_digits_as_it_is_packaged(digits: Path, digits_answers: Reference, tmp_path: Path) -> None:
    package_bundle(digits, "triton", tmp_path / "r", None, PackageOptions())
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready("digits"), server.log.read_text()[-3000:]
        assert wrong_answers(server.http, server.grpc, "digits", digits_answers) == []


def test_digits_with_grouped_requests(
    digits: Path, digits_answers: Reference, tmp_path: Path
) -> None:
    options = PackageOptions(max_batch=LARGEST, instances=2)
    package_bundle(digits, "triton", tmp_path / "r", None, options)
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready("digits"), server.log.read_text()[-3000:]
        assert wrong_answers(server.http, server.grpc, "digits", digits_answers) == []
        samples, groups = executions(server, "digits")
    assert samples >= sum(1 + i % LARGEST for i in range(REQUESTS))
    # requests alone would be computed in as many groups as there are requests
    assert groups < REQUESTS


def test_mobilenetv2_as_it_is_packaged(tmp_path: Path) -> None:
    mobilenetv2(tmp_path / "bundle")
    made = package_bundle(tmp_path / "bundle", "triton", tmp_path / "r", None, PackageOptions())
    reference = Reference(tmp_path / "bundle")
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready(made.record["name"]), server.log.read_text()[-3000:]
        name = made.record["name"]
        assert wrong_answers(server.http, server.grpc, name, reference) == []


def test_a_tensorrt_repository_is_taken(tensorrt: Path, tmp_path: Path) -> None:
    """Without a GPU only with its instances moved to the CPU, all else as it was written."""
    package_bundle(tensorrt, "triton", tmp_path / "r", None, PackageOptions())
    config = tmp_path / "r" / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace("KIND_GPU", "KIND_CPU"))
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready("digits"), server.log.read_text()[-3000:]


@pytest.fixture(scope="module")
def broken_server(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server that is asked to load each broken model in turn."""
    folder = tmp_path_factory.mktemp("broken")
    options = PackageOptions(max_batch=LARGEST)
    package_bundle(digits, "triton", folder / "good", "digits", options)
    text = (folder / "good" / "digits" / "config.pbtxt").read_text()
    for broken in BROKEN:
        model = folder / "r" / broken.name
        shutil.copytree(folder / "good" / "digits", model)
        config = broken.change(text).replace('name: "digits"', f'name: "{broken.name}"')
        (model / "config.pbtxt").write_text(config)
    with tritonserver(folder / "r", folder, "--model-control-mode=explicit") as server:
        yield server


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_a_broken_configuration_crashes_nothing(broken: Broken, broken_server: Server) -> None:
    import tritonclient.http as client
    from tritonclient.utils import InferenceServerException

    if broken.server == "crash":
        # our own check is what keeps it from the server
        repository = Path(_repository(broken_server))
        lines = [p for p in problems_of_repository(repository) if p.startswith(f"{broken.name}:")]
        assert any(broken.refused in line for line in lines)
        return
    connection = client.InferenceServerClient(broken_server.http, network_timeout=120)
    refused = False
    try:
        connection.load_model(broken.name)
    except InferenceServerException:
        refused = True
    assert broken_server.process.poll() is None
    assert connection.is_server_live()
    assert refused == (broken.server != "no")


def _repository(server: Server) -> str:
    arguments = server.process.args
    assert isinstance(arguments, list)
    return str(arguments[arguments.index("--model-repository") + 1])


def test_no_process_is_left(digits: Path, tmp_path: Path) -> None:
    package_bundle(digits, "triton", tmp_path / "r", None, PackageOptions())
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready("digits")
    assert server.process.returncode == 0
    listed: Any = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True)
    assert str(tmp_path) not in listed.stdout
