"""with_fixed_batch: a free first dimension gets a size, wherever it has the same name."""

import numpy as np
from tiny_models import conv, model, node, normal

from deploy.backends import reference
from deploy.surgery.batch_size import with_fixed_batch


def test_inputs_and_outputs_get_it_and_the_numbers_stay() -> None:
    free = conv("N")
    fixed = with_fixed_batch(free, 3)
    assert [spec.shape for spec in (*fixed.inputs, *fixed.outputs)] == [(3, 3, 5, 7), (3, 4, 5, 7)]
    x = normal(3, 3, 5, 7, seed=8)
    with reference.build(free) as one, reference.build(fixed) as other:
        assert np.array_equal(one.run({"x": x})["y"], other.run({"x": x})["y"])


def test_a_model_without_a_free_batch_is_left_alone() -> None:
    fixed = conv(2)
    assert with_fixed_batch(fixed, 3) is fixed


def test_only_the_batch_is_fixed() -> None:
    free = model([node("Relu", ["x"], ["y"])], {"x": ["N", "T", 4]}, {"y": ["N", "T", 4]})
    fixed = with_fixed_batch(free, 1)
    assert fixed.inputs[0].shape == (1, None, 4)
    assert fixed.outputs[0].shape == (1, None, 4)


def test_another_dimension_of_the_same_name_follows() -> None:
    free = model(
        [node("MatMul", ["x", "z"], ["y"])],
        {"x": ["N", 4], "z": [4, "N"]},
        {"y": ["N", "N"]},
    )
    assert with_fixed_batch(free, 5).outputs[0].shape == (5, 5)
    assert with_fixed_batch(free, 5).inputs[1].shape == (4, 5)


def test_an_output_of_a_free_size_that_is_written_as_minus_one() -> None:
    free = model([node("Relu", ["x"], ["y"])], {"x": ["N", 3, "T"]}, {"y": [-1, 3, -1]})
    fixed = with_fixed_batch(free, 2)
    assert fixed.inputs[0].shape == (2, 3, None)
    assert fixed.outputs[0].shape == (2, 3, None)
