"""Merging: the same numbers as one by one, or none of it."""

from __future__ import annotations

import io
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_bundles import bundle, centred, named, ops, parameter, scaled, scaled_truth, two_inputs

from deploy.serving.bundle_check import check
from deploy.serving.compiled import Compiled, Runner
from deploy.serving.engine_threads import EngineThreads, Run, run_jobs
from deploy.serving.merge_check import SIZES, most_rows
from deploy.serving.refusals import Kind, RefusalError
from deploy.serving.waiting import Job


def compiled(folder: Path) -> Compiled:
    return Compiled(check(folder))


def limit(folder: Path, wanted: int = 0) -> int:
    checked = check(folder)
    return most_rows(Compiled(checked), checked.samples, wanted)


def jobs(*arrays: np.ndarray) -> list[Job]:
    return [Job({"x": x}, len(x), (x.shape[1:],), 1e12, lambda result: None) for x in arrays]


def some(rows: int) -> np.ndarray:
    return np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)


def test_what_is_merged_comes_apart_again(tmp_path: Path) -> None:
    engine = compiled(scaled(tmp_path / "b"))
    assert engine.rows == "merge"
    arrays = [some(1), some(3), some(2)]
    found = run_jobs(engine.runner(), jobs(*arrays), engine.rows)
    for x, outputs in zip(arrays, found, strict=True):
        np.testing.assert_array_equal(outputs["y"], scaled_truth(x))


def test_an_engine_for_one_row_runs_row_by_row(tmp_path: Path) -> None:
    engine = compiled(scaled(tmp_path / "b", batch=1))
    assert engine.rows == "split"
    found = run_jobs(engine.runner(), jobs(some(4)), engine.rows)
    np.testing.assert_array_equal(found[0]["y"], scaled_truth(some(4)))


def test_an_engine_for_several_rows_takes_exactly_those(tmp_path: Path) -> None:
    assert compiled(scaled(tmp_path / "b", batch=4)).rows == "fixed"


def test_rows_that_depend_on_each_other_are_never_merged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert limit(centred(tmp_path / "b")) == 1
    assert limit(centred(tmp_path / "c"), wanted=8) == 1
    assert "rows of one run depend on each other" in caplog.text


def test_a_limit_is_found_or_given(tmp_path: Path) -> None:
    assert limit(scaled(tmp_path / "b")) in (1, *SIZES)
    assert limit(scaled(tmp_path / "c"), wanted=5) == 5
    assert limit(scaled(tmp_path / "d", batch=1), wanted=5) == 1
    assert limit(two_inputs(tmp_path / "e")) in (1, *SIZES)


def test_the_bundles_own_samples_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = parameter("x", [-1, 3], "i64")
    table = ops.constant(np.arange(50, dtype=np.float32))
    taken = ops.gather(table, x, ops.constant(np.int64(0)))
    samples = {"x": np.array([[40, 41, 42], [43, 44, 45]], np.int64)}
    folder = bundle(tmp_path / "b", [named(taken, "y")], [x], samples=samples)
    seen: list[Any] = []
    run = Runner.run

    def spy(self: Runner, feeds: Any) -> Any:
        seen.append(feeds["x"].copy())
        return run(self, feeds)

    monkeypatch.setattr(Runner, "run", spy)
    limit(folder)
    np.testing.assert_array_equal(seen[0], samples["x"][:1])
    np.testing.assert_array_equal(seen[1], samples["x"][1:])


def test_outputs_that_arent_rows_are_run_one_by_one(tmp_path: Path) -> None:
    x = parameter("x", [-1, 3])
    found = ops.transpose(ops.non_zero(x, "i64"), ops.constant(np.array([1, 0])))
    engine = compiled(bundle(tmp_path / "b", [named(found, "y")], [x]))
    a, b = np.array([[1, 0, 2]], np.float32), np.array([[0, 0, 3], [1, 1, 1]], np.float32)
    results = run_jobs(engine.runner(), jobs(a, b), "merge")
    np.testing.assert_array_equal(results[0]["y"], [[0, 0], [0, 2]])
    np.testing.assert_array_equal(results[1]["y"], [[0, 2], [1, 0], [1, 1], [1, 2]])


def test_read_only_and_unaligned_and_strided_feeds(tmp_path: Path) -> None:
    runner = compiled(scaled(tmp_path / "b")).runner()
    x = some(2)
    raw = b"!" + x.tobytes()
    for feed in (
        np.frombuffer(raw, "<f4", offset=1).reshape(2, 3),
        np.asfortranarray(x),
        np.concatenate([x, x], 1)[:, :3],
        np.frombuffer(bytearray(raw)[1:], "<f4").reshape(2, 3),
    ):
        np.testing.assert_array_equal(runner.run({"x": feed})["y"], scaled_truth(x))


def test_an_engine_that_fails_tells_its_callers_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = []
    answered = threading.Semaphore(0)

    def done(result: Any) -> None:
        answers.append(result)
        answered.release()

    engine = compiled(scaled(tmp_path / "b"))
    run = Runner.run

    def fail_once(self: Runner, feeds: Any) -> Any:
        if not answers:
            raise RuntimeError("out of luck")
        return run(self, feeds)

    monkeypatch.setattr(Runner, "run", fail_once)
    runs: list[Run] = []
    threads = EngineThreads(engine, 9, 1, runs.append)
    x = some(2)
    for _ in range(2):
        threads.waiting.put(Job({"x": x}, 2, ((3,),), 1e12, done))
        assert answered.acquire(timeout=20)
    threads.close()
    assert isinstance(answers[0], RefusalError)
    assert answers[0].kind is Kind.INTERNAL
    assert answers[0].reason == "the engine stopped: out of luck"
    np.testing.assert_array_equal(answers[1]["y"], scaled_truth(x))
    assert [(one.requests, one.rows) for one in runs] == [(1, 2)]


def test_samples_that_claim_more_than_there_is_are_not_read(tmp_path: Path) -> None:
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (10**15, 3)}
    np.lib.format.write_array_header_1_0(header, claimed)
    with zipfile.ZipFile(tmp_path / "samples.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    engine = compiled(scaled(tmp_path / "b"))
    assert most_rows(engine, tmp_path / "samples.npz", 5) == 5
