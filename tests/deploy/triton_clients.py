"""The official Triton client, several at a time, against any server of the protocol.

The same requests go to the real Triton (packaging/test_tritonserver.py) and to `deploy serve`
(serving/test_tritonclient_load.py); every answer is compared with the bundle's own engine.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino as ov

REQUESTS = 2000
CLIENTS = 8
LARGEST = 8
# numbers as JSON: of an image they would be most of a minute's work for the client itself
_MOST_JSON = 10_000
Ask = Callable[[int], np.ndarray]


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


def http_asker(address: str, model: str, reference: Reference) -> Ask:
    """Request number i over HTTP: the answer."""
    import tritonclient.http as client

    connection = client.InferenceServerClient(address)

    def ask(index: int) -> np.ndarray:
        x, _ = reference.request(index)
        given = client.InferInput(reference.input, list(x.shape), "FP32")
        # both ways HTTP has: binary behind the JSON, and all in JSON
        binary = index // CLIENTS % 4 != 0 or x.size > _MOST_JSON
        given.set_data_from_numpy(x, binary_data=binary)
        asked = client.InferRequestedOutput(reference.output, binary_data=binary)
        answer = connection.infer(model, [given], outputs=[asked])
        return np.array(answer.as_numpy(reference.output))

    return ask


def grpc_asker(address: str, model: str, reference: Reference) -> Ask:
    """The same over gRPC."""
    import tritonclient.grpc as client

    connection = client.InferenceServerClient(address)

    def ask(index: int) -> np.ndarray:
        x, _ = reference.request(index)
        given = client.InferInput(reference.input, list(x.shape), "FP32")
        given.set_data_from_numpy(x)
        return np.array(connection.infer(model, [given]).as_numpy(reference.output))

    return ask


def wrong_answers(
    http: str, grpc: str, model: str, reference: Reference, count: int = REQUESTS
) -> list[str]:
    """What was wrong with `count` requests of concurrent clients, half over HTTP, half over gRPC.

    http, grpc: host:port.
    """

    def client(number: int) -> list[str]:
        make, address = (http_asker, http) if number % 2 else (grpc_asker, grpc)
        ask = make(address, model, reference)
        found = []
        for index in range(number, count, CLIENTS):
            got = ask(index)
            if reference.wrong(got, reference.request(index)[1]):
                found.append(f"request {index} over {make.__name__}: {got.shape}")
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [line for lines in pool.map(client, range(CLIENTS)) for line in lines]
