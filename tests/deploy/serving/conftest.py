"""Makes `serving_bundles` importable, and a server on ports of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """start(bundle, queue=3, …) -> Running, stopped at the end of the test."""
    from deploy.serving.background import serving
    from deploy.serving.options import Options

    with ExitStack() as stack:

        def begin(bundle: Path, **options: Any) -> Any:
            given = {"http_port": 0, "grpc_port": 0, "linger_s": 0.0, **options}
            return stack.enter_context(serving(Options(bundle, **given)))

        yield begin


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as made:
        yield made


@pytest.fixture
def busy(
    start: Callable[..., Any],
    tmp_path: Path,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., Any]]:
    """busy(queue=2) -> a server whose engine holds a first request, the gate, that request."""
    import numpy as np
    from asked import infer_binary
    from gate import Gate
    from serving_bundles import scaled

    gates: list[Gate] = []
    x = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)

    def begin(**options: Any) -> tuple[Any, Any, Future[Any]]:
        running = start(scaled(tmp_path / "b"), streams=1, max_batch=1, **options)
        gate = Gate(monkeypatch)
        gates.append(gate)
        first = pool.submit(infer_binary, running, x)
        gate.wait()
        return running, gate, first

    yield begin
    for gate in gates:
        gate.open()
