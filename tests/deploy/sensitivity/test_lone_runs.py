"""What samples and outputs may be like where layers are run one at a time in INT8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import run
from noisy import CPU, chain, heads, noises
from onnx import TensorProto
from tiny_models import model, node, normal, ranges_of, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.batches import feeds_of
from deploy.calibrate import calibrate
from deploy.correct import correct
from deploy.errors import CalibrationError
from deploy.placement import Exclude
from deploy.quantize import quantize
from deploy.sensitivity import lone_runs
from deploy.sensitivity.alone import sensitivity


class TestOutputs:
    def test_count_the_same_whatever_their_size(self) -> None:
        small, large = (noises(heads(scale)) for scale in (1.0, 1000.0))
        for name in ("trunk", "left", "right"):
            assert small[name].noise_db == pytest.approx(large[name].noise_db, abs=0.01)

    def test_a_layer_of_one_head_costs_the_mean_over_both(self) -> None:
        both = heads(1.0)
        ranges, samples = ranges_of(both), samples_of(both, 12)
        found = noises(both, ranges, samples)["right"].noise_db
        alone = quantize(both, ranges, CPU, exclude=Exclude(layers={"trunk": "", "left": ""}))
        alone = correct(alone, both, samples, ["bias_correction"])
        truth = np.stack([run(both, s.feeds)["y2"] for s in samples])
        error = np.stack([run(alone, s.feeds)["y2"] for s in samples]) - truth
        power = np.sum(error.var(axis=0, ddof=1)) * len(samples) / np.sum(truth**2)
        assert found == pytest.approx(10 * np.log10(power / 2), abs=0.02)

    def test_of_integers_alone_are_judged_by_the_scores_behind_them(self) -> None:
        nodes = [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("ArgMax", ["c"], ["y"], name="classes", axis=1),
        ]
        takes, weights = {"x": ["N", 3, 5, 7]}, {"w": normal(4, 3, 1, 1)}
        gives = {"y": (TensorProto.INT64, ["N", 1, 5, 7])}
        classes = noises(model(nodes, takes, gives, weights))
        scores = noises(model(nodes[:1], takes, {"c": ["N", 4, 5, 7]}, weights))
        assert classes["conv"].noise_db == pytest.approx(scores["conv"].noise_db)

    def test_that_are_not_finite_are_named_with_the_sample(self) -> None:
        nodes = [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("Sqrt", ["c"], ["y"]),
        ]
        exact = model(
            nodes, {"x": ["N", 3, 5, 7]}, {"y": ["N", 4, 5, 7]}, {"w": normal(4, 3, 1, 1)}
        )
        ranges = ranges_of_conv_input(exact)
        with pytest.raises(CalibrationError, match="'y' holds NaN or Inf on sample sample 0"):
            noises(exact, ranges)

    def test_that_only_break_in_int8_are_the_worst_there_is(self) -> None:
        nodes = [
            node("Conv", ["x", "w"], ["c"], name="conv"),
            node("Log", ["c"], ["y"]),
        ]
        weights = {"w": np.full((1, 1, 1, 1), 0.5, np.float32)}
        exact = model(nodes, {"x": ["N", 1, 2, 2]}, {"y": ["N", 1, 2, 2]}, weights)
        # 1 is nearer to 0 than to the first step, and what correction adds is below 0
        values = np.array([[[[1.0, 900.0], [402.0, 2.5]]]], np.float32)
        samples = [Sample("only", {"x": values})]
        found = noises(exact, calibrate(exact, samples, "minmax"), samples)
        assert found["conv"].noise_db == found["conv"].accumulated_db == 200.0


def ranges_of_conv_input(exact: Model) -> Ranges:
    """Ranges for a model whose output can't be observed: those of its input alone."""
    good = model(
        [node("Conv", ["x", "w"], ["c"], name="conv")],
        {"x": ["N", 3, 5, 7]},
        {"c": ["N", 4, 5, 7]},
        {"w": normal(4, 3, 1, 1)},
    )
    found = ranges_of(good)
    return Ranges(found.tensors, replace(found.source, model_sha256=exact.sha256))


class TestInputs:
    def test_of_a_fixed_batch_are_run_together(self) -> None:
        free, fixed = chain(), chain(batch=4)
        samples = samples_of(free, 12)
        ranges = calibrate(free, samples, "minmax")
        other = Ranges(ranges.tensors, replace(ranges.source, model_sha256=fixed.sha256))
        one, four = noises(free, ranges, samples), noises(fixed, other, samples)
        assert set(one) == set(four)
        # runs of four have means of their own, so figures agree roughly
        assert all(four[n].noise_db == pytest.approx(one[n].noise_db, abs=2) for n in one)
        assert {x.samples for x in four.values()} == {12}

    def test_of_different_lengths_are_measured_whole(self) -> None:
        nodes = [
            node("MatMul", ["x", "w1"], ["h"], name="up"),
            node("Relu", ["h"], ["r"]),
            node("MatMul", ["r", "w2"], ["y"], name="down"),
        ]
        weights = {"w1": normal(6, 10, seed=1), "w2": normal(10, 4, seed=2)}
        exact = model(nodes, {"x": ["N", "L", 6]}, {"y": ["N", "L", 4]}, weights)
        samples = [Sample(str(n), {"x": normal(1, n + 2, 6, seed=n)}) for n in range(9)]
        ranges = calibrate(exact, samples, "minmax")
        found = noises(exact, ranges, samples)
        assert set(found) == {"up", "down"}
        assert all(-60 < x.noise_db < -30 for x in found.values())

    def test_too_large_for_memory_are_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lone_runs, "_MOST_BYTES", 10_000)
        found = noises(chain(), samples=samples_of(chain(), 20))
        assert {x.samples for x in found.values()} == {8}

    def test_that_fit_are_spread_over_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[str] = []

        def noted(group: list[Sample], size: int) -> dict[str, np.ndarray]:
            read.extend(sample.name for sample in group)
            return feeds_of(group, size)

        monkeypatch.setattr(lone_runs, "_MOST_BYTES", 10_000)
        monkeypatch.setattr(lone_runs, "feeds_of", noted)
        exact, samples = chain(), samples_of(chain(), 24)
        noises(exact, samples=samples)
        # the first one is also run to see how many fit
        assert read[1:] == [sample.name for sample in samples[::3]]

    def test_of_subgraphs_reach_through_a_cut(self) -> None:
        body = [node("Add", ["c", "w0"], ["then"]), node("Sub", ["c", "w0"], ["else"])]
        branches = {
            f"{n.output[0]}_branch": model(
                [n], {"c": ["N", 4, 5, 7], "w0": [1, 4, 1, 1]}, {n.output[0]: ["N", 4, 5, 7]}
            ).proto.graph
            for n in body
        }
        for graph in branches.values():
            del graph.input[:]
        nodes = [
            node("Conv", ["x", "w"], ["c"], name="first"),
            node("Conv", ["c", "w2"], ["d"], name="second"),
            node("If", ["flag"], ["i"], name="if", **branches),
            node("Add", ["d", "i"], ["e"]),
            node("Conv", ["e", "w3"], ["y"], name="third"),
        ]
        weights = {
            "w": normal(4, 3, 1, 1, seed=1),
            "w2": normal(4, 4, 1, 1, seed=2),
            "w3": normal(2, 4, 1, 1, seed=3),
            "w0": normal(1, 4, 1, 1, seed=4),
        }
        inputs = {"x": ["N", 3, 5, 7], "flag": (TensorProto.BOOL, [])}
        exact = model(nodes, inputs, {"y": ["N", 2, 5, 7]}, weights)
        samples = [
            Sample(str(n), {"x": normal(1, 3, 5, 7, seed=n), "flag": np.array(n % 2 == 0)})
            for n in range(8)
        ]
        found = noises(exact, calibrate(exact, samples, "minmax"), samples)
        assert {"first", "second", "third"} <= set(found)

    def test_none_is_refused(self) -> None:
        exact = chain()
        with pytest.raises(CalibrationError, match="no samples to measure layers on"):
            sensitivity(exact, ranges_of(exact), CPU, [])
