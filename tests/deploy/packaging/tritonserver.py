"""The real tritonserver, from the nvidia-pytriton wheel, with stand-ins for its C++ backends.

TRITON_SITE: pip install --no-deps --target $TRITON_SITE nvidia-pytriton==0.7.0
OV_SITE: pip install --target $OV_SITE openvino numpy==1.26.4 (the wheel's Python backend gives
empty tensors with NumPy 2)
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BACKENDS = Path(__file__).resolve().parents[2] / "triton_backends"
_START_S = 60


def why_not() -> str:
    """Why the server can't run here, or ""."""
    for name, marker in (("TRITON_SITE", "pytriton/tritonserver"), ("OV_SITE", "openvino")):
        site = os.environ.get(name)
        if not site:
            return f"opt-in: {name} is not set (see tests/deploy/packaging/tritonserver.py)"
        if not (Path(site) / marker).is_dir():
            return f"{name}={site} has no {marker}"
    if importlib.util.find_spec("tritonclient") is None:
        return "tritonclient isn't installed"
    return ""


@dataclass(frozen=True)
class Server:
    """A running server; log: what it wrote so far."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str
    metrics: str
    log: Path

    def ready(self, model: str) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.http}/v2/models/{model}/ready") as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False


@contextlib.contextmanager
def tritonserver(repository: Path, work: Path, *flags: str) -> Iterator[Server]:
    """The server on that repository, from when it is live; ended at the end of the block."""
    ports = free_ports(3)
    http, grpc, metrics = (f"127.0.0.1:{port}" for port in ports)
    log = work / "triton.log"
    environment = {**os.environ, "PYTHONPATH": os.environ["OV_SITE"], "STAND_IN_PRECISION": "f32"}
    command = [
        str(_site() / "bin" / "tritonserver"),
        *("--model-repository", str(repository), "--backend-directory", str(_backends(work))),
        *("--allow-gpu-metrics=false", "--pinned-memory-pool-byte-size=0"),
        *("--exit-timeout-secs=5", "--exit-on-error=false"),
        *("--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"),
        *(f"--http-port={ports[0]}", f"--grpc-port={ports[1]}", f"--metrics-port={ports[2]}"),
        *flags,
    ]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=environment
        )
        server = Server(process, http, grpc, metrics, log)
        try:
            _wait_until_live(server)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for made in sockets:
            made.bind(("127.0.0.1", 0))
        return [made.getsockname()[1] for made in sockets]
    finally:
        for made in sockets:
            made.close()


def _wait_until_live(server: Server) -> None:
    pause, ends = threading.Event(), threading.Event()
    timer = threading.Timer(_START_S, ends.set)
    timer.start()
    try:
        while not ends.is_set():
            assert server.process.poll() is None, server.log.read_text(errors="replace")[-3000:]
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://{server.http}/v2/health/live", timeout=2),
            ):
                return
            pause.wait(0.1)
        raise AssertionError(f"not live: {server.log.read_text(errors='replace')[-3000:]}")
    finally:
        timer.cancel()


def _backends(work: Path) -> Path:
    """The wheel's Python backend and our stand-ins in one folder."""
    folder = work / "backends"
    if not folder.is_dir():
        shutil.copytree(BACKENDS, folder)
        shutil.copytree(_site() / "backends" / "python", folder / "python")
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = _site() / "python_backend_stubs" / version / "triton_python_backend_stub"
        target = folder / "python" / stub.name
        target.unlink(missing_ok=True)
        # a copy would look for its libraries beside itself
        target.symlink_to(stub)
    return folder


def _site() -> Path:
    return Path(os.environ["TRITON_SITE"]) / "pytriton" / "tritonserver"
