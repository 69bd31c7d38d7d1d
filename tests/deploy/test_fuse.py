"""fuse: fusions in order, on a copy, and what the graph conversion around them keeps."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import MODELS, assert_same_numbers, feeds_for, model_from, ops, run, weight

from deploy.errors import RecipeError
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.metrics import Error
from deploy.simplify import simplify

BOTH = ("fold_affine", "hoist_downcast")
TEXT = """
g (float[N,3,8,6] x) => (float16[N,6,4,4] y) {
    c = Conv(x, w)  m = Mul(c, k)  t = Transpose<perm=[0,2,3,1]>(m)  y = Cast<to=10>(t)
}
"""
WEIGHTS = {"w": weight(4, 3, 3, 3), "k": weight(4, 1, 1, seed=1)}
# inputs with more free dimensions than the batch
SHAPES: dict[str, dict[str, tuple[int | None, ...]]] = {
    "ppocr_cls_mobilenetv3se": {"x": (None, 3, 48, 192)},
    "ppocrv4_en_rec": {"x": (None, 3, 48, 480)},
    "minilm_l6_trim_fp16stored": {"input_ids": (None, 128), "attention_mask": (None, 128)},
}


def test_all_fusions_in_order() -> None:
    model = model_from(TEXT, WEIGHTS)
    fused = fuse(model, BOTH)
    assert ops(fused) == ["Conv", "Cast", "Transpose"]
    assert [d.rule for d in fused.decisions] == ["fold_affine", "hoist_downcast"]
    assert_same_numbers(model, fused, rtol=1e-3)


def test_no_fusions_leave_the_model() -> None:
    model = model_from(TEXT, WEIGHTS)
    assert fuse(model, ()).serialized == model.serialized


def test_fusing_again_changes_nothing() -> None:
    once = fuse(model_from(TEXT, WEIGHTS), BOTH)
    twice = fuse(once, BOTH)
    assert twice.decisions == ()
    assert twice.serialized == once.serialized


def test_an_unknown_fusion_is_named() -> None:
    with pytest.raises(RecipeError, match=r"unknown fusion 'fold_afine' \(did you mean"):
        fuse(model_from(TEXT, WEIGHTS), ["fold_afine"])


def test_opset_and_ir_version_stay() -> None:
    fused = fuse(model_from(TEXT, WEIGHTS, opset=16, ir=7), BOTH)
    assert (fused.opset, fused.proto.ir_version) == (16, 7)


def test_an_input_nobody_reads_stays() -> None:
    model = model_from(
        TEXT.replace("(float[N,3,8,6] x)", "(float[N,3,8,6] x, float[5] idle)"), WEIGHTS
    )
    assert [s.name for s in fuse(model, BOTH).inputs] == ["x", "idle"]


def test_weights_listed_as_inputs_stay_weights() -> None:
    """Exporters before IR 4 list every weight among the inputs, too."""
    model = model_from(TEXT, WEIGHTS)
    for name, values in WEIGHTS.items():
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)
        model.proto.graph.input.append(value)
    fused = fuse(model, BOTH)
    assert ops(fused) == ["Conv", "Cast", "Transpose"]
    assert [s.name for s in fused.inputs] == ["x"]


def test_a_constant_that_is_an_output_and_read_keeps_its_node() -> None:
    text = """
    g (float[N,3] x) => (float[N,3] y, float k) {
        k = Constant<value_float=2.0>()  y = Mul(x, k)
    }
    """
    model = model_from(text)
    fused = fuse(model, BOTH)
    assert ops(fused) == ["Constant", "Mul"]
    assert len(fused.proto.graph.initializer) == 0
    assert_same_numbers(model, fused)


def test_empty_integer_constants_survive() -> None:
    model = model_from("g (float[1] x) => (float y) { s = Constant() y = Reshape(x, s) }")
    empty = onnx.helper.make_attribute("value_ints", [], attr_type=onnx.AttributeProto.INTS)
    model.proto.graph.node[0].attribute.append(empty)
    assert_same_numbers(model, fuse(model, BOTH))


def test_a_branch_that_reads_outer_weights_still_runs() -> None:
    text = """
    g (float[N,3] x, bool q) => (float[N,5] z) {
        z = If (q) <
            then_branch = t () => (float[N,5] u) { u = Gemm(x, w) },
            else_branch = e () => (float[N,5] v) {
                c = Constant<value_float=2.0>()  a = Mul(x, c)  v = MatMul(a, w)
            }
        >
    }
    """
    model = model_from(text, {"w": weight(3, 5)})
    assert_same_numbers(model, fuse(model, BOTH))


@pytest.mark.skipif(not MODELS.is_dir(), reason=f"{MODELS} is not there")
@pytest.mark.parametrize("name", sorted(p.stem for p in MODELS.glob("*.onnx")))
def test_real_models_compute_the_same(name: str) -> None:
    source = read(MODELS / f"{name}.onnx")
    loaded = load(source, SHAPES.get(name))
    simplified = simplify(loaded)
    # dscnn has nothing to fold
    assert [d.outcome for d in simplified.decisions] in (["applied"], ["note"])
    fused = fuse(simplified, BOTH)
    assert len(fused.proto.graph.node) <= len(loaded.proto.graph.node)
    assert [s.name for s in fused.inputs] == [s.name for s in source.inputs]
    assert [s.name for s in fused.outputs] == [s.name for s in source.outputs]
    feeds = feeds_for(loaded, batch=1)
    expected, got = run(source, feeds), run(fused, feeds)
    for output, reference in expected.items():
        error = Error()
        error.add(reference, got[output])
        assert error.max_abs <= 1e-4 * error.reference_max, output
        assert error.sqnr_db >= 90, output


def test_the_real_tolerance_rejects_a_wrong_answer() -> None:
    reference = weight(1000)
    error = Error()
    error.add(reference, reference * np.float32(1.0001))
    assert 79 < error.sqnr_db < 81
