"""Model: saved and loaded with its decisions, hashed by its content, described in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import model_from, weight

from deploy.artifacts import model as module
from deploy.artifacts.model import Decision, Model, decisions_path, graphs
from deploy.errors import ModelError

TEXT = "g (float[N,3] x, int64[2,?] i) => (float[N,5] y) { y = MatMul(x, w) }"


def matmul(seed: int = 0) -> Model:
    return model_from(TEXT.replace("?", "K"), {"w": weight(3, 5, seed=seed)})


def test_it_comes_back_with_its_decisions(tmp_path: Path) -> None:
    decisions = (Decision("fuse", "rule", "applied", "node", "because", 7),)
    model = matmul().derive(matmul().proto, decisions)
    model.save_with_decisions(tmp_path / "m.onnx")
    assert Model.load(tmp_path / "m.onnx") == model
    decisions_path(tmp_path / "m.onnx").unlink()
    assert Model.load(tmp_path / "m.onnx").decisions == ()


def test_the_hash_is_of_the_graph_alone() -> None:
    assert matmul().sha256 == matmul().named("other").sha256
    assert matmul().sha256 != matmul(seed=1).sha256


def test_specs_in_words() -> None:
    model = matmul()
    assert [str(s) for s in model.inputs] == ["x float32[N,3]", "i int64[2,K]"]
    assert model.inputs[0].shape == (None, 3)


def test_more_than_protobuf_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TWO_GIB", 50)
    with pytest.raises(ModelError, match=r"m: \d+ bytes with weights; a single ONNX file ends"):
        _ = matmul().serialized


def test_graphs_are_found_in_bodies_of_bodies() -> None:
    text = """
    outer (float[N,3] x, bool q) => (float[N,3] y) {
        y = If (q) <
            then_branch = middle () => (float[N,3] u) {
                u = If (q) <
                    then_branch = inner () => (float[N,3] a) { a = Relu(x) },
                    else_branch = other () => (float[N,3] b) { b = Neg(x) }
                >
            },
            else_branch = last () => (float[N,3] v) { v = Abs(x) }
        >
    }
    """
    names = [g.name for g in graphs(model_from(text).proto.graph)]
    assert sorted(names) == ["inner", "last", "middle", "other", "outer"]
