"""Which layers are INT8 and why, read from the graphs themselves."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import model, node, normal, quantized, ranges_of, residual, target

from deploy.analysis.layer_precision import constants, layer_precisions
from deploy.artifacts.model import Decision, Model
from deploy.placement import Exclude
from deploy.quantize import quantize


def without(float_model: Model, **exclude: dict[str, str]) -> Model:
    return quantize(float_model, ranges_of(float_model), target(), exclude=Exclude(**exclude))


def test_every_layer_in_order_with_the_loss_of_its_weights() -> None:
    made = residual()
    rows = layer_precisions(made, quantized(made))
    assert [row.layer for row in rows] == ["conv1", "conv2", "head"]
    assert [(row.input, row.weight, row.output) for row in rows] == [
        *[("x", "w1", "c1"), ("r1", "w2", "c2"), ("f", "w3", "y")]
    ]
    assert {(row.int8, row.reason) for row in rows} == {(True, "taken by the target's placement")}
    # 8 bits per channel lose about this; 4 bits would leave some 20 dB
    assert all(38 < (row.weight_sqnr_db or 0) < 52 for row in rows)


def test_weights_are_read_in_either_form() -> None:
    made = residual()
    found = layer_precisions(made, quantized(made, weight_form="fp32"))
    exact = layer_precisions(made, quantized(made))
    assert [r.weight_sqnr_db for r in found] == pytest.approx([r.weight_sqnr_db for r in exact])


def test_what_was_excluded_says_why_even_a_sum() -> None:
    made = residual()
    rows = layer_precisions(made, without(made, layers={"conv2": "noisy"}, kinds={"Add": "asked"}))
    found = {row.layer: (row.int8, row.reason, row.weight_sqnr_db, row.weight) for row in rows}
    assert found["conv2"] == (False, "noisy", None, "w2")
    assert found["add"] == (False, "asked", None, "")
    assert found["conv1"][0] and found["head"][0]


def test_a_declining_placement_is_quoted() -> None:
    made = residual()
    reason = Decision("quantize", "tensorrt", "skipped", "head", "a Gemm at the end")
    rows = layer_precisions(made, made.derive(made.proto, [reason]))
    assert [row.reason for row in rows] == [
        *["the target's placement doesn't take it"] * 2,
        "a Gemm at the end",
    ]
    assert not any(row.int8 for row in rows)


def test_a_product_of_two_activations_has_no_weight() -> None:
    made = model(
        [node("Transpose", ["x"], ["t"], perm=[0, 2, 1]), node("MatMul", ["x", "t"], ["y"])],
        {"x": ["N", 3, 5]},
        {"y": ["N", 3, 3]},
    )
    (row,) = layer_precisions(made, made)
    assert (row.layer, row.weight, row.weight_sqnr_db) == ("MatMul -> y", "", None)
    assert row.reason == "it multiplies two activations, which the target's placement doesn't take"


def test_half_a_layer_in_integers_is_float() -> None:
    made = residual()
    placed = quantized(made)
    proto = type(placed.proto)()
    proto.CopyFrom(placed.proto)
    for each in proto.graph.node:
        if each.name == "conv1":
            each.input[0] = "x"
    (row, *_) = layer_precisions(made, Model(proto, "half"))
    assert (row.int8, row.reason) == (False, "only its weights are integers")


def test_a_float_engine_is_all_float() -> None:
    rows = layer_precisions(residual(), None)
    assert [(r.layer, r.int8, r.reason) for r in rows] == [
        (name, False, "the whole engine is float") for name in ("conv1", "conv2", "head")
    ]


class TestConstants:
    def test_values_that_no_input_decides(self) -> None:
        made = model(
            [
                node("Transpose", ["w"], ["t"], perm=[1, 0]),
                node("MatMul", ["x", "t"], ["y"]),
            ],
            {"x": ["N", 3]},
            {"y": ["N", 4]},
            {"w": normal(4, 3)},
        )
        found = constants(made, ["w", "t", "x", "y", "no such"])
        assert sorted(found) == ["t", "w"]
        np.testing.assert_array_equal(found["t"], normal(4, 3).T)

    def test_nothing_asked_nothing_run(self) -> None:
        assert constants(residual(), []) == {}
