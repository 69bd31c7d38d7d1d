"""`deploy serve`: a bundle behind HTTP and gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path, dir_okay=False)
_PORT = click.IntRange(0, 65535)


@click.command("serve", short_help="Serve a bundle over HTTP and gRPC (V2 protocol).")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--http-port", type=_PORT, default=8000, show_default=True, help="0: a free one.")
@click.option("--grpc-port", type=_PORT, default=8001, show_default=True, help="0: a free one.")
@click.option("--no-grpc", is_flag=True, help="HTTP only.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--name", default="", help="What clients call the model; else the file's stem.")
@click.option("--queue", type=click.IntRange(1), default=256, show_default=True, help="Then 503.")
@click.option(
    "--timeout-s", type=click.FloatRange(0, min_open=True), default=30.0, show_default=True
)
@click.option(
    "--max-request-bytes", type=click.IntRange(1), default=64 << 20, show_default=True, help="413."
)
@click.option("--threads", type=click.IntRange(0), default=0, help="0: the vendor's choice.")
@click.option("--streams", type=click.IntRange(0), default=0, help="0: as many as pay off.")
@click.option("--max-batch", type=click.IntRange(0), default=0, help="Rows per run; 0: measured.")
@click.option("--connections", type=click.IntRange(1), default=1024, show_default=True)
@click.option("--token-file", type=_FILE, help="The bearer token that clients must send.")
@click.option("--tls-cert", type=_FILE, help="PEM.")
@click.option("--tls-key", type=_FILE, help="PEM.")
@click.option("--log-requests", is_flag=True, help="One log line per inference.")
@click.option("--allow-failed", is_flag=True, help="Serve a bundle that missed its gates.")
@click.option("--allow-libraries", is_flag=True, help="Load plugin libraries: runs their code.")
def command(no_grpc: bool, **given: Any) -> None:
    """Serve BUNDLE's OpenVINO engine, or the newest of a folder's 1/, 2/, …

    SIGHUP, or a POST to /v2/repository/models/NAME/load, takes the bundle that is on disk now,
    without losing a request; SIGTERM finishes what is under way.
    """
    from deploy.errors import MissingBackendError

    if no_grpc:
        given["grpc_port"] = None
    try:
        from deploy.serving.lifecycle import serve
    except ImportError as error:
        raise MissingBackendError(
            f"the server's packages aren't installed ({error}); pip install 'onnx-deploy[serve]'"
        ) from None
    from deploy.serving.options import Options

    serve(Options(**given))
