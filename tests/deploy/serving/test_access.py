"""The token and TLS."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from asked import ask, call, channel, grpc_request, infer_binary, infer_json
from serving_bundles import scaled, scaled_truth

from deploy.errors import RecipeError
from deploy.serving.access import Access, read_access
from deploy.serving.grpc_messages import message
from deploy.serving.options import Options
from deploy.serving.refusals import RefusalError

X = np.array([[1.5, -2, 3]], np.float32)
TOKEN = "b1946ac92492d2347c6235b4d2611184"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def test_a_token_guards_everything_but_health(
    start: Callable[..., Any], tmp_path: Path, token_file: Path
) -> None:
    running = start(scaled(tmp_path / "b"), token_file=token_file)
    good = {"authorization": f"Bearer {TOKEN}"}
    assert ask(running, "GET", "/v2/health/live").status == 200
    assert ask(running, "GET", "/v2/health/ready").status == 200
    for method, path in (("GET", "/v2"), ("GET", "/metrics"), ("GET", "/nothing")):
        answer = ask(running, method, path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "no token" in answer.error
    answer = infer_json(running, X, headers={"authorization": f"Bearer {TOKEN}x"})
    assert (answer.status, answer.error) == (401, "not this server's token")
    answer = infer_binary(running, X, headers=good)
    np.testing.assert_array_equal(answer.tensor(), scaled_truth(X))


def test_a_token_over_grpc(start: Callable[..., Any], tmp_path: Path, token_file: Path) -> None:
    running = start(scaled(tmp_path / "b"), token_file=token_file)
    raw = grpc_request(running, X).SerializeToString()
    with channel(running) as opened:
        call(opened, "ServerLive", b"")
        call(opened, "ServerReady", b"")
        for metadata in (None, [("authorization", "Bearer wrong")]):
            with pytest.raises(grpc.RpcError, match="token") as caught:
                call(opened, "ModelInfer", raw, metadata)
            error: Any = caught.value
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        reply = call(opened, "ModelInfer", raw, [("authorization", f"Bearer {TOKEN}")])
    assert message("ModelInferResponse").FromString(reply).model_name == "tiny"


@pytest.mark.parametrize("given", [b"", b"Bearer", b"Basic " + TOKEN.encode(), TOKEN.encode()])
def test_headers_that_arent_the_token(given: bytes) -> None:
    with pytest.raises(RefusalError, match="not this server's token"):
        Access(TOKEN.encode()).check(given)


def test_the_scheme_is_taken_in_any_case() -> None:
    Access(TOKEN.encode()).check(f"bearer {TOKEN}")


@pytest.mark.parametrize("content", ["", "short\n", "two lines of it\nand another one\n", "ä" * 20])
def test_a_file_that_holds_no_token(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(RecipeError, match="not one line of at least 16 ASCII characters"):
        read_access(Options(tmp_path, token_file=path))


def test_files_that_arent_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"No such file.*--token-file"):
        read_access(Options(tmp_path, token_file=tmp_path / "none"))
    with pytest.raises(RecipeError, match="give --tls-cert and --tls-key"):
        Options(tmp_path, tls_cert=tmp_path / "cert")
    none = tmp_path / "none"
    with pytest.raises(RecipeError, match=r"no certificate and its key.*No such file"):
        read_access(Options(tmp_path, tls_cert=none, tls_key=none))


def test_tls(start: Callable[..., Any], tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)]
    command += ["-out", str(cert), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    running = start(scaled(tmp_path / "b"), tls_cert=cert, tls_key=key)
    assert running.url.startswith("https://")
    trusting = ssl.create_default_context(cafile=str(cert))
    answer = infer_binary(running, X, tls=trusting)
    np.testing.assert_array_equal(answer.tensor(), scaled_truth(X))
    credentials = grpc.ssl_channel_credentials(cert.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{running.ports.grpc}", credentials) as opened:
        call(opened, "ModelInfer", grpc_request(running, X).SerializeToString())
    # without TLS nothing is answered
    with pytest.raises(Exception):  # noqa: B017
        ask(running, "GET", "/v2/health/live")
    key.write_text("no key")
    with pytest.raises(RecipeError, match="no certificate and its key"):
        read_access(running.server.options)
