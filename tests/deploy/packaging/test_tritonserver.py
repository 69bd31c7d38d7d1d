"""Repositories as we write them, in the real Triton server (opt-in, see tritonserver.py).

The server and its Python backend are NVIDIA's; only the OpenVINO backend is a stand-in of ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from broken_configs import BROKEN, Broken
from tritonserver import Server, tritonserver, why_not

from deploy.packaging.options import PackageOptions
from deploy.packaging.package_bundle import package_bundle
from deploy.packaging.triton_check import problems_of_repository
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "it can run")

ASSETS = Path(os.environ.get("ONNX_DEPLOY_ASSETS", Path(__file__).parents[4] / "shared/assets"))
REQUESTS = 2000
CLIENTS = 8
LARGEST = 8


class Reference:
    """The bundle's own engine on its own samples, one at a time, and requests of mixed batch.

    Not on noise: INT8 rounds a tie at the input otherwise where the batch is free, which noise far
    from what was calibrated turns into another answer.
    """

    def __init__(self, bundle: Path) -> None:
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        model = ov.Core().compile_model(bundle / "engine" / "model.xml", "CPU", exact)
        self.input, self.output = (p[0].get_any_name() for p in (model.inputs, model.outputs))
        stored = (bundle / "parity" / part / "samples.npz" for part in ("", "worst"))
        self.x = np.concatenate([np.load(path)[self.input] for path in stored])
        self.y = np.concatenate([np.array(model(row[None])[self.output]) for row in self.x])

    def request(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples of the index-th request, 1 to 8 of them, and what the engine says of them."""
        rng = np.random.default_rng(index)
        rows = rng.integers(0, len(self.x), size=1 + index % LARGEST)
        return self.x[rows], self.y[rows]

    def wrong(self, got: np.ndarray, wanted: np.ndarray) -> bool:
        """Whether an answer isn't the engine's; a batch may be summed in another order."""
        scale = float(np.abs(self.y).max())
        return got.shape != wanted.shape or float(np.abs(got - wanted).max()) > 1e-3 * scale


def http_asker(server: Server, model: str, reference: Reference) -> Callable[[int], np.ndarray]:
    import tritonclient.http as client

    connection = client.InferenceServerClient(server.http)

    def ask(index: int) -> np.ndarray:
        x, _ = reference.request(index)
        given = client.InferInput(reference.input, list(x.shape), "FP32")
        # both ways HTTP has: binary behind the JSON, and all in JSON
        given.set_data_from_numpy(x, binary_data=index % 4 != 0)
        asked = client.InferRequestedOutput(reference.output, binary_data=index % 4 != 0)
        answer = connection.infer(model, [given], outputs=[asked])
        return np.array(answer.as_numpy(reference.output))

    return ask


def grpc_asker(server: Server, model: str, reference: Reference) -> Callable[[int], np.ndarray]:
    import tritonclient.grpc as client

    connection = client.InferenceServerClient(server.grpc)

    def ask(index: int) -> np.ndarray:
        x, _ = reference.request(index)
        given = client.InferInput(reference.input, list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        return np.array(connection.infer(model, [given]).as_numpy(reference.output))

    return ask


def all_right(server: Server, model: str, reference: Reference, count: int) -> None:
    """`count` requests from concurrent clients, half over HTTP and half over gRPC."""

    def client(number: int) -> list[str]:
        make = http_asker if number % 2 else grpc_asker
        ask = make(server, model, reference)
        found = []
        for index in range(number, count, CLIENTS):
            got = ask(index)
            if reference.wrong(got, reference.request(index)[1]):
                found.append(f"request {index} over {make.__name__}: {got.shape}")
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        wrong = [line for lines in pool.map(client, range(CLIENTS)) for line in lines]
    assert wrong == []


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
        all_right(server, "digits", digits_answers, REQUESTS)


def test_digits_with_grouped_requests(
    digits: Path, digits_answers: Reference, tmp_path: Path
) -> None:
    options = PackageOptions(max_batch=LARGEST, instances=2)
    package_bundle(digits, "triton", tmp_path / "r", None, options)
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready("digits"), server.log.read_text()[-3000:]
        all_right(server, "digits", digits_answers, REQUESTS)
        samples, groups = executions(server, "digits")
    assert samples >= sum(1 + i % LARGEST for i in range(REQUESTS))
    # requests alone would be computed in as many groups as there are requests
    assert groups < REQUESTS


def test_mobilenetv2_as_it_is_packaged(tmp_path: Path) -> None:
    model = ASSETS / "models" / "mobilenetv2_1.0_imagenet.onnx"
    if not model.is_file():
        pytest.skip(f"no {model} (ONNX_DEPLOY_ASSETS)")
    keys: dict[str, Any] = {"target": "cpu", "precision": "int8", "samples": 64, "search_s": 0}
    keys |= {"data": str(ASSETS / "data" / "imagenet_sample"), "crop": (224, 224)}
    keys |= {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    deploy_model(Job(model, Recipe.read(None, keys), tmp_path / "bundle"))
    made = package_bundle(tmp_path / "bundle", "triton", tmp_path / "r", None, PackageOptions())
    reference = Reference(tmp_path / "bundle")
    with tritonserver(tmp_path / "r", tmp_path) as server:
        assert server.ready(made.record["name"]), server.log.read_text()[-3000:]
        all_right(server, made.record["name"], reference, REQUESTS)


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
