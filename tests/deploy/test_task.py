"""Which output holds class scores."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto
from tiny_models import model, node, normal, residual

from deploy.artifacts.model import Model
from deploy.errors import RecipeError
from deploy.task import class_number, class_scores


def ending(*ops: str, shape: list[int | str] | None = None) -> Model:
    """A Gemm to five values, then unary operators."""
    nodes = [node("Gemm", ["x", "w"], ["h0"])]
    nodes += [node(op, [f"h{i}"], [f"h{i + 1}"]) for i, op in enumerate(ops)]
    nodes[-1].output[0] = "y"
    return model(nodes, {"x": ["N", 4]}, {"y": shape or ["N", 5]}, {"w": normal(4, 5)})


def regression(columns: int = 5) -> Model:
    return model([node("Sigmoid", ["x"], ["y"])], {"x": ["N", columns]}, {"y": ["N", columns]})


@pytest.mark.parametrize("ops", [(), ("Softmax",), ("LogSoftmax",), ("Identity", "Softmax")])
def test_a_graph_that_ends_like_a_classifier(ops: tuple[str, ...]) -> None:
    assert class_scores(ending(*ops), "auto", labelled=False) == "y"


def test_a_bias_after_the_layer() -> None:
    nodes = [node("MatMul", ["x", "w"], ["m"]), node("Add", ["m", "b"], ["y"])]
    weights = {"w": normal(4, 5), "b": normal(5)}
    network = model(nodes, {"x": ["N", 4]}, {"y": ["N", 5]}, weights)
    assert class_scores(network, "auto", labelled=False) == "y"


def test_one_map_per_class() -> None:
    nodes = [node("Conv", ["x", "w"], ["c"]), node("GlobalAveragePool", ["c"], ["y"])]
    network = model(nodes, {"x": ["N", 3, 5, 7]}, {"y": ["N", 6, 1, 1]}, {"w": normal(6, 3, 1, 1)})
    assert class_scores(network, "auto", labelled=False) == "y"


@pytest.mark.parametrize("ops", [("Sigmoid",), ("Softmax", "Sqrt"), ("Tanh",)])
def test_any_other_end_only_with_labels_or_when_asked(ops: tuple[str, ...]) -> None:
    assert class_scores(ending(*ops), "auto", labelled=False) is None
    assert class_scores(ending(*ops), "auto", labelled=True) == "y"
    assert class_scores(ending(*ops), "classify", labelled=False) == "y"


def test_none_means_none() -> None:
    assert class_scores(residual(), "none", labelled=True) is None


def test_a_single_number_is_no_class() -> None:
    assert class_scores(regression(1), "classify", labelled=True) is None


def test_feature_maps_are_no_classes() -> None:
    network = model(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": ["N", 3, 5, 7]},
        {"y": ["N", 4, 3, 5]},
        {"w": normal(4, 3, 3, 3)},
    )
    assert class_scores(network, "classify", labelled=True) is None


def several() -> Model:
    return model(
        [
            node("ArgMax", ["x"], ["best"], axis=1, keepdims=1),
            node("Sigmoid", ["x"], ["first"]),
            node("Neg", ["x"], ["second"]),
        ],
        {"x": ["N", 4]},
        {"best": (TensorProto.INT64, ["N", 1]), "first": ["N", 4], "second": ["N", 4]},
    )


def test_several_that_could_be_meant_are_refused_or_named() -> None:
    with pytest.raises(RecipeError, match=r"first, second: 2 outputs could .*--scores first"):
        class_scores(several(), "classify", labelled=False)
    assert class_scores(several(), "classify", labelled=True, named="second") == "second"
    assert class_scores(several(), "auto", labelled=False) is None
    with pytest.raises(
        RecipeError, match=r"--scores 'frist' \(did you mean 'first'\?\): not an out"
    ):
        class_scores(several(), "auto", labelled=True, named="frist")


def test_features_beside_the_scores_are_not_the_scores() -> None:
    """The first output of the right shape isn't it: accuracy on features would be nonsense."""
    network = model(
        [
            node("GlobalAveragePool", ["x"], ["pooled"]),
            node("Flatten", ["pooled"], ["features"]),
            node("Gemm", ["features", "w"], ["logits"]),
        ],
        {"x": ["N", 6, 5, 3]},
        {"features": ["N", 6], "logits": ["N", 4]},
        {"w": np.ones((6, 4), np.float32)},
    )
    assert class_scores(network, "auto", labelled=True) == "logits"


@pytest.mark.parametrize("shape", [["N", 1, 10], ["N", 10, 1, 1], ["N", 10]])
def test_sizes_of_one_are_looked_through(shape: list[object]) -> None:
    network = model([node("Softmax", ["x"], ["y"])], {"x": shape}, {"y": shape})
    assert class_scores(network, "auto", labelled=True) == "y"


def numbered(*keep: str, axis: int = 1) -> Model:
    """Scores and the class they name."""
    nodes = [
        node("Gemm", ["x", "w"], ["scores"]),
        node("ArgMax", ["scores"], ["best"], axis=axis, keepdims=0),
        node("Cast", ["best"], ["y"], to=TensorProto.INT32),
    ]
    outputs = {
        "scores": ["N", 5],
        "y": (TensorProto.INT32, ["N" if axis else 5]),
    }
    kept = {name: shape for name, shape in outputs.items() if name in keep}
    return model(nodes, {"x": ["N", 4]}, kept, {"w": np.ones((4, 5), "f4")})


def test_an_output_that_is_the_class_is_found() -> None:
    assert class_number(numbered("y"), "auto") == "y"
    assert class_number(numbered("y"), "segment") is None
    # of each score the sample that has most of it
    assert class_number(numbered("y", axis=0), "auto") is None
    assert class_scores(numbered("y"), "auto", labelled=True) is None
    assert class_scores(numbered("scores", "y"), "auto", labelled=False) == "scores"


def test_scores_that_hold_no_class_are_refused() -> None:
    labels = {"x": ["N", 4]}, {"y": (TensorProto.BOOL, ["N", 4])}
    network = model([node("Greater", ["x", "zero"], ["y"])], *labels, {"zero": np.zeros(1, "f4")})
    with pytest.raises(RecipeError, match="holds neither a score per class nor one class's number"):
        class_scores(network, "auto", labelled=False, named="y")
