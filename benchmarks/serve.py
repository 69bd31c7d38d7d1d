"""`deploy serve` against the bare engine called in a loop, mlserver, and the real Triton.

    python benchmarks/serve.py [BUNDLE] [--precision int8|fp32] [--rounds 7] [--seconds 2]
        [--callers 8] [--mlserver PYTHON] [--triton SCRIPT] [--assets DIR] [--minutes 10]
        [--serve-args "…"]

BUNDLE: a bundle of a float32-input network; else MobileNetV2 of ASSETS (default:
../shared/assets) is built, INT8, with a dynamic batch. PYTHON: of an environment with mlserver and
openvino. SCRIPT: ../shared/serving/tritonserver_run.sh, with TRITON_SITE, BACKENDS and OV_SITE set
as it says. The callers, in one process, send one row each in a closed loop, over plain sockets for
HTTP and gRPC alike; all candidates are running, the one that is measured is busy, and they take
turns. What counts is the ratio within a
round, printed as the median with its range. `--minutes` runs mixed load with bad requests instead.

Must hold: no wrong answer; binary HTTP and gRPC >= 0.8x the bare engine; >= 2x mlserver, >= 1x
Triton, each over the same protocol.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from serve_load import bare_caller
from serve_mixed import mixed
from serve_peers import Peer, mlserver, ours, triton

_LOAD = Path(__file__).with_name("serve_load.py")
_MODEL = "mobilenetv2_1.0_imagenet"
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop": (224, 224)}


def built(assets: Path, precision: str, work: Path) -> Path:
    """The bundle of MobileNetV2 with a dynamic batch."""
    from deploy.pipeline import Job, deploy_model
    from deploy.recipe import Recipe

    data = {"data": str(assets / "data" / "imagenet_sample"), **_IMAGENET, "effort": "fast"}
    given = {"target": "cpu", "precision": precision, "batch": "dynamic", "samples": 64}
    recipe = Recipe.read(None, {**given, **(data if precision == "int8" else {})})
    deploy_model(Job(assets / "models" / f"{_MODEL}.onnx", recipe, work / "bundle"))
    return work / "bundle"


def sampled(bundle: Path, work: Path) -> Path:
    """One row of the bundle's own samples, and what the bare engine makes of it."""
    with np.load(bundle / "parity" / "samples.npz") as file:
        inputs = {name: file[name][:1] for name in file}
    if any(x.dtype != np.float32 for x in inputs.values()):
        sys.exit(f"{bundle}: this benchmark sends float32; give a bundle with such inputs")
    described = json.loads((bundle / "engine" / "engine.json").read_text())
    name = described["outputs"][0]["name"]
    found = np.frombuffer(bare_caller(bundle, inputs, {name: np.empty(0)})(), np.float32)
    path = work / "samples.npz"
    keyed: dict[str, Any] = {f"input:{key}": x for key, x in inputs.items()}
    keyed[f"output:{name}"] = found
    np.savez(path, **keyed)
    return path


def measured(*arguments: object) -> dict[str, Any]:
    """What a client process of its own found."""
    command = [sys.executable, str(_LOAD), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def candidates(
    peers: list[Peer], bundle: Path, samples: Path, seconds: float, callers: int
) -> dict[str, Any]:
    """What to run for each row of the table."""
    rows: dict[str, Any] = {"bare engine": ("bare", bundle, samples, seconds)}
    for peer in peers:
        for way, port in (("http", peer.http), ("grpc", peer.grpc)):
            if port:
                call = (way, port, peer.model, samples, seconds, callers)
                rows[f"{peer.name}, {way}"] = call
    return rows


def table(rows: dict[str, Any], rounds: int) -> None:
    """Measure in turns and print rates, ratios and wrong answers."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, arguments in rows.items():
            found[name].append(measured(*arguments))
    print(
        f"{'':<26} req/s   p50 ms   p99 ms  caller's CPU ms  wrong  against the bare engine   "
        "ours against it"
    )
    for name, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        way = name.rpartition(", ")[2]
        own = found.get(f"deploy serve, {way}", [])
        print(
            f"{name:<26} {middle['rate']:6.0f}  {middle['p50_ms']:7.2f}  {middle['p99_ms']:7.2f}  "
            f"{middle['cpu_ms_per_request']:15.2f}  "
            f"{sum(run['wrong'] for run in runs):5d}  {_ratio(runs, found['bare engine']):<24}  "
            f"{_ratio(own, runs) if own and own is not runs else ''}"
        )


def _ratio(runs: list[dict[str, Any]], base: list[dict[str, Any]]) -> str:
    ratios = [run["rate"] / other["rate"] for run, other in zip(runs, base, strict=True)]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--precision", choices=("int8", "fp32"), default="int8")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--mlserver", default="")
    parser.add_argument("--triton", type=Path)
    default = Path(__file__).parent.parent.parent / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=default)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--serve-args", default="")
    given = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        work = Path(scratch)
        bundle = given.bundle or built(given.assets, given.precision, work)
        samples = sampled(bundle, work)
        own = stack.enter_context(ours(bundle, "model", given.serve_args.split()))
        if given.minutes:
            mixed(own, bundle, samples, given.minutes)
            return
        peers = [own]
        if given.mlserver:
            peers.append(stack.enter_context(mlserver(given.mlserver, bundle, "model", work)))
        if given.triton:
            with urllib.request.urlopen(f"http://127.0.0.1:{own.http}/v2/models/model") as reply:
                described = json.load(reply)
            peers.append(
                stack.enter_context(triton(given.triton, bundle, "model", described, work))
            )
        rows = candidates(peers, bundle, samples, given.seconds, given.callers)
        table(rows, given.rounds)


if __name__ == "__main__":
    main()
