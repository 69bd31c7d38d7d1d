"""FastestDet's map: its score, and values that quantization pushes below 0."""

from __future__ import annotations

import numpy as np
from decoder_cases import CASES, SIZE
from task_cases import spec

from deploy.decoders.fastestdet import Fastestdet


def test_the_score_is_mixed_of_objectness_and_class() -> None:
    out = np.zeros((1, 7, 1, 1), "f4")
    out[0, [0, 5, 6], 0, 0] = 0.5, 0.2, 0.9
    found = Fastestdet.of([spec("map", 7, 1, 1)], {}).decode({"map": out}, SIZE)
    assert found.classes.tolist() == [1]
    np.testing.assert_allclose(found.scores, [0.5**0.6 * 0.9**0.4], rtol=1e-6)


def test_probabilities_below_zero_are_zero() -> None:
    case = CASES["fastestdet"]()
    out = case.outputs["map"].copy()
    out[0, 0] = np.where(out[0, 0] < 0.01, -0.003, out[0, 0])
    found = Fastestdet.of(case.specs, {}).decode({"map": out}, SIZE)
    assert np.isfinite(found.scores).all() and (found.scores > 0).sum() == 2
