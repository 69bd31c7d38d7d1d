"""What one rule of `deploy doctor` says of a small model on a target."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import numpy as np
from helpers import model_from

from deploy.artifacts.model import Model
from deploy.doctor.case import Case, Finding
from deploy.doctor.diagnosis import case_of
from deploy.target import Precision, Target


def case(
    model: Model | str,
    target: str = "xavier",
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    precision: Precision | None = None,
) -> Case:
    """The model (also as ONNX text) on the target, as the rules get it."""
    if isinstance(model, str):
        model = model_from(model, weights, opset=opset)
    found = Target.load(target)
    return case_of(model, found, precision or found.default_precision, {})


def said(rule: str, of: Case) -> list[Finding]:
    """The rule's findings."""
    module = importlib.import_module(f"deploy.doctor.rules.{rule}")
    found = getattr(module, rule)(of)
    assert all(isinstance(finding, Finding) and finding.rule == rule for finding in found)
    return list(found)


def only(rule: str, of: Case) -> Finding:
    """The one thing the rule says."""
    (found,) = said(rule, of)
    return found
