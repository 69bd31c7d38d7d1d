"""Operators without an importer stop a build, unless a fusion writes them out."""

from __future__ import annotations

import pytest
from doctor_cases import case, only, said
from tiny_models import model, node, normal

UNIQUE = "g (float[6] x) => (float[a] y) { y = Unique(x) }"


def test_an_operator_that_no_release_has() -> None:
    found = only("operators", case(UNIQUE, "xavier"))
    assert found.level == "stop"
    assert "has no importer in TensorRT 8.5.2; no release has it" in found.text


def test_an_operator_of_a_later_release_names_it() -> None:
    text = "g (float[2,6] x) => (float[2,6] y) { y = Hardmax(x) }"
    found = only("operators", case(text, "t4"))
    assert "in TensorRT 8.6.1; TensorRT 10.0 has it" in found.text
    assert said("operators", case(text, "orin")) == []


def test_what_a_fusion_writes_out_is_in_nobodys_way() -> None:
    text = "g (float[2,6] x) => (float[2,6] y) { y = Gelu(x) }"
    made = case(text, "xavier", opset=20)
    assert "expand_gelu" in {d.rule for d in made.decisions if d.outcome == "applied"}
    assert said("operators", made) == []


def test_why_the_fusion_left_it() -> None:
    outputs = {"y": [2, 3, 4], "mean": [2, 3, 1]}
    norm = node("LayerNormalization", ["x", "s"], ["y", "mean"], name="norm")
    asked = model([norm], {"x": [2, 3, 4]}, outputs, {"s": normal(4)})
    found = only("operators", case(asked, "xavier"))
    assert "expand_layer_norm left it (its mean and deviation are asked for too)" in found.text


@pytest.mark.parametrize("target", ["cpu", "rpi3"])
def test_other_vendors_are_not_judged_by_tensorrt(target: str) -> None:
    assert said("operators", case(UNIQUE, target)) == []


def test_bodies_are_looked_into() -> None:
    text = """g (float[6] x, bool c) => (float[a] y) {
        y = If(c) <then_branch = t () => (float[b] u) { u = Unique(x) },
                   else_branch = e () => (float[d] v) { v = Relu(x) }>
    }"""
    assert "Unique" in only("operators", case(text, "h100")).text
