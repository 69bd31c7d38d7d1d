"""YOLOX's cells have to be as many as the strides make."""

from __future__ import annotations

import pytest
from decoder_cases import CASES, SIZE

from deploy.decoders.yolox import Yolox
from deploy.errors import CalibrationError


def test_other_strides_are_refused() -> None:
    case = CASES["yolox"]()
    decoder = Yolox.of(case.specs, {"strides": [8, 16, 32]})
    reason = "'cells' has 30 cells, strides 8, 16, 32 make 126 of a picture of 64x96"
    with pytest.raises(CalibrationError, match=reason):
        decoder.decode(case.outputs, SIZE)
