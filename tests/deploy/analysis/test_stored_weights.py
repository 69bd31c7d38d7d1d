"""Bytes of every weight before and after a weight-only build."""

from __future__ import annotations

from tiny_models import model, node, normal

from deploy.analysis.stored_weights import stored_weights
from deploy.artifacts.model import Decision, Model
from deploy.weights.compress import WeightForm, compress


def two_layers() -> Model:
    return model(
        [node("MatMul", ["x", "big"], ["m"]), node("MatMul", ["m", "small"], ["y"])],
        {"x": ["N", 64]},
        {"y": ["N", 3]},
        {"big": normal(64, 128), "small": normal(128, 3, seed=1)},
    )


def test_says_what_was_stored_how_and_what_was_not() -> None:
    made = two_layers()
    big, small = sorted(
        stored_weights(made, compress(made, WeightForm(smallest_bytes=16_384))),
        key=lambda row: row.weight,
    )
    assert (big.weight, big.stored, big.before) == ("big", "int8", 64 * 128 * 4)
    # a byte per value, a float scale and a zero point at most per output channel
    assert 64 * 128 <= big.after - 4 * 128 <= 64 * 128 + 128
    assert (small.weight, small.stored) == ("small", "float")
    assert small.before == small.after == 128 * 3 * 4
    assert small.reason.startswith("1536 bytes, below 16384")


def test_other_decisions_are_no_weights() -> None:
    made = two_layers()
    other = [
        Decision("compress", "weights", "note", "the model", "nothing about a weight"),
        Decision("fuse", "x", "applied", "big", "another stage"),
    ]
    assert stored_weights(made, made.derive(made.proto, other)) == []
