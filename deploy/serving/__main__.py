"""`python -m deploy.serving BUNDLE`: the server where the rest of onnx-deploy isn't installed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.errors import DeployError
from deploy.serving.options import Options

_HELP = {
    "http_port": "0 takes a free one",
    "grpc_port": "0 takes a free one",
    "host": "address to listen on",
    "name": "what clients call the model; else the model file's stem",
    "queue": "requests that may wait for the engine; the next one gets 503",
    "timeout_s": "from a request's first byte to its answer",
    "max_request_bytes": "larger requests get 413",
    "threads": "of the engine; 0: the vendor's choice",
    "streams": "inferences at a time; 0: as many as pay off",
    "max_batch": "rows of several requests run as one; 0: measured",
    "connections": "open at the same time",
    "token_file": "file with the bearer token that clients must send",
    "tls_cert": "PEM",
    "tls_key": "PEM",
    "log_requests": "one log line per inference",
    "allow_failed": "serve a bundle that missed its parity gates",
    "allow_libraries": "load the bundle's plugin libraries: runs their code",
}
_PATHS = ("token_file", "tls_cert", "tls_key")


def main(arguments: list[str] | None = None) -> int:
    """The exit code; a user's mistake is one line on standard error."""
    given = vars(_parser().parse_args(arguments))
    if given.pop("no_grpc"):
        given["grpc_port"] = None
    try:
        from deploy.serving.lifecycle import serve

        serve(Options(**given))
    except DeployError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("deploy-serve", description="Serve a bundle, V2 protocol.")
    parser.add_argument("bundle", type=Path)
    for name, text in _HELP.items():
        default = getattr(Options, name)
        flag = "--" + name.replace("_", "-")
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true", help=text)
        else:
            kind = Path if name in _PATHS else type(default)
            parser.add_argument(flag, type=kind, default=default, help=f"{text} [{default}]")
    parser.add_argument("--no-grpc", action="store_true", help="HTTP only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
