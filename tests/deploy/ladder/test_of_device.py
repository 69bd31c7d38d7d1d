"""The device's own figures as the last rung."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.artifacts.ladder import Ladder, OutputLoss, Rung, TensorError
from deploy.ladder.of_device import with_device

TRUTH = TensorError("y", "output", 30.0, 0.99, 0.1, 0.1)
HERE = Ladder(8, "", (Rung("engine", "build", "quantized", (OutputLoss(TRUTH),), 40, 20, ""),))


def report(simulated: float | None) -> dict[str, Any]:
    row = {"name": "y", "sqnr_db": 29.0, "cosine": 0.99, "max_abs": 0.2}
    return {"parity": {"outputs": [{**row, "simulated_sqnr_db": simulated}]}}


@pytest.mark.parametrize(("simulated", "broken"), [(30.0, False), (12.0, True)])
def test_against_the_simulation(simulated: float, broken: bool) -> None:
    sent = {"parity": {"rounding_sqnr_db": {"y": 25.0}, "min_sqnr_db": 8.0}}
    found = with_device(HERE, report(simulated), sent)
    assert found.rungs[-1].name == "device"
    assert found.rungs[-1].worst_db == 29.0
    assert [rung.name for rung in found.broken] == (["device"] if broken else [])
    assert found.rungs[-1].outputs[0].limit_db == 8.0


def test_once_however_often_it_is_imported() -> None:
    once = with_device(HERE, report(30.0), {})
    assert len(with_device(once, report(31.0), {}).rungs) == 2


@pytest.mark.parametrize("content", [{}, {"parity": None}, {"parity": {"outputs": []}}])
def test_without_figures_it_stays(content: dict[str, Any]) -> None:
    assert with_device(HERE, content, {}) is HERE


def test_a_device_that_holds_no_simulation_is_not_blamed() -> None:
    assert not with_device(HERE, report(None), {}).broken
