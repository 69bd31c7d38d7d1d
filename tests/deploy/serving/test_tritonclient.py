"""The official Triton client against this server: concurrent, mixed batches, every transport."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_bundles import scaled, scaled_truth

from deploy.serving.background import serving
from deploy.serving.options import Options

http = pytest.importorskip("tritonclient.http", reason="tritonclient isn't installed")
grpc = pytest.importorskip("tritonclient.grpc", reason="tritonclient isn't installed")
pytestmark = pytest.mark.filterwarnings("default")
THREADS = 8
EACH = 25


@pytest.fixture(scope="module", params=[-1, 1], ids=["dynamic", "batch 1"])
def running(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    bundle = scaled(tmp_path_factory.mktemp("triton") / "b", batch=request.param)
    with serving(Options(bundle, http_port=0, grpc_port=0, linger_s=0)) as made:
        yield made


def infer_http(client: Any, x: np.ndarray, binary: bool) -> np.ndarray:
    tensor = http.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    wanted = [http.InferRequestedOutput("y", binary_data=binary)]
    found: np.ndarray = client.infer("tiny", [tensor], outputs=wanted).as_numpy("y")
    return found


def infer_grpc(client: Any, x: np.ndarray) -> np.ndarray:
    tensor = grpc.InferInput("x", x.shape, "FP32")
    tensor.set_data_from_numpy(x)
    found: np.ndarray = client.infer("tiny", [tensor]).as_numpy("y")
    return found


def _hammer(begin: Callable[[], Any], infer: Callable[[Any, np.ndarray], np.ndarray]) -> list[Any]:
    """What went wrong in THREADS threads, each with a client of its own."""
    wrong: list[Any] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        client = begin()
        try:
            for _ in range(EACH):
                x = rng.normal(size=(int(rng.integers(1, 9)), 3)).astype(np.float32)
                got = infer(client, x)
                if not np.array_equal(got, scaled_truth(x)):
                    wrong.append((x, got))
        except Exception as error:
            wrong.append(error)
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_http(running: Any, binary: bool) -> None:
    url = f"127.0.0.1:{running.ports.http}"
    begin = lambda: http.InferenceServerClient(url)  # noqa: E731
    assert _hammer(begin, lambda client, x: infer_http(client, x, binary)) == []


def test_grpc(running: Any) -> None:
    url = f"127.0.0.1:{running.ports.grpc}"
    assert _hammer(lambda: grpc.InferenceServerClient(url), infer_grpc) == []


def test_what_else_the_client_asks(running: Any, tmp_path: Path) -> None:
    over_http = http.InferenceServerClient(f"127.0.0.1:{running.ports.http}")
    over_grpc = grpc.InferenceServerClient(f"127.0.0.1:{running.ports.grpc}")
    for client in (over_http, over_grpc):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("tiny")
        client.load_model("tiny")
    assert over_http.get_server_metadata()["name"] == "onnx-deploy"
    assert over_grpc.get_server_metadata().name == "onnx-deploy"
    assert over_http.get_model_metadata("tiny")["inputs"][0]["shape"] == [-1, 3]
    assert list(over_grpc.get_model_metadata("tiny").inputs[0].shape) == [-1, 3]
    assert over_http.get_model_repository_index()[0]["name"] == "tiny"
    assert over_grpc.get_model_repository_index().models[0].name == "tiny"
    with pytest.raises(http.InferenceServerException, match="no input 'z'"):
        tensor = http.InferInput("z", (1, 3), "FP32")
        tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
        over_http.infer("tiny", [tensor])
    over_http.close()
    over_grpc.close()
