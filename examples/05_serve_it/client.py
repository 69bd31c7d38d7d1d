"""Asks a server for digits, with nothing but the standard library and NumPy.

python examples/05_serve_it/client.py HOST:PORT
"""

import http.client
import json
import sys
from pathlib import Path

import numpy as np

TEST = Path(__file__).resolve().parent.parent / "digits" / "test.npz"
BATCH = 20


def main(address: str) -> None:
    """Every held-out digit, in batches, over one connection."""
    with np.load(TEST) as data:
        images, labels = data["image"], data["labels"]
    connection = http.client.HTTPConnection(address)
    right = 0
    for start in range(0, len(images), BATCH):
        scores = infer(connection, images[start : start + BATCH])
        right += int((scores.argmax(axis=1) == labels[start : start + BATCH]).sum())
    connection.close()
    print(f"{right} of {len(images)} digits right")


def infer(connection: http.client.HTTPConnection, images: np.ndarray) -> np.ndarray:
    """The model's scores, float32[N, 10], for images, float32[N, 1, 8, 8]."""
    tensor = {"name": "image", "datatype": "FP32", "shape": images.shape}
    body = json.dumps({"inputs": [{**tensor, "data": images.ravel().tolist()}]})
    connection.request("POST", "/v2/models/digits/infer", body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    if response.status != 200:
        sys.exit(f"{response.status}: {answer['error']}")
    output = answer["outputs"][0]
    return np.array(output["data"], np.float32).reshape(output["shape"])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{len(sys.argv) - 1} arguments; give the server, such as 127.0.0.1:8000")
    try:
        main(sys.argv[1])
    except ConnectionRefusedError:
        sys.exit(f'nothing answers at {sys.argv[1]}; start `deploy serve` and wait for "ready"')
