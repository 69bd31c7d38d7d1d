"""What HTTP and gRPC share: the model, the limits, the figures, and whether to stop."""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deploy.errors import DeployError, one_line
from deploy.serving.access import Access, read_access
from deploy.serving.body import Budget
from deploy.serving.infer_request import InferRequest
from deploy.serving.metrics import Metrics
from deploy.serving.options import Options
from deploy.serving.refusals import RefusalError, invalid
from deploy.serving.served import Served, Version
from deploy.serving.waiting import Outputs

_log = logging.getLogger("deploy.serving")
SERVER_NAME = "onnx-deploy"
EXTENSIONS = ("binary_tensor_data", "model_repository")
PLATFORM = "openvino"


class Service:
    """One model behind any number of protocols. Loading it takes a while: make it in a thread."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.access: Access = read_access(options)
        self.metrics = Metrics()
        self.served = Served(options, self.metrics.ran)
        self.budget = Budget(options.max_request_bytes, options.held_bytes)
        self.stopping = False
        self.metrics.watch(lambda: self.served.version.waiting(), lambda: self.budget.held)
        self._note_version()

    def ready(self) -> bool:
        """Whether new requests are welcome."""
        return not self.stopping

    @contextmanager
    def answering(self, protocol: str, started: float) -> Iterator[Answer]:
        """Counts and logs one inference request; what goes wrong in the block is its code."""
        answer = Answer()
        try:
            yield answer
        except RefusalError as refusal:
            answer.code = refusal.kind.name.lower()
            answer.reason = refusal.reason
            raise
        except BaseException:
            answer.code = "gone"
            raise
        finally:
            took_s = time.monotonic() - started
            self.metrics.answered(protocol, answer.code, took_s)
            self._log(protocol, answer, took_s)

    async def infer(self, version: Version, request: InferRequest) -> Outputs:
        """The outputs of a parsed request."""
        return await version.infer(request.feeds, request.deadline(self.options.timeout_s))

    async def reload(self, name: str, parameters: object = None) -> Version:
        """Load the newest version for a caller; refused with the reason where that fails."""
        self.served.named(name)
        if parameters:
            raise invalid("parameters of a load aren't served; the bundle says how it is run")
        try:
            version = await self.served.reload()
        except (DeployError, OSError) as error:
            self.metrics.reloaded(False)
            _log.error("not reloaded: %s", error)
            kept = f"version {self.served.version.number} stays"
            raise invalid(f"{one_line(error, 1000)}; {kept}") from None
        self.metrics.reloaded(True)
        self._note_version()
        return version

    async def reload_or_log(self) -> None:
        """`reload` for a signal: what goes wrong is in the log."""
        with suppress(RefusalError):
            await self.reload(self.served.name)

    def _note_version(self) -> None:
        self.metrics.serving(self.served.name, self.served.version.number)

    def _log(self, protocol: str, answer: Answer, took_s: float) -> None:
        if not self.options.log_requests and answer.code != "internal":
            return
        fields = {"protocol": protocol, "code": answer.code, "ms": round(took_s * 1000, 3)}
        if answer.reason:
            fields["reason"] = answer.reason
        level = logging.ERROR if answer.code == "internal" else logging.INFO
        _log.log(level, "inference", extra={"fields": fields})


class Answer:
    """How a request ended."""

    code = "ok"
    reason = ""


def server_metadata() -> dict[str, object]:
    """V2's description of the server."""
    return {"name": SERVER_NAME, "version": _own_version(), "extensions": list(EXTENSIONS)}


def model_metadata(version: Version) -> dict[str, object]:
    """V2's description of a model."""
    return {
        "name": version.name,
        "versions": [version.number],
        "platform": PLATFORM,
        "inputs": [port.described() for port in version.inputs],
        "outputs": [port.described() for port in version.outputs],
    }


def _own_version() -> str:
    for name in ("onnx-deploy", "onnx-deploy-serve"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"
