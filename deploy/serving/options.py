"""What `deploy serve` is told, checked once."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import RecipeError

MIB = 1 << 20
# JSON takes the interpreter for itself while it is parsed, some 10 ms per MiB
MOST_JSON_BYTES = 16 * MIB


@dataclass(frozen=True)
class Options:
    """How to serve one bundle.

    bundle: a bundle, or a folder with one per version: 1/, 2/, …
    name: what clients call the model; empty for the model file's stem.
    http_port, grpc_port: 0 takes a free one; grpc_port None serves no gRPC.
    queue: requests that may wait for the engine; the next one gets 503.
    timeout_s: from the first byte of a request to its answer.
    threads: of the engine; 0 is the vendor's choice. streams: inferences at a time, 0 as many as
    pay off.
    max_batch: rows of different requests that are run as one; 0 finds it by measuring.
    linger_s: how long a stopping server still answers on open connections.
    """

    bundle: Path
    name: str = ""
    host: str = "127.0.0.1"
    http_port: int = 8000
    grpc_port: int | None = 8001
    queue: int = 256
    timeout_s: float = 30.0
    max_request_bytes: int = 64 * MIB
    threads: int = 0
    streams: int = 0
    max_batch: int = 0
    connections: int = 1024
    linger_s: float = 0.25
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_requests: bool = False
    allow_failed: bool = False
    allow_libraries: bool = False

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise RecipeError("TLS needs both files: give --tls-cert and --tls-key")
        if self.http_port == self.grpc_port and self.http_port:
            raise RecipeError(
                f"port {self.http_port} for both HTTP and gRPC; give another --grpc-port"
            )
        for flag in ("queue", "timeout_s", "max_request_bytes", "connections"):
            if getattr(self, flag) <= 0:
                name = flag.replace("_", "-")
                raise RecipeError(f"--{name} {getattr(self, flag)}; give more than 0")

    @property
    def json_bytes(self) -> int:
        """The most that a request may hold as JSON."""
        return min(MOST_JSON_BYTES, self.max_request_bytes)

    @property
    def held_bytes(self) -> int:
        """The most that all requests under way may hold together."""
        return 8 * self.max_request_bytes

    def local(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
