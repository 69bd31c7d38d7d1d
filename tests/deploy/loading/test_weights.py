"""check_weights: weights no engine could be right with, and those that only look odd."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from helpers import assert_same_numbers, model_from, weight
from onnx import TensorProto, numpy_helper

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import ModelError
from deploy.fuse import fuse
from deploy.load import load

GEMM = "g (float[N,3] x) => (float[N,5] y) { y = Gemm(x, w, b) }"


def gemm(w: np.ndarray, b: np.ndarray | None = None) -> Model:
    return model_from(GEMM, {"w": w, "b": weight(5) if b is None else b})


def spoiled(value: float, *shape: int, count: int = 1) -> np.ndarray:
    values = weight(*shape)
    values.reshape(-1)[2 : 2 + count] = value
    return values


def test_ordinary_weights_pass() -> None:
    assert load(gemm(weight(3, 5)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_factor_that_is_not_finite_is_counted(value: float) -> None:
    with pytest.raises(ModelError, match="weight 'w' holds 2 NaN or Inf values; the training"):
        load(gemm(spoiled(value, 3, 5, count=2)))
    with pytest.raises(ModelError, match="weight 'b' holds 1 NaN or Inf values"):
        load(gemm(weight(3, 5), spoiled(value, 5)))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_types_are_looked_at_too(dtype: str) -> None:
    name = {"float16": "float16", "float64": "double"}[dtype]
    model = model_from(
        f"g ({name}[N,3] x) => ({name}[N,5] y) {{ y = MatMul(x, w) }}",
        {"w": spoiled(np.inf, 3, 5).astype(dtype)},
    )
    with pytest.raises(ModelError, match="weight 'w' holds 1 NaN or Inf values"):
        load(model)


ADDED = "g (float[N,3] x) => (float[N,3] y) { y = Add(x, mask) }"


def test_infinity_that_is_added_is_a_mask() -> None:
    assert load(model_from(ADDED, {"mask": np.float32([0, -np.inf, 0])}))


def test_nan_is_wrong_anywhere() -> None:
    with pytest.raises(ModelError, match="weight 'mask' holds 1 NaN"):
        load(model_from(ADDED, {"mask": np.float32([0, np.nan, 0])}))


def test_a_weight_in_a_constant_node_is_looked_at() -> None:
    model = gemm(spoiled(np.inf, 3, 5))
    node = onnx.helper.make_node("Constant", [], ["w"], value=model.proto.graph.initializer[0])
    model.proto.graph.node.insert(0, node)
    del model.proto.graph.initializer[0]
    with pytest.raises(ModelError, match="weight 'w' holds 1 NaN or Inf"):
        load(model)


def test_a_weight_in_a_branch_is_looked_at() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,5] y) {
        y = If (q) <
            then_branch = t () => (float[N,5] u) { u = MatMul(x, w) },
            else_branch = e () => (float[N,5] v) { v = MatMul(x, z) }
        >
    }
    """
    model = model_from(text, {"w": weight(3, 5)})
    branch = model.proto.graph.node[0].attribute[1].g
    branch.initializer.append(numpy_helper.from_array(spoiled(np.nan, 3, 5), "z"))
    with pytest.raises(ModelError, match="weight 'z' holds 1 NaN"):
        load(model)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_a_factor_without_elements_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(
        ModelError, match=rf"weight 'w' of a Gemm has shape \[{shape[0]}, {shape[1]}\], no"
    ):
        load(gemm(weight(*shape)))


def test_an_empty_roi_of_resize_is_fine() -> None:
    text = "g (float[N,3,4,5] x) => (float[N,3,8,15] y) { y = Resize(x, roi, scales) }"
    values = {"roi": np.zeros(0, np.float32), "scales": np.float32([1, 1, 2, 3])}
    model = load(model_from(text, values))
    assert_same_numbers(model, fuse(model, ["fold_affine"]))


@pytest.mark.parametrize("size", [0, 20, 59, 64])
def test_raw_data_that_does_not_fill_the_shape_is_refused(size: int) -> None:
    model = gemm(weight(3, 5))
    model.proto.graph.initializer[0].raw_data = b"\0" * size
    with pytest.raises(
        ModelError, match=r"weight 'w' doesn't fill its shape \[3, 5\] .*; the file is"
    ):
        load(model)


def test_a_constant_that_does_not_fill_its_shape_is_refused() -> None:
    model = model_from("g (float[N,3] x) => (float[N,3] y) { k = Constant() y = Mul(x, k) }")
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[3], raw_data=b"\0" * 8)
    model.proto.graph.node[0].attribute.append(onnx.helper.make_attribute("value", tensor))
    with pytest.raises(ModelError, match=r"weight 'k' doesn't fill its shape \[3\]"):
        load(model)


@pytest.mark.parametrize("dims", [[-3, 5], [2**31, 2**31]])
def test_an_impossible_shape_is_refused(dims: list[int]) -> None:
    model = gemm(weight(3, 5))
    model.proto.graph.initializer[0].dims[:] = dims
    with pytest.raises(ModelError, match=r"doesn't fill its shape|Negative dimension value .*w\)"):
        load(model)


def test_an_unknown_element_type_is_refused() -> None:
    model = gemm(weight(3, 5))
    model.proto.graph.initializer[0].data_type = 99
    with pytest.raises(ModelError, match="weight 'w' has element type 99, which ONNX doesn't know"):
        load(model)


def test_nan_that_ends_a_set_of_members_is_a_sign() -> None:
    """A tree ensemble that asks whether x is one of {1.2, 3.7}: its two NaN mean no number."""
    text = """
    <ir_version: 10, opset_import: ["" : 17, "ai.onnx.ml" : 5]>
    g (float[N,1] x) => (float[N,1] y) {
        y = ai.onnx.ml.TreeEnsemble <n_targets = 1, tree_roots = [0], nodes_featureids = [0],
            nodes_truenodeids = [0], nodes_falsenodeids = [1], nodes_trueleafs = [1],
            nodes_falseleafs = [1], leaf_targetids = [0, 0],
            nodes_modes: tensor = uint8[1] {6}, nodes_splits: tensor = float[1] {0.0},
            membership_values: tensor = float[3] {1.2, 3.7, 0.0},
            leaf_weights: tensor = float[2] {10.0, 1.0}> (x)
    }
    """
    model = Model(onnx.parser.parse_model(text), "m")
    tensors = {a.name: a.t for a in model.proto.graph.node[0].attribute}
    for name, values in (("nodes_splits", [np.nan]), ("membership_values", [1.2, 3.7, np.nan])):
        tensors[name].CopyFrom(numpy_helper.from_array(np.float32(values), name))
    with reference.build(load(model)) as engine:
        got = engine.run({"x": np.float32([[1.2], [3.0], [3.7]])})["y"]
    assert got.ravel().tolist() == [10, 1, 10]
    tensors["leaf_weights"].CopyFrom(numpy_helper.from_array(np.float32([np.nan, 1]), "w"))
    with pytest.raises(ModelError, match="holds 1 NaN"):
        load(model)
