"""approximate_swish: how far it is off, and that nobody gets it who didn't ask for it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from, ops, run

from deploy import registry
from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.fusions.approximate_swish import FORM
from deploy.target import Target

NAME = "approximate_swish"


def fused() -> Model:
    text = "g (float[N] x) => (float[N] y) { s = Sigmoid(x) y = Mul(x, s) }"
    return fuse(model_from(text), [NAME])


def errors(x: np.ndarray) -> np.ndarray:
    """Distance to x * sigmoid(x), relative where that is above 1."""
    got = run(fused(), {"x": x.astype(np.float32)})["y"].astype(np.float64)
    exact = x / (1 + np.exp(-x))
    return np.asarray(np.abs(got - exact) / np.maximum(1, exact))


def test_is_a_division() -> None:
    steps = ["Max", "Min", *["Mul", "Add"] * 2, *["Mul"] * 4, "Add", "Div"]
    assert ops(fused()) == steps
    (decision,) = fused().decisions
    assert decision.reason == (
        "swish as x / (1 + p^16), p of degree 2: 0.0017 off at most, and no exponential"
    )


def test_the_error_bound_holds_and_is_tight() -> None:
    x = np.linspace(-60, 60, 600_001).astype(np.float32).astype(np.float64)
    assert 0.98 * FORM.error < errors(x).max() <= FORM.error


def test_is_exact_at_zero_and_nearly_so_far_out() -> None:
    assert errors(np.array([0.0])) == 0
    assert errors(np.array([30.0, 600.0, -30.0, -600.0])).max() < 4e-5


@pytest.mark.parametrize("name", registry.names("target"))
def test_no_target_lists_it(name: str) -> None:
    target = Target.load(name)
    assert NAME not in (*target.fusions, *target.quantized_fusions)
