"""cast_raw_inputs: a uint8 image is cast before anything moves it."""

import numpy as np
import pytest
from helpers import model_from, ops, weight
from onnx import TensorProto

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.floats.convert_float import convert_float
from deploy.surgery.graph import verified
from deploy.surgery.raw_input import cast_raw_inputs

FOLDED = """g (uint8[1,5,4,3] x) => (float[1,3,5,4] y) {
    t = Transpose <perm = [0, 3, 1, 2]> (x)
    f = Cast <to = 1> (t)
    y = Neg(f)
}"""


def checked(text: str) -> Model:
    return Model(verified(model_from(text).proto, "m"), "m")


def out(model: Model, x: np.ndarray) -> np.ndarray:
    with reference.build(model) as engine:
        return engine.run({"x": x})["y"]


def test_the_cast_comes_first_and_the_numbers_stay() -> None:
    model = checked(FOLDED)
    made = cast_raw_inputs(model)
    assert ops(made) == ["Cast", "Transpose", "Neg"]
    (first,) = [n for n in made.proto.graph.node if "x" in n.input]
    assert first.op_type == "Cast"
    types = {v.name: v.type.tensor_type.elem_type for v in made.proto.graph.value_info}
    assert types["t"] == TensorProto.FLOAT
    x = np.arange(60, dtype=np.uint8).reshape(1, 5, 4, 3)
    assert np.array_equal(out(made, x), out(model, x))
    assert [d.reason for d in made.decisions] == ["cast before it is moved"]


def test_16_bits_behind_it_meet_16_bits() -> None:
    """A Cast that has nothing left to do would keep float32 where its readers are float16."""
    text = FOLDED.replace("float[1,3,5,4] y", "float[1,2,5,4] y").replace("Neg(f)", "Conv(f, w)")
    model = model_from(text, {"w": weight(2, 3, 1, 1)})
    made = convert_float(cast_raw_inputs(Model(verified(model.proto, "m"), "m")), "fp16")
    x = np.arange(60, dtype=np.uint8).reshape(1, 5, 4, 3)
    assert np.abs(out(made, x) - out(model, x)).max() < 1


def test_an_output_that_is_cast_keeps_its_cast() -> None:
    text = "g (uint8[1,4] x) => (float[4,1] y) { t = Transpose(x) y = Cast <to = 1> (t) }"
    model = checked(text)
    made = cast_raw_inputs(model)
    assert ops(made) == ["Cast", "Transpose", "Cast"]
    x = np.arange(4, dtype=np.uint8).reshape(1, 4)
    assert np.array_equal(out(made, x), out(model, x))


@pytest.mark.parametrize(
    "text",
    [
        "g (uint8[1,4] x) => (float[1,4] y) { f = Cast <to = 1> (x) y = Neg(f) }",
        "g (float[1,4] x) => (float[4,1] y) { y = Transpose(x) }",
        "g (uint8[1,4] x) => (uint8[4,1] y) { y = Transpose(x) }",
    ],
    ids=["cast already", "float", "uint8 goes out"],
)
def test_what_has_nothing_to_mend_is_left_alone(text: str) -> None:
    model = checked(text)
    assert cast_raw_inputs(model) is model
