"""What INT8 changed in a layer, taken back: the target's corrections, in its order."""

from __future__ import annotations

from collections.abc import Sequence

from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.model import Model

# means over more samples than this no longer move a bias
CORRECT_ON = 128


def correct(
    quantized: Model, exact: Model, samples: Sequence[Sample], corrections: Sequence[str]
) -> Model:
    """The Q/DQ model with better weights or biases; its decisions are the corrections'.

    exact: the float model it was made from, with the same layer outputs. samples: the ones ranges
    were calibrated on, in a fixed order, held in memory.
    """
    model, decisions = quantized, []
    for name in corrections:
        model = registry.load("correction", name)(model, exact, samples)
        decisions += model.decisions
    return model.derive(model.proto, decisions)
