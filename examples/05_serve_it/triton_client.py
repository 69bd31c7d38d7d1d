"""The same with Triton's official client, which sends tensors as bytes: pip install
'tritonclient[http]'.

python examples/05_serve_it/triton_client.py HOST:PORT
"""

import sys
from pathlib import Path

import numpy as np
import tritonclient.http as triton

TEST = Path(__file__).resolve().parent.parent / "digits" / "test.npz"
BATCH = 20


def main(address: str) -> None:
    """Every held-out digit, in batches."""
    with np.load(TEST) as data:
        images, labels = data["image"], data["labels"]
    right = 0
    with triton.InferenceServerClient(address) as client:
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            given = triton.InferInput("image", batch.shape, "FP32")
            given.set_data_from_numpy(batch)
            scores = client.infer("digits", [given]).as_numpy("logits")
            right += int((scores.argmax(axis=1) == labels[start : start + BATCH]).sum())
    print(f"{right} of {len(images)} digits right")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"{len(sys.argv) - 1} arguments; give the server, such as 127.0.0.1:8000")
    try:
        main(sys.argv[1])
    except ConnectionRefusedError:
        sys.exit(f'nothing answers at {sys.argv[1]}; start `deploy serve` and wait for "ready"')
