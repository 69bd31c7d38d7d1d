"""--shape: what it fixes, what stays dynamic, and what contradicts the model."""

from __future__ import annotations

import re

import onnx
import pytest
from helpers import model_from, weight

from deploy.artifacts.model import Model
from deploy.errors import ModelError, RecipeError
from deploy.load import load

CONV = "g (float[{dims}] x) => (float[{dims}] y) {{ y = Conv<pads=[1,1,1,1]>(x, w) }}"


def conv(dims: str = "N,3,H,W") -> Model:
    return model_from(CONV.format(dims=dims), {"w": weight(3, 3, 3, 3)})


def test_a_free_batch_needs_no_shape() -> None:
    assert str(load(conv("N,3,8,6")).inputs[0]) == "x float32[N,3,8,6]"


def test_another_free_dimension_does_and_the_message_can_be_pasted() -> None:
    with pytest.raises(ModelError) as caught:
        load(conv())
    message = str(caught.value)
    assert "input x float32[N,3,H,W] has a dynamic dimension besides the batch" in message
    option = re.search(r"--shape (\S+)=(\S+) ", message)
    assert option is not None
    assert option.groups() == ("x", "1,3,?,?")
    # with sizes for the question marks it is what load wants
    sizes = tuple(int(d) if d != "?" else 8 for d in option[2].split(","))
    assert str(load(conv(), {option[1]: sizes}).inputs[0]) == "x float32[1,3,8,8]"


def test_sizes_are_inferred_through() -> None:
    loaded = load(conv(), {"x": (2, 3, 8, 6)})
    assert [str(s) for s in (*loaded.inputs, *loaded.outputs)] == [
        "x float32[2,3,8,6]",
        "y float32[2,3,8,6]",
    ]


def test_none_keeps_a_dimension_dynamic() -> None:
    loaded = load(conv(), {"x": (None, 3, 8, None)})
    assert str(loaded.inputs[0]) == "x float32[N,3,8,W]"
    assert loaded.outputs[0].shape == (None, 3, 8, None)


def test_a_nameless_dynamic_dimension_gets_a_name() -> None:
    model = conv()
    model.proto.graph.input[0].type.tensor_type.shape.dim[3].Clear()
    assert load(model, {"x": (None, 3, 8, None)}).inputs[0].labels == ("N", "", "", "x_3")


@pytest.mark.parametrize("size", [-1, 0])
def test_exporters_also_write_minus_one_or_zero_for_free(size: int) -> None:
    model = conv("N,3,8,6")
    model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    model.proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = size
    loaded = load(model, {"x": (5, 3, 8, 6)})
    assert str(loaded.outputs[0]) == "y float32[5,3,8,6]"


def test_shapes_that_were_written_for_another_size_are_forgotten() -> None:
    """Exporters write down the sizes of their example input, even for free dimensions."""
    text = "g (float[N,3,H,6] x) => (float[N,4,6,4] y) { c = Relu(x) y = Conv(c, w) }"
    model = model_from(text, {"w": weight(4, 3, 3, 3)})
    example = onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["N", 3, 8, 6])
    model.proto.graph.value_info.append(example)
    loaded = load(model, {"x": (None, 3, 9, 6)})
    sizes = {v.name: v.type.tensor_type.shape.dim[2] for v in loaded.proto.graph.value_info}
    assert {name: dim.dim_value for name, dim in sizes.items()} == {"c": 9}
    assert loaded.outputs[0].shape == (None, 4, 7, 4)


def test_an_unknown_input_names_the_nearest_and_all() -> None:
    model = model_from(
        "g (float[N,3] left, float[N,3] right) => (float[N,3] y) { y = Add(left, right) }"
    )
    with pytest.raises(
        RecipeError, match=r"input 'lefd' \(did you mean 'left'\?\); m has: left, right"
    ):
        load(model, {"lefd": (1, 3)})


def test_a_weight_is_not_an_input() -> None:
    with pytest.raises(RecipeError, match="--shape names input 'w'; m has: x"):
        load(conv("N,3,8,6"), {"w": (3, 3, 3, 3)})


def test_a_conflict_with_the_model_is_refused() -> None:
    with pytest.raises(RecipeError, match="--shape x: dimension 1 is 4; the model fixes it at 3"):
        load(conv(), {"x": (1, 4, 8, 6)})


def test_none_where_the_model_fixes_the_size_keeps_it() -> None:
    assert load(conv(), {"x": (None, None, 8, 6)}).inputs[0].shape == (None, 3, 8, 6)


@pytest.mark.parametrize("shape", [(3, 8, 6), (1, 1, 3, 8, 6), ()])
def test_another_rank_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        RecipeError, match=rf"--shape x has {len(shape)} dimensions; the input is x float32"
    ):
        load(conv(), {"x": shape})


@pytest.mark.parametrize("size", [0, -2])
def test_a_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(RecipeError, match=f"--shape x: dimension 2 is {size}; sizes start at 1"):
        load(conv(), {"x": (1, 3, size, 6)})


def test_a_size_the_graph_cannot_take_is_blamed_on_shape() -> None:
    text = "g (float[N,C] x) => (float[N,5] y) { y = MatMul(x, w) }"
    with pytest.raises(
        ModelError, match=r"shapes don't fit together: .*if --shape was given, check it"
    ):
        load(model_from(text, {"w": weight(7, 5)}), {"x": (1, 8)})
