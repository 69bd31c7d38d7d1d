"""Another version takes the place of the first: nothing that was asked is lost."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked import (
    ask,
    grpc_request,
    infer_binary,
    infer_grpc,
    infer_json,
)
from openvino import opset13 as ops
from serving_bundles import bundle, named, parameter, scaled, scaled_truth

from deploy.serving.compiled import Runner

X = np.array([[1.5, -2, 3], [0, 0.25, 9]], np.float32)


def replaced(folder: Path, factor: float) -> None:
    """Another version in the bundle's place, as a build does it: aside, then renamed."""
    fresh = scaled(folder.with_name("fresh"), factor=factor)
    old = folder.with_name("old")
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)


def over_http(running: Any, x: np.ndarray) -> tuple[str, np.ndarray]:
    """Version and output of one inference."""
    answer = infer_binary(running, x)
    return answer.json["model_version"], answer.tensor()


def over_grpc(running: Any, x: np.ndarray) -> tuple[str, np.ndarray]:
    """The same over gRPC."""
    reply = infer_grpc(running, grpc_request(running, x))
    raw = np.frombuffer(reply.raw_output_contents[0], "<f4")
    return reply.model_version, raw.reshape(reply.outputs[0].shape)


@pytest.mark.parametrize("infer", [over_http, over_grpc])
def test_a_reload_under_load_loses_nothing(
    infer: Callable[[Any, np.ndarray], tuple[str, np.ndarray]],
    start: Callable[..., Any],
    tmp_path: Path,
    pool: ThreadPoolExecutor,
) -> None:
    folder = scaled(tmp_path / "b", factor=1.0)
    running = start(folder)
    stop = threading.Event()
    wrong: list[Any] = []
    seen: set[str] = set()

    def work(seed: int) -> int:
        count = 0
        while not stop.is_set():
            x = np.random.default_rng(seed).normal(size=(1 + count % 3, 3)).astype(np.float32)
            try:
                version, got = infer(running, x)
            # whatever it is, a request was lost
            except Exception as error:
                wrong.append(error)
                return count
            if not np.array_equal(got, scaled_truth(x, float(version))):
                wrong.append(got)
            seen.add(version)
            count += 1
        return count

    workers = [pool.submit(work, seed) for seed in range(4)]
    for factor in (2.0, 3.0, 4.0):
        replaced(folder, factor)
        answer = ask(running, "POST", "/v2/repository/models/tiny/load", b"")
        assert answer.json == {"name": "tiny", "version": str(int(factor))}
    stop.set()
    assert sum(worker.result() for worker in workers) > 0
    assert wrong == []
    assert "4" in seen or infer(running, X)[0] == "4"


def test_a_request_of_the_old_version_is_finished_by_it(
    busy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, gate, first = busy()
    replaced(tmp_path / "b", 5.0)
    gate_run = Runner.run
    monkeypatch.undo()
    assert gate_run is not Runner.run
    assert ask(running, "POST", "/v2/repository/models/tiny/load", b"").status == 200
    np.testing.assert_array_equal(infer_json(running, X).tensor(), scaled_truth(X, 5.0))
    assert not first.done()
    gate.open()
    np.testing.assert_array_equal(first.result().tensor(), scaled_truth(X, 2.0))


def test_a_bad_new_version_leaves_the_old_one(start: Callable[..., Any], tmp_path: Path) -> None:
    folder = scaled(tmp_path / "b")
    running = start(folder)
    (folder / "engine" / "model.bin").write_bytes(b"")
    answer = ask(running, "POST", "/v2/repository/models/tiny/load", b"")
    assert answer.status == 400
    assert "0 bytes, the manifest says" in answer.error
    assert answer.error.endswith("version 1 stays")
    np.testing.assert_array_equal(infer_json(running, X).tensor(), scaled_truth(X))
    assert (
        'deploy_reloads_total{result="failed"} 1.0' in ask(running, "GET", "/metrics").body.decode()
    )


def wide(folder: Path) -> Path:
    """Another width."""
    x = parameter("x", [-1, 5])
    return bundle(folder, [named(ops.multiply(x, x), "y")], [x])


def other_type(folder: Path) -> Path:
    """Another type of the input."""
    x = parameter("x", [-1, 3], "i32")
    return bundle(folder, [named(ops.convert(x, "f32"), "y")], [x])


def other_output(folder: Path) -> Path:
    """Another name of the output."""
    x = parameter("x", [-1, 3])
    return bundle(folder, [named(ops.multiply(x, x), "z")], [x])


def one_more(folder: Path) -> Path:
    """Another output besides."""
    x = parameter("x", [-1, 3])
    ends = [named(ops.multiply(x, x), "y"), named(ops.add(x, x), "z")]
    return bundle(folder, ends, [x])


def fixed_rows(folder: Path) -> Path:
    """Exactly two rows, which depend on each other."""
    x = parameter("x", [2, 3])
    mean = ops.reduce_mean(x, ops.constant(np.int64(0)), keep_dims=True)
    return bundle(folder, [named(ops.subtract(x, mean), "y")], [x])


@pytest.mark.parametrize(
    ("make", "new"),
    [
        (wide, "x FP32 [any, 5] -> y FP32 [any, 5]"),
        (other_type, "x INT32 [any, 3] -> y FP32 [any, 3]"),
        (other_output, "x FP32 [any, 3] -> z FP32 [any, 3]"),
        (one_more, "x FP32 [any, 3] -> y FP32 [any, 3], z FP32 [any, 3]"),
        (fixed_rows, "x FP32 [2, 3] -> y FP32 [2, 3]"),
    ],
)
def test_another_model_doesnt_take_its_clients_over(
    make: Callable[[Path], Path],
    new: str,
    start: Callable[..., Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scaled(tmp_path / "v" / "1")
    running = start(tmp_path / "v", name="fixed")
    make(tmp_path / "v" / "2")
    answer = ask(running, "POST", "/v2/repository/models/fixed/load", b"")
    said = f"version 2 is {new}; version 1, which is served, is x FP32 [any, 3] -> y FP32 [any, 3]"
    assert answer.status == 400
    assert said in answer.error
    assert answer.error.endswith("version 1 stays")
    assert said in caplog.text
    again = infer_json(running, X)
    assert again.json["model_version"] == "1"
    np.testing.assert_array_equal(again.tensor(), scaled_truth(X))


def test_any_rows_take_over_from_fixed_ones(start: Callable[..., Any], tmp_path: Path) -> None:
    fixed_rows(tmp_path / "v" / "1")
    running = start(tmp_path / "v")
    scaled(tmp_path / "v" / "2")
    assert ask(running, "POST", "/v2/repository/models/tiny/load", b"").status == 200
    np.testing.assert_array_equal(infer_json(running, X).tensor(), scaled_truth(X))


def test_the_newest_of_a_folder_of_versions(start: Callable[..., Any], tmp_path: Path) -> None:
    scaled(tmp_path / "v" / "2", factor=2.0)
    scaled(tmp_path / "v" / "10", factor=10.0)
    running = start(tmp_path / "v")
    assert infer_json(running, X).json["model_version"] == "10"
    scaled(tmp_path / "v" / "11", factor=11.0)
    ask(running, "POST", "/v2/repository/models/tiny/load", b"")
    answer = infer_json(running, X)
    assert answer.json["model_version"] == "11"
    np.testing.assert_array_equal(answer.tensor(), scaled_truth(X, 11.0))
