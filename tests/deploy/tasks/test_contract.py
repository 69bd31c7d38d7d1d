"""What every task promises; finds the tasks by their files."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from task_cases import CASES, COUNT, TaskCase, spec, task, terms

from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import ParityReport
from deploy.errors import CalibrationError, RecipeError
from deploy.parity import Limits, parity
from deploy.target import Tolerance
from deploy.task import Task

NAMES = registry.names("task")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(name: str, tmp_path: Path) -> TaskCase:
    return CASES[name](tmp_path)


@pytest.fixture
def judge(name: str, case: TaskCase) -> Task:
    return task(name, case)


class Stored(Engine):
    """Gives the outputs of the samples it is fed, whose pixels hold their number."""

    def __init__(self, outputs: list[dict[str, np.ndarray]], case: TaskCase, batch: int | None):
        size = TensorSpec("x", np.dtype(np.float32), (batch, 3, 20, 30))
        super().__init__((size,), tuple(case.specs))
        self.outputs_by_sample = outputs

    def _run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = [self.outputs_by_sample[int(x[0, 0, 0])] for x in feeds["x"]]
        return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def _prepare(self, feeds: dict[str, np.ndarray]) -> None:
        raise NotImplementedError


def report(
    case: TaskCase,
    judge: Task,
    *,
    labelled: bool = True,
    batch: int | None = None,
    tolerance: Tolerance | None = None,
    outputs: list[dict[str, np.ndarray]] | None = None,
) -> ParityReport:
    given = outputs if outputs is not None else list(case.wrong)
    exact, engine = Stored(list(case.outputs), case, None), Stored(given, case, batch)
    limits = Limits(tolerance or Tolerance(), other_task=judge)
    return parity(exact, engine, case.samples(labelled), limits)


def test_there_is_a_case_for_it(name: str) -> None:
    assert name in CASES


def test_it_is_a_frozen_dataclass_that_says_what_it_is_made_of(judge: Task) -> None:
    assert dataclasses.is_dataclass(judge) and judge.__doc__
    assert repr(judge) == repr(pickle.loads(pickle.dumps(judge)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        judge.anything = 1  # type: ignore[attr-defined]


def test_equal_outputs_agree_and_lose_nothing(name: str, case: TaskCase, judge: Task) -> None:
    found = judge.result(terms(judge, case.samples(), case.outputs, case.outputs))
    assert found.predictions.kind == name
    assert found.predictions.agreement_pct == pytest.approx(100, abs=1e-9)
    assert found.predictions.samples == COUNT
    assert found.scored is not None and found.scored.kind == name
    assert (found.scored.drop, found.scored.drop_error) == (0.0, 0.0)
    assert found.scored.reference_pct == (0 if found.scored.rises else pytest.approx(100))


def test_a_wrong_engine_disagrees_and_loses(case: TaskCase, judge: Task) -> None:
    found = judge.result(terms(judge, case.samples(), case.outputs, case.wrong))
    assert found.predictions.agreement_pct < 60
    assert found.scored is not None and found.scored.drop > 30
    worse = found.scored.engine_pct - found.scored.reference_pct
    assert found.scored.drop == pytest.approx(worse if found.scored.rises else -worse)


def test_the_error_of_a_drop_is_known(case: TaskCase, judge: Task) -> None:
    half = [*case.wrong[:5], *case.outputs[5:]]
    found = judge.result(terms(judge, case.samples(), case.outputs, half))
    assert found.scored is not None and 0 < found.scored.drop_error < 60


@pytest.mark.parametrize("batch", [4, 5])
def test_batches_change_nothing(case: TaskCase, judge: Task, batch: int) -> None:
    assert report(case, judge, batch=batch) == report(case, judge)


def test_terms_travel(case: TaskCase, judge: Task) -> None:
    made = terms(judge, case.samples(), case.outputs, case.wrong)
    sent = [pickle.loads(pickle.dumps(term)) for term in made]
    assert judge.result(sent) == judge.result(made)


def test_without_truths_only_agreement_is_told(case: TaskCase, judge: Task) -> None:
    found = report(case, judge, labelled=False)
    assert found.task is None and found.predictions is not None
    assert not found.labelled


@pytest.mark.parametrize("labelled", [True, False])
def test_the_gate(case: TaskCase, judge: Task, labelled: bool) -> None:
    met = Tolerance(max_drop_pct=0)
    same = report(case, judge, labelled=labelled, tolerance=met, outputs=list(case.outputs))
    missed = report(case, judge, labelled=labelled, tolerance=met)
    assert [gate.passed for gate in same.gates] == [True]
    assert [gate.passed for gate in missed.gates] == [False]
    (gate,) = missed.gates
    word = (" drop (points)", " rise (points)") if labelled else ("disagreement (points)",)
    assert gate.name.endswith(word)


def test_it_survives_json(case: TaskCase, judge: Task, tmp_path: Path) -> None:
    found = report(case, judge)
    found.save(tmp_path / "parity.json")
    assert ParityReport.load(tmp_path / "parity.json") == found
    assert found.task is not None and found.predictions is not None
    assert found.task.line() and found.predictions.line()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_engine_gone_wrong_is_judged_and_not_trusted(
    case: TaskCase, judge: Task, bad: float, tmp_path: Path
) -> None:
    broken = [{key: np.full_like(x, bad) for key, x in row.items()} for row in case.outputs]
    found = report(case, judge, outputs=broken, tolerance=Tolerance(max_drop_pct=5))
    assert not found.passed
    found.save(tmp_path / "parity.json")
    json.loads((tmp_path / "parity.json").read_text(), parse_constant=pytest.fail)


def test_an_unknown_option_is_refused(name: str, case: TaskCase) -> None:
    with pytest.raises(RecipeError, match=r"--task-option of task '\w+': unknown key 'colour'"):
        registry.load("task", name).of(case.specs, {**case.options, "colour": "red"})


def test_an_output_that_is_not_there_is_refused(name: str, case: TaskCase) -> None:
    if name == "classify":
        pytest.skip("class_scores looks for its output")
    options = {**case.options, "output": "nowhere"}
    with pytest.raises(RecipeError, match=r"output=nowhere.*: not an output; there are: \w+"):
        registry.load("task", name).of(case.specs, options)


def test_outputs_without_what_it_needs_are_refused(name: str, case: TaskCase) -> None:
    if name == "classify":
        pytest.skip("class_scores looks for its output")
    with pytest.raises(RecipeError, match=r"0 outputs could hold .*say which: --task-option"):
        registry.load("task", name).of([spec("y", 2, 2, 2, 2, 2)], case.options)


def test_a_truth_of_another_task_is_refused(case: TaskCase, judge: Task) -> None:
    if case.other is None:
        pytest.skip("classes are labels, not truths")
    first = case.samples()[0]
    odd = Sample(first.name, first.feeds, truth=case.other)
    with pytest.raises(CalibrationError, match=r"sample s0 carries .*, task '\w+' compares with"):
        terms(judge, [odd], case.outputs[:1], case.outputs[:1])
