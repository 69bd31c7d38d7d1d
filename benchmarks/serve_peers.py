"""Servers to compare with, each started on the same engine and stopped again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_START_S = 60.0
# mlserver has no OpenVINO of its own; this is the least that serves the engine with it
_RUNTIME = """
import os
import openvino as ov
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Engine(MLModel):
    async def load(self):
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": os.environ["HINT"]}
        compiled = ov.Core().compile_model(os.environ["ENGINE"], "CPU", config)
        self.request = compiled.create_infer_request()
        self.names = [port.get_any_name() for port in compiled.outputs]
        return True

    async def predict(self, payload):
        feeds = {row.name: NumpyCodec.decode_input(row) for row in payload.inputs}
        found = self.request.infer(feeds)
        outputs = [NumpyCodec.encode_output(n, found[n]) for n in self.names]
        return InferenceResponse(model_name=self.name, outputs=outputs)
"""


@dataclass(frozen=True)
class Peer:
    """A running server; a port is None where it can't take binary tensors that way."""

    name: str
    model: str
    http: int | None
    grpc: int | None
    pid: int


def free_port() -> int:
    """A port that nobody had a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def ours(bundle: Path, model: str, arguments: list[str]) -> Iterator[Peer]:
    """`deploy serve`."""
    http, grpc = free_port(), free_port()
    command = [sys.executable, "-m", "deploy.serving", str(bundle), "--name", model, *arguments]
    command += ["--http-port", str(http), "--grpc-port", str(grpc)]
    with _running(command, http, {}) as pid:
        yield Peer("deploy serve", model, http, grpc, pid)


@contextmanager
def mlserver(python: str, bundle: Path, model: str, work: Path) -> Iterator[Peer]:
    """mlserver; its HTTP side takes no binary tensors (422), so gRPC alone is compared.

    python: of an environment with mlserver and openvino.
    """
    folder = work / "mlserver"
    folder.mkdir()
    http, grpc, metrics = free_port(), free_port(), free_port()
    (folder / "engine_runtime.py").write_text(_RUNTIME)
    settings = {
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "host": "127.0.0.1",
        "parallel_workers": 0,
        "debug": False,
        "logging_settings": None,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    row = {"name": model, "implementation": "engine_runtime.Engine"}
    (folder / "model-settings.json").write_text(json.dumps(row))
    found = json.loads((bundle / "engine" / "settings.json").read_text())
    hint = found["engine"]["inference_precision"].get(found["precision"]) or "f32"
    environment = {"ENGINE": str(bundle.resolve() / "engine" / "model.xml"), "HINT": hint}
    command = [python, "-m", "mlserver.cli.main", "start", str(folder)]
    script = Path(python).with_name("mlserver")
    if script.exists():
        command = [str(script), "start", str(folder)]
    with _running(command, http, environment, cwd=folder) as pid:
        yield Peer("mlserver", model, None, grpc, pid)


@contextmanager
def triton(run: Path, bundle: Path, model: str, described: Any, work: Path) -> Iterator[Peer]:
    """The real tritonserver with its python-based stand-in of the OpenVINO backend.

    run: a script that starts it on a repository; TRITON_SITE, BACKENDS and OV_SITE as it says.
    """
    folder = work / "repository" / model
    (folder / "1").mkdir(parents=True)
    for kind in ("xml", "bin"):
        shutil.copy(bundle / "engine" / f"model.{kind}", folder / "1" / f"model.{kind}")
    rows = "\n".join(_config_rows(described))
    (folder / "config.pbtxt").write_text(
        f'name: "{model}"\nbackend: "openvino"\nmax_batch_size: 8\n{rows}\ndynamic_batching {{}}\n'
        "instance_group [{ count: 2, kind: KIND_CPU }]\n"
        'parameters [{ key: "NUM_STREAMS", value: { string_value: "1" } },\n'
        '  { key: "INFERENCE_NUM_THREADS", value: { string_value: "1" } }]\n'
    )
    http, grpc = free_port(), free_port()
    ports = {"HTTP": str(http), "GRPC": str(grpc), "METRICS": str(free_port())}
    command = ["bash", str(run), str(folder.parent)]
    with _running(command, http, ports) as pid:
        yield Peer("Triton (stand-in)", model, http, grpc, pid)


def _config_rows(described: Any) -> Iterator[str]:
    for side in ("inputs", "outputs"):
        for port in described[side]:
            dims = ", ".join(map(str, port["shape"][1:]))
            yield (
                f'{side[:-1]} [{{ name: "{port["name"]}", data_type: TYPE_{port["datatype"]}, '
                f"dims: [{dims}] }}]"
            )


@contextmanager
def _running(
    command: list[str], port: int, environment: dict[str, str], cwd: Path | None = None
) -> Iterator[int]:
    """The process, once its HTTP side says it is ready; ended by SIGTERM."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + _START_S
        while not _ready(port):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{command[0]} didn't become ready: {' '.join(command)}")
            time.sleep(0.1)
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False
