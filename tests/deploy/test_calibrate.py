"""Ranges don't depend on batch size, order or cores, and bad values are named."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from tiny_models import (
    DIGITS,
    conv,
    model,
    node,
    normal,
    residual,
    samples_of,
    weights_of,
)

from calibrators.ranges import Range
from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.model import Model
from deploy.artifacts.statistics import Statistics, merged
from deploy.backends import reference
from deploy.calibrate import (
    calibrate,
    calibrated_tensors,
    float_tensors,
    settings_of,
    source_of,
    statistics_of,
)
from deploy.errors import CalibrationError, RecipeError
from deploy.load import load, read


@pytest.fixture(scope="module")
def digits() -> Model:
    return load(read(DIGITS / "digits.onnx"))


@pytest.fixture(scope="module")
def digit_samples() -> list[Sample]:
    images = np.load(DIGITS / "calib.npz")["image"]
    # every 26th, so that a batch of 32 isn't full and one of 7 leaves a rest
    return [Sample(f"digit {i}", {"image": images[i : i + 1]}) for i in range(0, 1248, 26)]


def saved(model_: Model, samples: list[Sample], folder: Path, **settings: object) -> bytes:
    calibrator = str(settings.pop("calibrator", "minmax"))
    path = folder / "ranges.json"
    calibrate(model_, samples, calibrator, **settings).save(path)  # type: ignore[arg-type]
    return path.read_bytes()


class TestSameBytes:
    @pytest.mark.parametrize("calibrator", registry.names("calibrator"))
    def test_whatever_the_batch_size_and_order(
        self, digits: Model, digit_samples: list[Sample], calibrator: str, tmp_path: Path
    ) -> None:
        few = digit_samples if calibrator == "minmax" else digit_samples[::4]
        expected = saved(digits, few, tmp_path, calibrator=calibrator, batch_size=1)
        for batch_size, samples in ((7, few), (32, few[::-1])):
            got = saved(digits, samples, tmp_path, calibrator=calibrator, batch_size=batch_size)
            assert got == expected

    def test_the_same_digits_in_any_order(
        self, digits: Model, digit_samples: list[Sample], tmp_path: Path
    ) -> None:
        runs = [(1, 1), (7, 1), (32, 1), (1, -1), (7, -1), (32, -1)]
        found = {saved(digits, digit_samples[::d], tmp_path, batch_size=b) for b, d in runs}
        assert len(found) == 1

    @pytest.mark.parametrize("fixed", ["N", 4])
    def test_whatever_the_number_of_workers(
        self, fixed: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network = residual(fixed)
        samples = samples_of(network, 11)
        found = []
        for workers in (1, 2, 5):
            monkeypatch.setattr(reference, "cores", lambda workers=workers: workers)
            found.append(saved(network, samples, tmp_path, calibrator="entropy"))
        assert found[0] == found[1] == found[2]

    def test_samples_may_be_an_iterator(self, tmp_path: Path) -> None:
        network = residual()
        samples = samples_of(network, 5)
        assert saved(network, iter(samples), tmp_path) == saved(network, samples, tmp_path)  # type: ignore[arg-type]


class TestShards:
    def shards(
        self, network: Model, samples: list[Sample], calibrator: str, count: int, batch_size: int
    ) -> Statistics:
        """Observed apart, sent as bytes, merged in an order of its own."""
        parts = [
            pickle.dumps(
                statistics_of(network, samples[i::count], calibrator, batch_size=batch_size)
            )
            for i in range(count)
        ]
        order = np.random.default_rng(count).permutation(count)
        return merged([pickle.loads(parts[i]) for i in order])

    @pytest.mark.parametrize("calibrator", registry.names("calibrator"))
    def test_any_number_order_and_batch_give_the_same_bytes(
        self, calibrator: str, tmp_path: Path
    ) -> None:
        network = wide()
        samples = samples_of(network, 13)
        expected = saved(network, samples, tmp_path, calibrator=calibrator)
        path = tmp_path / "merged.json"
        for count in (1, 2, 5):
            for batch_size in (1, 8):
                given = samples if count % 2 else samples[::-1]
                shards = self.shards(network, given, calibrator, count, batch_size)
                shards.ranges().save(path)
                assert path.read_bytes() == expected

    def test_a_shard_without_samples_changes_nothing(self, tmp_path: Path) -> None:
        network = residual()
        full = statistics_of(network, samples_of(network, 5), "entropy")
        expected = full.ranges()
        full.merge(statistics_of(network, [], "entropy"))
        assert full.ranges() == expected

    def test_merging_keeps_the_other(self) -> None:
        network = residual()
        a, b = (statistics_of(network, samples_of(network, 3, seed=s), "mse") for s in (1, 2))
        before = b.ranges()
        a.merge(b)
        a.merge(statistics_of(network, samples_of(network, 3, seed=3), "mse"))
        assert b.ranges() == before
        assert len(a.ranges().source.sample_sha256) == 9

    def test_of_another_model_or_calibrator_is_refused(self) -> None:
        mine = statistics_of(residual(), samples_of(residual(), 2), "minmax")
        for other in (
            statistics_of(conv(), samples_of(conv(), 2), "minmax"),
            statistics_of(residual(), samples_of(residual(), 2), "entropy"),
        ):
            with pytest.raises(CalibrationError, match="can't be merged into those of"):
                mine.merge(other)

    def test_nothing_to_merge(self) -> None:
        with pytest.raises(CalibrationError, match="no statistics to merge; observe at least"):
            merged([])


def wide() -> Model:
    """A net whose maps are larger than what is looked at of them, some with 16 channels."""
    nodes = [
        node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Sigmoid", ["c2"], ["g"]),
        node("Mul", ["c2", "g"], ["m"]),
    ]
    weights = {"w1": normal(16, 3, 3, 3, seed=1), "w2": normal(6, 16, 3, 3, seed=2)}
    size = [31, 37]
    return model(nodes, {"x": ["N", 3, *size]}, {"m": ["N", 6, *size]}, weights)


def test_ranges_are_what_numpy_sees() -> None:
    network = residual()
    samples = samples_of(network, 6)
    ranges = calibrate(network, samples, "minmax", batch_size=4)
    with reference.build_observer(network, float_tensors(network)) as engine:
        runs = [engine.run(s.feeds) | s.feeds for s in samples]
    # c1 and s are read by a Relu alone, which every runtime computes with what is in front of it
    assert set(ranges.tensors) == {"x", "r1", "c2", "r2", "p", "f", "y"}
    for name, found in ranges.tensors.items():
        values = np.concatenate([run[name].reshape(-1) for run in runs])
        assert found.range == found.seen == Range(float(values.min()), float(values.max()))
        assert sum(found.picture.counts) == values.size
    assert ranges.tensors["r1"].range.low == 0.0


def test_the_picture_of_a_large_tensor_is_a_sample_and_the_range_is_not() -> None:
    network = model(
        [node("Relu", ["x"], ["y"])], {"x": ["N", 1, 120, 90]}, {"y": ["N", 1, 120, 90]}
    )
    x = normal(1, 1, 120, 90, seed=8)
    x[0, 0, 0, 1] = 50.0  # between the values the picture takes
    statistics = statistics_of(network, [Sample("a", {"x": x})], "entropy").tensors["x"]
    found = statistics.range("x")
    assert found.seen.high == 50.0
    # a third of the values, each standing for three or more, and the two extremes
    assert 0.9 * x.size < sum(found.picture.counts) <= x.size + 4
    assert statistics.histogram.positive[-1] <= 1


def test_seen_keeps_what_the_calibrator_clips() -> None:
    network = model([node("Relu", ["x"], ["y"])], {"x": ["N", 5000]}, {"y": ["N", 5000]})
    x = normal(1, 5000, seed=8)
    x[0, 7] = 900.0
    found = calibrate(network, [Sample("a", {"x": x})], "entropy").tensors["x"]
    assert found.seen.high == 900.0
    assert found.range.high < 50.0


def test_advance_hears_of_every_sample() -> None:
    heard: list[int] = []
    calibrate(residual(), samples_of(residual(), 11), "minmax", batch_size=4, advance=heard.append)
    assert sum(heard) == 11
    assert max(heard) <= max(4, reference.cores())


class TestFixedBatch:
    def test_equals_the_free_batch(self) -> None:
        # every value of the residual net is computed per sample; the kernels may differ in the
        # last bits, so the ranges are near, not equal
        free, fixed = residual(), residual(4)
        samples = samples_of(free, 10)
        a, b = (calibrate(m, samples, "minmax").tensors for m in (free, fixed))
        assert set(a) == set(b)
        for name in a:
            assert b[name].range.high == pytest.approx(a[name].range.high, rel=1e-5, abs=1e-6)
            assert b[name].range.low == pytest.approx(a[name].range.low, rel=1e-5, abs=1e-6)

    def test_padding_rows_do_not_count(self) -> None:
        free, fixed = residual(), residual(4)
        samples = samples_of(free, 10)  # 4 + 4 + 2, two rows of padding
        a, b = (calibrate(m, samples, "minmax").tensors for m in (free, fixed))
        counted = {name: sum(t.picture.counts) for name, t in b.items()}
        assert counted == {name: sum(t.picture.counts) for name, t in a.items()}

    def test_the_order_in_the_batch_changes_nothing(self, tmp_path: Path) -> None:
        fixed = residual(4)
        samples = samples_of(fixed, 10)
        assert saved(fixed, samples, tmp_path) == saved(fixed, samples[::-1], tmp_path)


class TestInputs:
    def test_several(self) -> None:
        network = model(
            [node("Add", ["a", "b"], ["y"])],
            {"a": ["N", 3], "b": ["N", 3]},
            {"y": ["N", 3]},
        )
        feeds = {"a": np.array([[1, 2, 3]], "f4"), "b": np.array([[-9, 0, 4]], "f4")}
        tensors = calibrate(network, [Sample("s", feeds)], "minmax").tensors
        assert tensors["a"].range == Range(1.0, 3.0)
        assert tensors["b"].range == Range(-9.0, 4.0)
        assert tensors["y"].range == Range(-8.0, 7.0)

    def test_integers_are_fed_and_not_calibrated(self) -> None:
        network = model(
            [node("Gather", ["table", "ids"], ["e"]), node("Relu", ["e"], ["y"])],
            {"ids": (TensorProto.INT64, ["N", 2])},
            {"y": ["N", 2, 3]},
            {"table": normal(5, 3)},
        )
        samples = samples_of(network, 4)
        assert samples[0].feeds["ids"].dtype == np.int64
        assert set(calibrate(network, samples, "minmax").tensors) == {"e", "y"}

    def test_float16_and_float64_tensors_have_ranges(self) -> None:
        network = model(
            [
                node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
                node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
            ],
            {"x": ["N", 2]},
            {"h": (TensorProto.FLOAT16, ["N", 2]), "d": (TensorProto.DOUBLE, ["N", 2])},
        )
        feeds = {"x": np.array([[0.1, -3.0]], "f4")}
        tensors = calibrate(network, [Sample("s", feeds)], "entropy").tensors
        assert tensors["h"].range == Range(-3.0, float(np.float16(0.1)))
        assert tensors["d"].range == Range(-3.0, float(np.float32(0.1)))

    def test_one_element_and_dead_tensors(self) -> None:
        network = model(
            [node("Mul", ["x", "zero"], ["dead"]), node("ReduceMax", ["x"], ["top"], keepdims=0)],
            {"x": ["N", 3]},
            {"dead": ["N", 3], "top": []},
            {"zero": np.zeros(1, "f4")},
        )
        for calibrator in registry.names("calibrator"):
            found = calibrate(network, samples_of(network, 5), calibrator).tensors
            assert found["dead"].range == found["dead"].seen == Range(0.0, 0.0)
            assert found["top"].range.low <= found["top"].range.high
            assert sum(found["top"].picture.counts) == 5

    def test_lengths_may_differ_from_sample_to_sample(self, tmp_path: Path) -> None:
        network = model(
            [node("Gather", ["table", "ids"], ["e"]), node("MatMul", ["e", "w"], ["y"])],
            {"ids": (TensorProto.INT64, ["N", "S"]), "scale": ["N"]},
            {"y": ["N", "S", 70]},
            {"table": normal(9, 60, seed=4), "w": normal(60, 70, seed=5)},
        )
        random = np.random.default_rng(6)
        samples = [
            Sample(
                f"text of {n}",
                {"ids": random.integers(0, 9, (1, n)), "scale": np.array([n / 7], "f4")},
            )
            for n in (3, 150, 1, 77, 20)
        ]
        found = calibrate(network, samples, "mse").tensors
        assert set(found) == {"e", "y", "scale"}
        table, w = weights_of(network)["table"], weights_of(network)["w"]
        every = np.concatenate([(table[s.feeds["ids"][0]] @ w).reshape(-1) for s in samples])
        assert found["y"].seen.high == pytest.approx(float(every.max()), rel=1e-6)
        assert found["y"].seen.low == pytest.approx(float(every.min()), rel=1e-6)
        counted = sum(found["y"].picture.counts)
        assert counted == pytest.approx(every.size, rel=0.01)
        a, b = (saved(network, s, tmp_path, calibrator="mse") for s in (samples, samples[::-1]))
        assert a == b

    def test_weights_and_constants_are_left_out(self) -> None:
        constant = node("Constant", [], ["k"], value_float=2.0)
        network = model(
            [constant, node("Mul", ["x", "k"], ["m"]), node("Add", ["m", "w"], ["y"])],
            {"x": ["N", 2]},
            {"y": ["N", 2]},
            {"w": normal(2)},
        )
        assert float_tensors(network) == ["x", "m", "y"]


class TestCalibratedTensors:
    def test_what_moves_values_shares_the_range_of_its_source(self) -> None:
        network = model(
            [
                node("Sigmoid", ["x"], ["g"]),
                node("Transpose", ["g"], ["t"], perm=[0, 2, 1]),
                node("Flatten", ["t"], ["f"]),
                node("Add", ["f", "b"], ["y"]),
            ],
            {"x": ["N", 4, 5]},
            {"y": ["N", 20]},
            {"b": normal(20)},
        )
        assert calibrated_tensors(network) == {"x": "x", "g": "g", "t": "g", "f": "g", "y": "y"}
        found = calibrate(network, samples_of(network, 3), "entropy").tensors
        assert found["f"] == found["t"] == found["g"]

    def test_before_a_relu_only_what_nobody_else_reads_is_left_out(self) -> None:
        nodes = [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["r"])]
        weights = {"w": normal(4, 3, 1, 1)}
        shape = ["N", 4, 5, 7]
        x = {"x": ["N", 3, 5, 7]}
        alone = model(nodes, x, {"r": shape}, weights)
        assert set(calibrated_tensors(alone)) == {"x", "r"}
        given = model(nodes, x, {"r": shape, "c": shape}, weights)
        assert set(calibrated_tensors(given)) == {"x", "c", "r"}
        twice = model([*nodes, node("Add", ["c", "r"], ["y"])], x, {"y": shape}, weights)
        assert set(calibrated_tensors(twice)) == {"x", "c", "r", "y"}

    def test_before_an_activation_of_its_own_it_is_observed(self) -> None:
        network = model(
            [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["y"])],
            {"x": ["N", 3, 5, 7]},
            {"y": ["N", 4, 5, 7]},
            {"w": normal(4, 3, 1, 1)},
        )
        assert set(calibrated_tensors(network)) == {"x", "c", "y"}


class TestRefused:
    def refuses(self, reason: str, call: Callable[[], object]) -> None:
        with pytest.raises(CalibrationError, match=re.escape(reason)) as caught:
            call()
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("network", [residual(), residual(4)], ids=["free", "fixed batch"])
    def test_nan_inside_names_tensor_and_sample(self, network: Model) -> None:
        log = model(
            [*network.proto.graph.node[:2], node("Log", ["r1"], ["lost"])],
            {"x": [network.inputs[0].shape[0] or "N", 3, 6, 8]},
            {"lost": [network.inputs[0].shape[0] or "N", 4, 6, 8]},
            {"w1": normal(4, 3, 3, 3), "b1": np.full(4, 100, "f4")},
        )
        samples = samples_of(log, 6)
        calibrate(log, samples, "minmax")  # far from zero: all finite
        bad = {"x": -1e6 * np.ones((1, 3, 6, 8), "f4")}  # relu gives 0, and log(0) is -Inf
        samples.insert(4, Sample("the bad one", bad))
        self.refuses(
            "tensor 'lost' holds NaN or Inf on sample the bad one; leave the sample out",
            lambda: calibrate(log, samples, "minmax", batch_size=3),
        )

    def test_nan_in_an_input(self) -> None:
        samples = samples_of(conv(), 3)
        samples[1].feeds["x"][0, 1, 2, 3] = np.nan
        self.refuses(
            "tensor 'x' holds NaN or Inf on sample sample 1",
            lambda: calibrate(conv(), samples, "entropy"),
        )

    def test_no_samples(self) -> None:
        self.refuses("no samples to calibrate on", lambda: calibrate(conv(), [], "minmax"))

    def test_no_float_tensor(self) -> None:
        network = model(
            [node("Add", ["x", "x"], ["y"])],
            {"x": (TensorProto.INT64, ["N", 2])},
            {"y": (TensorProto.INT64, ["N", 2])},
        )
        self.refuses(
            "tiny: no float tensor to calibrate; use --fp32",
            lambda: calibrate(network, samples_of(network, 1), "minmax"),
        )

    def test_a_tensor_without_elements(self) -> None:
        network = model([node("Relu", ["x"], ["y"])], {"x": ["N", "S"]}, {"y": ["N", "S"]})
        samples = [Sample("s", {"x": np.zeros((1, 0), "f4")})]
        self.refuses(
            "tensor 'x' had no elements in any sample; check --shape",
            lambda: calibrate(network, samples, "minmax"),
        )

    def test_unknown_calibrator(self) -> None:
        with pytest.raises(RecipeError, match=re.escape("'minmaxx' (did you mean 'minmax'?)")):
            calibrate(conv(), samples_of(conv(), 1), "minmaxx")
        with pytest.raises(RecipeError, match=re.escape("'minmaxx' (did you mean 'minmax'?)")):
            source_of(conv(), samples_of(conv(), 1), "minmaxx")


def test_source_is_model_samples_and_settings() -> None:
    network = conv()
    samples = samples_of(network, 3)
    source = calibrate(network, samples, "minmax").source
    assert source == source_of(network, samples[::-1], "minmax")
    assert source.model_sha256 == network.sha256
    assert source.sample_sha256 == tuple(sorted(s.sha256() for s in samples))
    assert source.settings == settings_of("minmax") == {"calibrator": "minmax"}


def test_the_model_is_left_alone() -> None:
    network = residual()
    before = network.proto.SerializeToString(deterministic=True)
    calibrate(network, samples_of(network, 2), "minmax")
    assert network.proto.SerializeToString(deterministic=True) == before
