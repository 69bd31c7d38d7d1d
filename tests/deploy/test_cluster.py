"""Over Dask workers the bytes are those of one process, whatever happens to the workers."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cluster_tasks as tasks
import numpy as np
import psutil
import pytest
from onnx import numpy_helper
from tiny_models import DIGITS, residual, samples_of

from calibrators.preprocess import Preprocess
from calibrators.samples import Sample
from deploy.artifacts.model import Model, copy_proto
from deploy.build import build
from deploy.calibrate import calibrate
from deploy.cluster import fitness
from deploy.cluster.calibrate import calibrate_on
from deploy.cluster.fitness import Needs, why_not
from deploy.cluster.parity import Pair, parity_on
from deploy.cluster.parts import Plan, cuts
from deploy.cluster.pending import Pending
from deploy.cluster.workers import Workers, _Crew
from deploy.data import SampleSet, open_samples
from deploy.errors import BuildError, CalibrationError, MissingBackendError, RecipeError
from deploy.load import load, read
from deploy.parity import Limits, parity
from deploy.recipe import Recipe
from deploy.target import Target, Tolerance
from deploy.tasks.embed import Embed

pytestmark = pytest.mark.slow

LIMITS = Limits(Tolerance(min_sqnr_db=10.0), "logits")
NEEDS = Needs()


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    pytest.importorskip("distributed", reason="Dask isn't installed: onnx-deploy[cluster]")
    with Workers.parse("local:2") as opened:
        yield opened


@pytest.fixture
def both(workers: Workers) -> Workers:
    """Two workers, also after some were killed, and not the moment they started: Dask starts no
    successor of one that ends while its nanny still counts it as starting."""
    client = workers._open.client
    client.wait_for_workers(2, timeout=60)
    while set(client.run(tasks.status, nanny=True).values()) != {"running"}:
        pass
    return workers


@pytest.fixture(scope="module")
def digits() -> Model:
    return load(read(DIGITS / "digits.onnx"))


@pytest.fixture(scope="module")
def images(digits: Model) -> SampleSet:
    return open_samples(str(DIGITS / "test.npz"), Recipe(samples=27), digits)


@pytest.fixture(scope="module")
def pair(digits: Model, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("engine")
    target = Target.load("cpu")
    # of another model: a good many samples differ, in class and in part strongly
    build(noisy(digits), target, "bf16", folder)
    return Pair.of((digits, digits, Preprocess()), folder, target, "bf16")


def stored(samples: list[Sample], kind: Any = tasks.Stored, *more: object) -> SampleSet:
    dataset = kind(samples, os.getpid(), *more)
    return SampleSet("stored", dataset, tuple(range(len(samples))), "stored")


def shuffled(samples: SampleSet, seed: int) -> SampleSet:
    order = np.random.default_rng(seed).permutation(len(samples))
    return SampleSet(samples.uri, samples.dataset, tuple(int(i) for i in order), samples.about)


class Killing:
    """Kills each process that announces itself in the folder, from a thread."""

    def __init__(self, folder: Path, kills: int) -> None:
        self.kills = kills
        self.killed: list[int] = []
        self.pipe = folder / "waiting"
        os.mkfifo(self.pipe)
        os.mkfifo(folder / "never")
        threading.Thread(target=self.work, daemon=True).start()

    def work(self) -> None:
        for _ in range(self.kills):
            pid = int(self.pipe.read_text())
            os.kill(pid, signal.SIGKILL)
            self.killed.append(pid)


def noisy(digits: Model) -> Model:
    """The same network with every weight off by about 30 %."""
    proto = copy_proto(digits.proto)
    random = np.random.default_rng(7)
    for tensor in proto.graph.initializer:
        x = numpy_helper.to_array(tensor)
        if x.dtype == np.float32:
            wrong = x * random.normal(1, 0.3, x.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    return digits.derive(proto, ())


class TestForms:
    @pytest.mark.parametrize(
        "uri",
        ["", "local", "local:0", "local:-1", "local:x", "dask://", "dask://host", "tcp://a:1"],
    )
    def test_others_are_refused(self, uri: str) -> None:
        with pytest.raises(RecipeError, match="give local:N"):
            Workers.parse(uri)

    @pytest.mark.parametrize(
        "uri", ["local:3", "dask://a.b:8786", "tls://10.0.0.1:1", "dask://[::1]:8"]
    )
    def test_these_are_taken(self, uri: str) -> None:
        assert Workers.parse(uri, 5.0) == Workers(uri, 5.0)

    def test_without_dask_the_pip_line_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(__import__("sys").modules, "distributed", None)
        with pytest.raises(MissingBackendError, match=r"pip install 'onnx-deploy\[cluster\]'"):
            Workers.parse("local:1").__enter__()

    def test_not_opened(self) -> None:
        with pytest.raises(BuildError, match="not connected; use `with"):
            Workers.parse("local:1").count()
        with pytest.raises(BuildError, match="not connected; use `with"):
            next(Workers.parse("local:1").map(tasks.process, b"", [0], NEEDS))


class TestCuts:
    @pytest.mark.parametrize("total", [0, 1, 3, 4, 5, 17])
    @pytest.mark.parametrize("align", [1, 4])
    @pytest.mark.parametrize("parts", [1, 2, 5])
    def test_every_sample_once_at_multiples(self, total: int, align: int, parts: int) -> None:
        found = list(cuts(total, parts, Plan(NEEDS, parts, align)))
        assert 1 <= len(found) <= parts
        assert [i for start, stop in found for i in range(start, stop)] == list(range(total))
        assert all(start % align == 0 for start, _ in found)
        assert all(start < stop for start, stop in found) or total == 0

    def test_of_its_own_accord_few_samples_stay_together(self) -> None:
        assert list(cuts(127, 8, Plan(NEEDS))) == [(0, 127)]
        assert list(cuts(192, 8, Plan(NEEDS))) == [(0, 64), (64, 128), (128, 192)]
        assert len(list(cuts(1000, 8, Plan(NEEDS)))) == 8


class TestFitness:
    HERE = fitness.facts()

    @pytest.mark.parametrize(
        "name", ["python", "onnx-deploy", "numpy", "onnx", "onnxruntime", "instructions"]
    )
    def test_what_decides_the_numbers_must_be_equal(self, name: str) -> None:
        assert (
            why_not(self.HERE, {**self.HERE, name: "x"}, NEEDS)
            == f"{name} x, here {self.HERE[name]}"
        )
        there = {key: value for key, value in self.HERE.items() if key != name}
        assert why_not(self.HERE, there, NEEDS) == f"{name} missing, here {self.HERE[name]}"

    @pytest.mark.parametrize("name", ["cpu", "cores"])
    def test_hardware_counts_where_kernels_depend_on_it(self, name: str) -> None:
        there = {**self.HERE, name: "x"}
        assert why_not(self.HERE, there, NEEDS) is None
        assert (
            why_not(self.HERE, there, Needs("ov", all_cores=True))
            == f"{name} x, here {self.HERE[name]}"
        )

    def test_the_vendor_has_to_be_there(self) -> None:
        lacking = {**self.HERE, "openvino": "missing"}
        assert why_not(self.HERE, lacking, NEEDS) is None
        assert why_not(self.HERE, lacking, Needs("ov")) == "openvino is missing"
        assert why_not(self.HERE, {**self.HERE, "openvino": "1"}, Needs("ov")) is not None

    def test_where_only_the_worker_has_the_vendor_its_hardware_is_its_own(self) -> None:
        here = {**self.HERE, "tensorrt": "missing"}
        there = {**here, "tensorrt": "10.3", "instructions": "aarch64", "cores": "6"}
        assert why_not(here, there, Needs("trt", all_cores=True)) is None
        assert why_not(here, {**there, "numpy": "x"}, Needs("trt", all_cores=True)) is not None
        assert why_not(here, here, Needs("trt", all_cores=True)) == "tensorrt is missing"


class TestCalibration:
    def ranges(self, folder: Path, make: Callable[[], Any]) -> bytes:
        make().save(folder / "ranges.json")
        return (folder / "ranges.json").read_bytes()

    @pytest.mark.parametrize("calibrator", ["minmax", "mse"])
    def test_same_bytes_for_any_parts_batch_and_order(
        self, workers: Workers, digits: Model, images: SampleSet, calibrator: str, tmp_path: Path
    ) -> None:
        expected = self.ranges(tmp_path, lambda: calibrate(digits, images, calibrator))
        for parts, batch_size in ((1, 8), (2, 1), (5, 8)):
            got = self.ranges(
                tmp_path,
                lambda parts=parts, batch_size=batch_size: calibrate_on(
                    workers, digits, images, calibrator, batch_size=batch_size, parts=parts
                ),
            )
            assert got == expected
        mixed = shuffled(stored(list(images)), seed=3)
        got = self.ranges(
            tmp_path, lambda: calibrate_on(workers, digits, mixed, calibrator, parts=3)
        )
        assert got == expected

    def test_several_inputs_of_a_fixed_batch(self, workers: Workers, tmp_path: Path) -> None:
        network = residual(4)
        samples = stored(samples_of(network, 11))
        expected = self.ranges(tmp_path, lambda: calibrate(network, samples, "entropy"))
        got = self.ranges(
            tmp_path, lambda: calibrate_on(workers, network, samples, "entropy", parts=4)
        )
        assert got == expected

    @pytest.mark.parametrize("kills", [1, 2])
    def test_killed_workers_change_nothing(
        self, both: Workers, digits: Model, images: SampleSet, kills: int, tmp_path: Path
    ) -> None:
        """Two: all there are, so that only those started in their place can end it."""
        killing = Killing(tmp_path, kills)
        deadly = stored(list(images), tasks.Deadly, tmp_path, kills, 20)
        expected = self.ranges(tmp_path, lambda: calibrate(digits, images, "mse"))
        got = self.ranges(tmp_path, lambda: calibrate_on(both, digits, deadly, "mse", parts=4))
        assert got == expected
        assert len(set(killing.killed)) == kills
        assert not any(psutil.pid_exists(pid) for pid in killing.killed)

    def test_a_task_that_always_kills_is_given_up(
        self,
        both: Workers,
        digits: Model,
        images: SampleSet,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        # tries of all workers there are: each costs a start of their successors
        monkeypatch.setattr("deploy.cluster.pending._TRIES", 1)
        Killing(tmp_path, 99)
        deadly = stored(list(images), tasks.Deadly, tmp_path, 99, 0)
        with pytest.raises(BuildError, match=r"takes them down.*without --workers"):
            calibrate_on(both, digits, deadly, "minmax", parts=1)

    def test_workers_read_files_themselves(
        self, workers: Workers, digits: Model, images: SampleSet, tmp_path: Path
    ) -> None:
        log = tmp_path / "log"
        samples = stored(list(images), tasks.Logged, log)
        calibrate_on(workers, digits, samples, "minmax", parts=5)
        read_there = [line.split() for line in log.read_text().splitlines()]
        assert sorted(int(index) for _, index in read_there) == list(range(27))
        assert str(os.getpid()) not in {pid for pid, _ in read_there}

    @pytest.mark.parametrize("kind", [tasks.Here, tasks.Other, tasks.Unpicklable])
    def test_samples_travel_where_workers_have_others(
        self, workers: Workers, digits: Model, images: SampleSet, kind: Any, tmp_path: Path
    ) -> None:
        samples = stored(list(images), kind)
        expected = self.ranges(tmp_path, lambda: calibrate(digits, images, "minmax"))
        counted: list[int] = []
        got = self.ranges(
            tmp_path,
            lambda: calibrate_on(
                workers, digits, samples, "minmax", parts=9, advance=counted.append
            ),
        )
        assert got == expected
        assert counted == [3] * 9

    def test_samples_from_a_function_travel(
        self, workers: Workers, digits: Model, images: SampleSet, tmp_path: Path
    ) -> None:
        log = tmp_path / "log"
        inner = stored(list(images), tasks.Logged, log)
        samples = SampleSet("python:a:b", inner.dataset, inner.indices, "")
        calibrate_on(workers, digits, samples, "minmax", parts=2)
        assert not log.exists()

    def test_errors_are_those_of_one_process(self, workers: Workers, digits: Model) -> None:
        samples = samples_of(digits, 6)
        for index in (2, 5):
            samples[index].feeds["image"][:] = np.nan
        for make in (calibrate, lambda *given: calibrate_on(workers, *given, parts=3)):
            with pytest.raises(CalibrationError, match=f"NaN or Inf on sample {samples[2].name};"):
                make(digits, stored(samples), "minmax")
        with pytest.raises(CalibrationError, match="no samples to calibrate on"):
            calibrate_on(workers, digits, stored([]), "minmax")
        with pytest.raises(RecipeError, match="unknown calibrator 'minmix'"):
            calibrate_on(workers, digits, stored(samples), "minmix")


class TestParity:
    def files(self, folder: Path) -> dict[str, bytes]:
        return {
            p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        }

    def alone(self, pair: Pair, samples: SampleSet, folder: Path) -> dict[str, bytes]:
        folder.mkdir()
        with pair.opened() as (exact, engine):
            report = parity(exact, engine, samples, LIMITS, about=samples.about, evidence=folder)
        report.save(folder / "parity.json")
        return self.files(folder)

    def shared(
        self, workers: Workers, pair: Pair, samples: SampleSet, folder: Path, parts: int
    ) -> dict[str, bytes]:
        folder.mkdir()
        counted: list[int] = []
        report = parity_on(
            workers, pair, samples, LIMITS, evidence=folder, parts=parts, advance=counted.append
        )
        assert sum(counted) == len(samples)
        report.save(folder / "parity.json")
        return self.files(folder)

    def test_a_task_whose_figures_need_all_samples(
        self, workers: Workers, pair: Pair, images: SampleSet
    ) -> None:
        limits = Limits(Tolerance(max_drop_pct=1.0), other_task=Embed("logits"))
        with pair.opened() as (exact, engine):
            expected = parity(exact, engine, images, limits, about=images.about)
        assert expected.predictions is not None
        assert expected.predictions.agreement_pct < 100
        for parts in (2, 5):
            assert parity_on(workers, pair, images, limits, parts=parts) == expected

    def test_report_and_evidence_are_those_of_one_process(
        self, workers: Workers, pair: Pair, images: SampleSet, tmp_path: Path
    ) -> None:
        expected = self.alone(pair, images, tmp_path / "alone")
        assert len(expected) == 7
        for parts in (1, 2, 5):
            assert self.shared(workers, pair, images, tmp_path / str(parts), parts) == expected

    def test_killed_worker_changes_nothing(
        self, both: Workers, pair: Pair, images: SampleSet, tmp_path: Path
    ) -> None:
        killing = Killing(tmp_path, 1)
        deadly = stored(list(images), tasks.Deadly, tmp_path, 1, 25)
        expected = self.alone(pair, deadly, tmp_path / "alone")
        assert self.shared(both, pair, deadly, tmp_path / "shared", 4) == expected
        assert len(killing.killed) == 1

    def test_errors_are_those_of_one_process(
        self, workers: Workers, pair: Pair, images: SampleSet
    ) -> None:
        wrong = list(images)
        wrong[7] = Sample(wrong[7].name, wrong[7].feeds, 10)
        with pytest.raises(CalibrationError, match="has label 10, but output 'logits' has 10"):
            parity_on(workers, pair, stored(wrong), LIMITS, parts=2)
        with pytest.raises(CalibrationError, match="no samples to judge on"):
            parity_on(workers, pair, stored([]), LIMITS)


class TestMap:
    def test_results_come_in_order_with_what_is_shared(self, workers: Workers) -> None:
        found = list(workers.map(tasks.process, b"all", iter(range(20)), NEEDS))
        assert [(shared, shard) for shared, shard, _ in found] == [(b"all", i) for i in range(20)]
        assert os.getpid() not in {pid for _, _, pid in found}

    def test_more_than_dask_warns_of_travels(self, workers: Workers) -> None:
        ((shared, _, _),) = workers.map(tasks.process, bytes(11_000_000), [0], NEEDS)
        assert len(shared) == 11_000_000

    def test_an_error_that_is_not_ours_is_named(self, workers: Workers) -> None:
        with pytest.raises(BuildError, match="OSError: shard 1 of model; see its log"):
            list(workers.map(tasks.failing, b"model", range(3), NEEDS))

    def test_a_result_lost_before_it_was_fetched_is_made_again(self, both: Workers) -> None:
        client, crew = both._open.client, _Crew(both, NEEDS)
        one = Pending(both.uri, (tasks.process, b"all", 3))
        one.see_to_it(client, crew.fit())
        assert one.future.exception() is None
        killed = set(client.run(tasks.own_pid).values())
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        while not one.arrived():
            one.see_to_it(client, crew.fit())
        shared, shard, pid = one.result
        assert (shared, shard) == (b"all", 3)
        # it may have been fetched while the last of the two was going
        assert one.tries > 1 or pid in killed

    def test_what_waits_for_the_model_still_runs_in_order(
        self, both: Workers, tmp_path: Path
    ) -> None:
        """Else the shard wanted first may stand behind all others, on every worker. The one a
        worker begins with when the model arrives is any of them."""
        client, one = both._open.client, set(both._open.known()[:1])
        lock = tmp_path / "lock"
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            model = client.submit(tasks.after, str(lock), pure=False)
            waiting = [Pending(both.uri, (tasks.noted, model, shard)) for shard in range(8)]
            for pending in waiting:
                pending.see_to_it(client, one)
        assert [pending.future.result() for pending in waiting] == list(range(8))
        _, *others = (int(shard) for shard in lock.read_text().split())
        assert others == sorted(others)

    def test_what_waits_is_dropped_when_nobody_wants_it(
        self, both: Workers, tmp_path: Path
    ) -> None:
        lock = tmp_path / "lock"
        taken: list[int] = []
        shards = (taken.append(i) or i for i in range(100))
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            results = both.map(tasks.held, str(lock).encode(), shards, NEEDS)
            assert next(results) == 0
            futures = dict(both._open.client.futures)
            assert len(taken) == 4
            assert "pending" in {state.status for state in futures.values()}
            results.close()  # type: ignore[attr-defined]
        assert "pending" not in {state.status for state in futures.values()}
        assert len(list(both.map(tasks.process, b"", range(2), NEEDS))) == 2


class TestSelection:
    @pytest.fixture
    def pretending(self, both: Workers) -> Iterator[Callable[[list[str]], None]]:
        client = both._open.client

        def set_(addresses: list[str]) -> None:
            client.run(tasks.pretend, "onnxruntime", "0.1", workers=addresses)

        yield set_
        client.run(tasks.pretend, "onnxruntime", None)

    def test_others_get_no_tasks(
        self, both: Workers, pretending: Callable[[list[str]], None]
    ) -> None:
        first, second = both._open.known()
        pretending([first])
        pids = both._open.client.run(tasks.own_pid)
        found = both.map(tasks.process, b"", range(12), NEEDS)
        assert {pid for _, _, pid in found} == {pids[second]}

    def test_none_that_fits_is_said_with_what_each_has(
        self, both: Workers, pretending: Callable[[list[str]], None]
    ) -> None:
        known = both._open.known()
        pretending(known)
        impatient = Workers(both.uri, 0.0)
        impatient._open.client = both._open.client
        here = fitness.facts()["onnxruntime"]
        wanted = rf"no worker fits after 0 s \({known[0]}: onnxruntime 0.1, here {here}; {known[1]}"
        with pytest.raises(BuildError, match=wanted):
            list(impatient.map(tasks.process, b"", range(2), NEEDS))


class TestConnection:
    def test_local_workers_listen_on_this_machine_only_and_leave_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("distributed", reason="Dask isn't installed: onnx-deploy[cluster]")
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        me = psutil.Process()
        before = {child.pid for child in me.children(recursive=True)}
        with Workers.parse("local:1") as opened:
            assert opened.count() == 1
            ours = [c for c in me.children(recursive=True) if c.pid not in before]
            sockets = [s for p in (me, *ours) for s in p.net_connections() if s.status == "LISTEN"]
            assert ours and len(sockets) >= 3
            assert {s.laddr.ip for s in sockets} == {"127.0.0.1"}
            (scratch,) = tmp_path.iterdir()
            assert set(opened._open.client.run(tempfile.gettempdir).values()) == {str(scratch)}
        left = [" ".join(c.cmdline()) for c in me.children(recursive=True) if c.pid not in before]
        # Python's own, which ends with the process that started it
        assert [line for line in left if "resource_tracker" not in line] == []
        assert not list(tmp_path.iterdir())

    def test_nobody_there(self) -> None:
        pytest.importorskip("distributed", reason="Dask isn't installed: onnx-deploy[cluster]")
        with (
            pytest.raises(BuildError, match=r"no scheduler answers there.*dask scheduler"),
            Workers.parse("dask://127.0.0.1:9", 0.2),
        ):
            pass

    def test_a_scheduler_without_workers(self) -> None:
        distributed = pytest.importorskip("distributed", reason="Dask isn't installed")
        quiet = {"dashboard_address": "127.0.0.1:0"}
        with (
            distributed.LocalCluster(
                n_workers=0, dashboard_address=None, protocol="tcp://", scheduler_kwargs=quiet
            ) as cluster,
            Workers.parse(cluster.scheduler_address.replace("tcp", "dask"), 2.0) as opened,
            pytest.raises(BuildError, match=r"the scheduler has no workers.*start workers"),
        ):
            list(opened.map(tasks.process, b"", [1], NEEDS))


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path) -> dict[str, str]:
        key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
        asked = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=dask"]
        try:
            subprocess.run(
                [*asked, "-days", "2", "-keyout", str(key), "-out", str(cert)],
                check=True,
                capture_output=True,
            )
        except FileNotFoundError:
            pytest.skip("no openssl to make a certificate with")
        both = {"cert": str(cert), "key": str(key)}
        return {
            "ca-file": str(cert),
            **{
                f"{who}.{k}": v
                for who in ("client", "scheduler", "worker")
                for k, v in both.items()
            },
        }

    def test_its_files_are_dasks_own_settings(self, certificate: dict[str, str]) -> None:
        distributed = pytest.importorskip("distributed", reason="Dask isn't installed")
        import dask

        tls = {f"distributed.comm.tls.{key}": value for key, value in certificate.items()}
        with dask.config.set(tls):
            cluster = distributed.LocalCluster(
                n_workers=1,
                processes=False,
                protocol="tls://",
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            )
        with cluster:
            uri = cluster.scheduler_address
            assert uri.startswith("tls://")
            with dask.config.set(tls), Workers.parse(uri, 5.0) as opened:
                ((shared, shard, _),) = opened.map(tasks.process, b"x", [3], NEEDS)
                assert (shared, shard) == (b"x", 3)
            with (
                pytest.raises(BuildError, match="give Dask's tls settings"),
                Workers.parse(uri, 0.5),
            ):
                pass
