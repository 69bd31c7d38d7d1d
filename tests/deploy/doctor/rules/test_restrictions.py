"""Operators that the parser has, but not like this; each beside one that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from doctor_cases import case, only, said

IMAGE = "g (float[1,2,8,6] x) => (float[a,b,c,d] y)"
WAY = "coordinate_transformation"
SEQUENCE = "g (float[3,5,6] x) => (float[a,b,c,d] y)"
SCALES = {"s": np.asarray([1, 1, 2, 2], np.float32)}
DATA = {"i": np.asarray([[0], [1]], np.int64), "u": np.ones((2, 6), np.float32)}
LSTM = {
    "w": np.full((1, 8, 6), 0.1, np.float32),
    "r": np.full((1, 8, 2), 0.2, np.float32),
}


@pytest.mark.parametrize(
    ("refused", "taken", "weights", "reason"),
    [
        (
            f'{IMAGE} {{ y = Resize<mode="cubic">(x, , s) }}',
            f'{IMAGE} {{ y = Resize<mode="linear">(x, , s) }}',
            SCALES,
            "is cubic",
        ),
        (
            f"{IMAGE} {{ y = Resize<{WAY}_mode='tf_crop_and_resize'>(x, r, s) }}".replace("'", '"'),
            f"{IMAGE} {{ y = Resize<{WAY}_mode='align_corners'>(x, , s) }}".replace("'", '"'),
            {**SCALES, "r": np.asarray([0, 0, 0, 0, 1, 1, 1, 1], np.float32)},
            "maps coordinates by 'tf_crop_and_resize'",
        ),
        (
            f"{IMAGE} {{ y = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x) }}",
            f"{IMAGE} {{ y = MaxPool<kernel_shape=[2,2]>(x) }}",
            {},
            "is dilated",
        ),
        (
            "g (float[2,6] x) => (float[2,3] y) { y, i = TopK<sorted=0>(x, k) }",
            "g (float[2,6] x) => (float[2,3] y) { y, i = TopK(x, k) }",
            {"k": np.asarray([3], np.int64)},
            "is unsorted",
        ),
        (
            "g (float[2,4000] x) => (float[2,3900] y) { y, i = TopK(x, k) }",
            "g (float[2,4000] x) => (float[2,30] y) { y, i = TopK(x, m) }",
            {"k": np.asarray([3900], np.int64), "m": np.asarray([30], np.int64)},
            "asks for 3900 elements",
        ),
        (
            'g (float[2,6] x) => (float[2,6] y) { y = ScatterND<reduction="add">(x, i, u) }',
            "g (float[2,6] x) => (float[2,6] y) { y = ScatterND(x, i, u) }",
            DATA,
            "reduces by 'add'",
        ),
        (
            "g (float[2,6] x, int64 a) => (float[2,6] y) { y = CumSum(x, a) }",
            "g (float[2,6] x) => (float[2,6] y) { y = CumSum(x, k) }",
            {"k": np.asarray(1, np.int64)},
            "computes its axis at run time",
        ),
        (
            f"{SEQUENCE} {{ y = LSTM<hidden_size=2, layout=1>(x, w, r) }}",
            f"{SEQUENCE} {{ y = LSTM<hidden_size=2>(x, w, r) }}",
            LSTM,
            "has the batch first",
        ),
    ],
)
def test_refused_and_taken(
    refused: str, taken: str, weights: dict[str, np.ndarray], reason: str
) -> None:
    found = only("restrictions", case(refused, "orin", weights))
    assert (found.level, reason in found.text) == ("stop", True)
    assert said("restrictions", case(taken, "orin", weights)) == []
    assert said("restrictions", case(refused, "cpu", weights)) == []


def test_outputs_that_are_not_computed() -> None:
    pool = "g (float[1,2,8,6] x) => (float[1,2,4,3] y, int64[1,2,4,3] i)"
    text = f"{pool} {{ y, i = MaxPool<kernel_shape=[2,2], strides=[2,2]>(x) }}"
    assert "gives its indices out" in only("restrictions", case(text, "orin")).text
    norm = "g (float[2,3,4] x) => (float[2,3,4] y, float[2,3,1] m)"
    text = f"{norm} {{ y, m = LayerNormalization(x, s) }}"
    found = only("restrictions", case(text, "orin", {"s": np.ones(4, np.float32)}))
    assert "gives its mean or deviation out" in found.text
