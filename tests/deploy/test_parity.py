"""Parity's figures by hand on fake engines, its gates, its evidence; a wrong answer is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from tiny_models import FakeEngine, model, node, normal, residual, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.artifacts.parity import Gate, ParityReport
from deploy.backends import ov, reference
from deploy.data import SampleSet
from deploy.errors import BundleError, CalibrationError, RecipeError
from deploy.judge import limits_for
from deploy.parity import Limits, parity
from deploy.recipe import OutputGate, Recipe
from deploy.target import EngineSettings, Target, Tolerance
from deploy.tasks.classify import Classify
from deploy.tasks.embed import Embed

CLASSES = 7
FREE = Limits(Tolerance())
SCORED = Limits(Tolerance(), "scores")


def samples(count: int, labels: Sequence[int] | None = None) -> list[Sample]:
    """Sample i feeds [i, 1, -1]."""
    return [
        Sample(f"s{i}", {"x": np.array([[i, 1, -1]], "f4")}, labels[i] if labels else None)
        for i in range(count)
    ]


def classifier(answers: Sequence[int], batch: int | None = None) -> FakeEngine:
    """Scores whose best class for sample i is answers[i], the others descending from class 0."""

    def compute(x: np.ndarray) -> Mapping[str, np.ndarray]:
        scores = np.tile(-np.arange(CLASSES, dtype="f4"), (len(x), 1))
        for row, first in enumerate(x[:, 0]):
            scores[row, answers[int(first)]] = 10.0
        return {"scores": scores}

    return FakeEngine(compute, {"scores": (batch, CLASSES)}, batch)


def scaled(factor: float = 1.0, batch: int | None = None, **offsets: float) -> FakeEngine:
    """y = factor * x, except for sample i, whose every value is off by offsets["s<i>"]."""

    def compute(x: np.ndarray) -> Mapping[str, np.ndarray]:
        y = x * np.float32(factor)
        for row, first in enumerate(x[:, 0]):
            y[row] += np.float32(offsets.get(f"s{int(first)}", 0.0))
        return {"y": y}

    return FakeEngine(compute, {"y": (batch, 3)}, batch)


class TestFigures:
    def test_by_hand(self) -> None:
        report = parity(scaled(), scaled(s1=0.5), samples(2), FREE, about="two of them")
        (out,) = report.outputs
        # signal 0+1+1 + 1+1+1, noise 3 * .25
        assert out.sqnr_db == pytest.approx(10 * math.log10(5 / 0.75))
        assert (out.max_abs, out.reference_max) == (0.5, 1.0)
        assert (out.top1_agreement_pct, out.top5_agreement_pct, report.task) == (None, None, None)
        assert (report.samples, report.about, report.passed) == (2, "two of them", True)

    def test_identical(self) -> None:
        (out,) = parity(scaled(), scaled(), samples(3), FREE).outputs
        assert (out.sqnr_db, out.cosine, out.max_abs) == (200.0, 1.0, 0.0)

    def test_agreement_and_top5(self) -> None:
        # engine's best five: 6 then 0, 1, 2, 3 for the second; 3 then 0, 1, 2, 4 for the third
        answers, got = [2, 3, 5, 1], [2, 6, 3, 1]
        (out,) = parity(classifier(answers), classifier(got), samples(4), SCORED).outputs
        assert out.top1_agreement_pct == 50.0
        assert out.top5_agreement_pct == 75.0

    def test_drop_and_its_standard_error(self) -> None:
        labels = [0, 1, 2, 3, 4, 5, 6, 0]
        answers = [0, 1, 2, 3, 4, 5, 0, 1]  # 6 of 8 right
        got = [0, 1, 2, 4, 5, 6, 6, 1]  # loses three of them, wins one
        task = parity(classifier(answers), classifier(got), samples(8, labels), SCORED).task
        assert task is not None
        assert (task.samples, task.reference_pct, task.engine_pct) == (8, 75.0, 50.0)
        assert task.drop == 25.0
        differences = np.array([0, 0, 0, 1, 1, 1, -1, 0])
        assert task.drop_error == pytest.approx(100 * differences.std() / math.sqrt(8))

    def test_no_difference_has_no_error(self) -> None:
        task = parity(classifier([0, 1]), classifier([0, 1]), samples(2, [0, 0]), SCORED).task
        assert task is not None and (task.drop, task.drop_error) == (0.0, 0.0)

    def test_only_labelled_samples_count_for_the_task(self) -> None:
        rows = [*samples(2, [0, 1]), Sample("s2", {"x": np.array([[2, 1, -1]], "f4")})]
        report = parity(classifier([0, 1, 2]), classifier([0, 0, 2]), rows, SCORED)
        assert report.task is not None and report.task.samples == 2
        assert report.samples == 3

    @pytest.mark.parametrize("left, right", [(None, 4), (4, None), (4, 3), (1, 4)])
    def test_batches_change_nothing(self, left: int | None, right: int | None) -> None:
        # 10 samples fill neither batch: padding must not count
        expected = parity(scaled(), scaled(1.1, s9=2.0), samples(10), FREE)
        heard: list[int] = []
        got = parity(
            scaled(batch=left),
            scaled(1.1, right, s9=2.0),
            samples(10),
            FREE,
            advance=heard.append,
        )
        assert got == expected
        assert sum(heard) == 10

    def test_fewer_samples_than_the_batch(self) -> None:
        report = parity(scaled(), scaled(batch=8, s1=1.0), samples(2), FREE)
        assert report.samples == 2
        assert report.worst[0].name == "s1" and len(report.worst) == 2

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_an_engine_that_computes_nan(self, bad: float, tmp_path: Path) -> None:
        limits = Limits(Tolerance(min_sqnr_db=8))
        report = parity(scaled(), scaled(s1=bad), samples(3), limits)
        assert not report.passed
        assert report.outputs[0].sqnr_db == -200.0
        report.save(tmp_path / "parity.json")  # JSON has no infinity
        assert ParityReport.load(tmp_path / "parity.json") == report

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    def test_a_reference_that_computes_nan_proves_nothing(self, bad: float, tmp_path: Path) -> None:
        limits = Limits(Tolerance(min_sqnr_db=8, min_cosine=0.5))
        report = parity(scaled(s1=bad), scaled(), samples(3), limits)
        assert [gate.passed for gate in report.gates] == [False, False]
        report.save(tmp_path / "parity.json")

    def test_another_shape(self) -> None:
        wrong = FakeEngine(lambda x: {"y": x[:, :2]}, {"y": (None, 2)})
        assert parity(scaled(), wrong, samples(2), FREE).outputs[0].sqnr_db == -200.0

    def test_no_samples(self) -> None:
        with pytest.raises(CalibrationError, match="no samples to judge on; check --eval-data"):
            parity(scaled(), scaled(), [], FREE)

    def test_a_label_outside_the_classes(self) -> None:
        reason = "sample s1 has label 7, but output 'scores' has 7 classes (0 to 6); check the lab"
        with pytest.raises(CalibrationError, match=re.escape(reason)):
            parity(classifier([0, 1]), classifier([0, 1]), samples(2, [6, 7]), SCORED)


class TestListed:
    def test_the_worst_eight_worst_first(self) -> None:
        offsets = {f"s{i}": abs(i - 7.5) for i in range(12)}
        report = parity(scaled(100), scaled(100, **offsets), samples(12), FREE)
        assert len(report.worst) == 8
        quality = [row.sqnr_db for row in report.worst]
        assert quality == sorted(quality)
        assert report.worst[0].name == "s0"  # the largest error on the smallest signal
        each = {
            s.name: parity(scaled(100), scaled(100, **offsets), [s], FREE).outputs[0].sqnr_db
            for s in samples(12)
        }
        ranked = sorted(each, key=lambda name: each[name])
        assert [row.name for row in report.worst] == ranked[:8]

    def test_equals_keep_their_order(self) -> None:
        names = [row.name for row in parity(scaled(), scaled(), samples(5), FREE).worst]
        assert names == ["s0", "s1", "s2", "s3", "s4"]

    def test_disagreements(self) -> None:
        report = parity(classifier([0, 1, 2]), classifier([0, 5, 6]), samples(3, [0, 1, 3]), SCORED)
        rows = [(d.name, d.reference_class, d.engine_class, d.label) for d in report.disagreements]
        assert rows == [("s1", 1, 5, 1), ("s2", 2, 6, 3)]

    def test_disagreements_are_listed_up_to_a_number(self) -> None:
        count = 60
        report = parity(classifier([0] * count), classifier([1] * count), samples(count), SCORED)
        assert len(report.disagreements) == 50
        assert report.outputs[0].top1_agreement_pct == 0.0


class TestGates:
    ANSWERS, GOT, LABELS = [0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 3]

    def gates(self, given: bool = False, **tolerance: float) -> tuple[Gate, ...]:
        limits = Limits(
            Tolerance(**tolerance),
            "scores",
            "target cpu",
            frozenset(tolerance) if given else frozenset(),
        )
        return parity(
            classifier(self.ANSWERS), classifier(self.GOT), samples(4, self.LABELS), limits
        ).gates

    @pytest.mark.parametrize(
        "key, passes, fails, name",
        [
            ("min_sqnr_db", 3.0, 30.0, "SQNR of 'scores' (dB)"),
            ("min_cosine", 0.5, 0.999, "cosine of 'scores'"),
            ("min_agreement_pct", 75.0, 75.1, "top-1 agreement of 'scores' (%)"),
            ("max_drop_pct", 25.0, 24.9, "accuracy drop (points)"),
        ],
    )
    @pytest.mark.parametrize("given, origin", [(False, "target cpu"), (True, "recipe")])
    def test_each_passes_and_fails(
        self, key: str, passes: float, fails: float, name: str, given: bool, origin: str
    ) -> None:
        for limit, passed in ((passes, True), (fails, False)):
            (gate,) = self.gates(given, **{key: limit})
            assert (gate.name, gate.limit, gate.passed, gate.origin) == (
                name,
                limit,
                passed,
                origin,
            )

    def test_without_labels_the_drop_is_disagreement(self) -> None:
        for limit, passed in ((25.0, True), (24.9, False)):
            limits = Limits(Tolerance(max_drop_pct=limit), "scores")
            report = parity(classifier(self.ANSWERS), classifier(self.GOT), samples(4), limits)
            (gate,) = report.gates
            assert (gate.name, gate.observed, gate.passed) == (
                "top-1 disagreement (points)",
                25.0,
                passed,
            )

    def test_a_gain_is_no_drop(self) -> None:
        limits = Limits(Tolerance(max_drop_pct=0), "scores")
        rows = samples(4, [0, 1, 2, 4])
        report = parity(classifier(self.ANSWERS), classifier(self.GOT), rows, limits)
        assert report.gates[0].observed == -25.0 and report.passed

    def test_every_output_has_its_gate(self) -> None:
        def two(gap: float) -> FakeEngine:
            return FakeEngine(
                lambda x: {"a": x, "b": x + np.float32(gap)}, {"a": (None, 3), "b": (None, 3)}
            )

        report = parity(two(0), two(3), samples(3), Limits(Tolerance(min_sqnr_db=20)))
        assert [(g.name, g.passed) for g in report.gates] == [
            ("SQNR of 'a' (dB)", True),
            ("SQNR of 'b' (dB)", False),
        ]
        assert not report.passed

    def test_a_negligible_error_counts_as_equal(self) -> None:
        rows = [Sample("faint", {"x": np.full((1, 3), 1e-7, "f4")})]
        for limit, passed in ((1e-6, True), (0.0, False)):
            limits = Limits(Tolerance(min_sqnr_db=60, negligible_abs=limit))
            assert parity(scaled(), scaled(2.0), rows, limits).passed is passed

    def test_verdict_names_what_was_missed_or_the_weakest_figure(self) -> None:
        limits = Limits(Tolerance(min_sqnr_db=30, min_cosine=0.1), origin="target cpu")
        missed = parity(scaled(), scaled(1.1), samples(3), limits)
        assert missed.verdict() == "SQNR of 'y' (dB) is 20.00, needs 30 (target cpu)"
        assert parity(scaled(), scaled(1.1), samples(3), FREE).verdict() == "20.0 dB on 3 samples"


class TestEvidence:
    def test_holds_the_first_and_the_worst(self, tmp_path: Path) -> None:
        engine = scaled(1.0, **{f"s{i}": 0.1 * i for i in range(1, 11)})
        report = parity(scaled(), engine, samples(11), FREE, evidence=tmp_path)
        first = {n: np.load(tmp_path / f"{n}.npz") for n in ("samples", "reference", "engine")}
        assert first["samples"]["x"].tolist() == [[i, 1, -1] for i in range(8)]
        assert first["reference"]["y"].tolist() == first["samples"]["x"].tolist()
        gap = first["engine"]["y"] - first["reference"]["y"]
        assert gap[:, 1] == pytest.approx([0.1 * i for i in range(8)], rel=1e-5)
        worst = np.load(tmp_path / "worst" / "samples.npz")["x"]
        assert [f"s{int(i)}" for i in worst[:, 0]] == [row.name for row in report.worst]
        assert sorted(p.name for p in (tmp_path / "worst").iterdir()) == [
            "engine.npz",
            "reference.npz",
            "samples.npz",
        ]

    def test_rows_of_a_fixed_batch_are_the_samples(self, tmp_path: Path) -> None:
        parity(scaled(), scaled(batch=4), samples(3), FREE, evidence=tmp_path)
        assert np.load(tmp_path / "engine.npz")["y"][:, 0].tolist() == [0, 1, 2]

    def test_large_samples_are_fewer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("deploy.parity._KEPT_BYTES", 2 * 3 * 4 * 2)
        parity(scaled(), scaled(), samples(9), FREE, evidence=tmp_path)
        assert np.load(tmp_path / "samples.npz")["x"].shape == (2, 3)


class TestReportFile:
    def test_round_trip(self, tmp_path: Path) -> None:
        limits = Limits(Tolerance(min_sqnr_db=30, max_drop_pct=1), "scores")
        report = parity(classifier([0, 1]), classifier([0, 2]), samples(2, [0, 1]), limits)
        report.save(tmp_path / "p.json")
        assert ParityReport.load(tmp_path / "p.json") == report
        assert json.loads((tmp_path / "p.json").read_text())["passed"] is False

    def test_bundles_from_before_there_were_tasks(self, tmp_path: Path) -> None:
        limits = Limits(Tolerance(min_sqnr_db=30), "scores")
        report = parity(classifier([0, 1]), classifier([0, 2]), samples(2, [0, 1]), limits)
        row = report.to_json()
        del row["predictions"]
        old = ("samples", "reference_pct", "engine_pct", "drop", "drop_error")
        row["task"] = {key: row["task"][key] for key in old}
        for each in (*row["worst"], *row["disagreements"]):
            for key in ("reference_said", "engine_said", "truth_said"):
                del each[key]
        (tmp_path / "p.json").write_text(json.dumps(row))
        assert ParityReport.load(tmp_path / "p.json") == replace(report, predictions=None)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"samples": 1, "about": "", "outputs": 5}'])
    def test_damaged(self, text: str, tmp_path: Path) -> None:
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(BundleError, match=r"not a parity report .*; build again"):
            ParityReport.load(tmp_path / "p.json")

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(BundleError, match="not a parity report"):
            ParityReport.load(tmp_path / "none.json")


class TestJudge:
    def limits(
        self, recipe: Recipe, rows: list[Sample] | None = None, network: Model | None = None
    ) -> Limits:
        network = network or residual()

        class Rows:
            splits = (None,)

            def read(self, indices: Sequence[int]) -> list[Sample]:
                return (rows or samples_of(network, 1))[: len(indices)]

        chosen = SampleSet("", Rows(), (0,), "")  # type: ignore[arg-type]
        return limits_for(Target.load("cpu"), "int8", recipe, network, chosen)

    def test_the_targets_unless_the_recipe_says_otherwise(self) -> None:
        mine = Target.load("cpu").tolerances["int8"]
        assert self.limits(Recipe()) == Limits(mine, "y", "target cpu", frozenset())
        found = self.limits(Recipe(min_sqnr_db=33.0, max_drop=0.5))
        assert (found.tolerance.min_sqnr_db, found.tolerance.max_drop_pct) == (33.0, 0.5)
        assert found.origin_of("min_sqnr_db") == found.origin_of("max_drop_pct") == "recipe"
        assert found.origin_of("min_cosine") == "target cpu"

    def test_max_drop_without_scores(self) -> None:
        with pytest.raises(
            RecipeError, match="--max-drop needs class scores, and no output is sure"
        ):
            self.limits(Recipe(max_drop=1.0, task="none"))

    def test_max_drop_of_a_class_that_is_given_out_itself(self) -> None:
        network = model(
            [node("Gemm", ["x", "w"], ["s"]), node("ArgMax", ["s"], ["y"], axis=1, keepdims=0)],
            {"x": ["N", 4]},
            {"y": (TensorProto.INT64, ["N"])},
            {"w": normal(4, 5)},
        )
        found = self.limits(Recipe(max_drop=1.0), samples_of(network, 1), network)
        assert found.task == Classify("y")

    def test_another_task_is_judged_by_its_own_outputs(self) -> None:
        found = self.limits(Recipe(task="embed", max_drop=1.0))
        assert (found.scores, found.task) == (None, Embed("y"))

    @pytest.mark.parametrize(
        "recipe, reason",
        [
            (Recipe(task_option={"iou": 1}), "--task-option iou with --task auto: it has no opt"),
            (Recipe(task="embed", scores="y"), "--scores y with --task embed: class scores are"),
            (Recipe(task="detect"), "--task detect needs to know the form of the outputs"),
        ],
    )
    def test_options_that_do_not_go_together(self, recipe: Recipe, reason: str) -> None:
        with pytest.raises(RecipeError, match=f"^{reason}"):
            self.limits(recipe)


class TestTolerancesOfTheTarget:
    def test_float32_accepts_openvino_and_refuses_a_wrong_answer(self) -> None:
        network = residual()
        limits = Limits(Target.load("cpu").tolerances["fp32"])
        rows = samples_of(network, 6)
        settings = EngineSettings(inference_precision={"fp32": "f32"})
        with reference.build(network) as exact, ov.build(network, settings, "fp32") as engine:
            assert parity(exact, engine, rows, limits).passed

            class Wrong(FakeEngine):
                def __init__(self, error: float) -> None:
                    super().__init__(lambda x: {}, {})
                    self.inputs, self.outputs, self.error = engine.inputs, engine.outputs, error

                def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
                    return {"y": engine.run(feeds)["y"] * np.float32(1 + self.error)}

            assert parity(exact, Wrong(1e-5), rows, limits).passed
            assert not parity(exact, Wrong(2e-3), rows, limits).passed


@pytest.mark.parametrize(
    ("observed", "limit", "shown"),
    [(15.204, 30, "15.20"), (0.99987, 0.9999, "0.999870"), (0.9998, 0.9999, "0.9998")],
)
def test_a_missed_figure_is_on_its_side_of_the_limit(
    observed: float, limit: float, shown: str
) -> None:
    assert Gate("cosine", limit, observed, False, "target").shown() == shown


class TestThresholdsOfAnOutput:
    """A regression head may ask for more, or be content with less, than class scores."""

    def judged(self, **gates: OutputGate) -> list[tuple[str, float, bool, str]]:
        exact, engine = two_heads(0.0), two_heads(0.05)
        limits = Limits(Tolerance(min_sqnr_db=20), outputs=gates)
        with reference.build(exact) as left, reference.build(engine) as right:
            report = parity(left, right, samples_of(exact, 4), limits)
        return [(gate.name, gate.limit, gate.passed, gate.origin) for gate in report.gates]

    def test_without_any_the_targets_holds_for_all(self) -> None:
        assert self.judged() == [
            ("SQNR of 'boxes' (dB)", 20, True, "target"),
            ("SQNR of 'scores' (dB)", 20, True, "target"),
        ]

    def test_its_own_holds_in_its_place(self) -> None:
        assert self.judged(boxes=OutputGate(min_sqnr_db=60)) == [
            ("SQNR of 'boxes' (dB)", 60, False, "recipe"),
            ("SQNR of 'scores' (dB)", 20, True, "target"),
        ]

    def test_a_cosine_is_asked_of_that_output_alone(self) -> None:
        found = self.judged(scores=OutputGate(min_cosine=0.5))
        assert ("cosine of 'scores'", 0.5, True, "recipe") in found
        assert len(found) == 3


def two_heads(off: float) -> Model:
    """Two outputs, each `off` of itself too large."""
    nodes = [
        node("Mul", ["x", "near"], ["boxes"]),
        node("Mul", ["x", "near"], ["scores"]),
    ]
    weights = {"near": np.float32([1 + off])}
    return model(nodes, {"x": ["N", 6]}, {"boxes": ["N", 6], "scores": ["N", 6]}, weights)
