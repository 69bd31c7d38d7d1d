"""2,000 concurrent requests of mixed batch from the official Triton client: the engine's numbers.

MobileNetV2 takes a minute: opt-in by SERVE_LOAD (make serve-test).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from own_process import Logged, process
from served_bundles import digits, mobilenetv2
from triton_clients import Reference, wrong_answers

__all__ = ["digits"]
pytest.importorskip("tritonclient", reason="tritonclient isn't installed")
pytestmark = pytest.mark.filterwarnings("default")


def wrong(bundle: Path) -> list[str]:
    """What `deploy serve` in a process of its own answered otherwise than the engine does."""
    with process(bundle, "--http-port", 0, "--grpc-port", 0, gated=False) as server:
        logged = Logged(server)
        http, grpc = (f"127.0.0.1:{port}" for port in (logged.http, logged.grpc))
        return wrong_answers(http, grpc, logged.name, Reference(bundle))


def test_digits(digits: Path) -> None:
    assert wrong(digits) == []


@pytest.mark.skipif(
    not os.environ.get("SERVE_LOAD"), reason="opt-in: SERVE_LOAD isn't set (make serve-test)"
)
def test_mobilenetv2(tmp_path: Path) -> None:
    assert wrong(mobilenetv2(tmp_path / "bundle")) == []
