"""What an NVIDIA device's parser gets, and what this machine judges in its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dialects import parsed
from quantized import samples_of
from tiny_models import conv, residual

from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.backends import reference
from deploy.calibrate import calibrate
from deploy.correct import correct
from deploy.errors import BuildError
from deploy.nvidia.dialect import as_judged, as_shipped, described, rest_of, simulated
from deploy.nvidia.settings import Nvidia
from deploy.on_device.calibration_cache import cache_scales
from deploy.placement import NOTHING, Exclude
from deploy.quantize import quantize
from deploy.target import EngineSettings, Quantization, Target

SYMMETRIC = {"activation_dtype": "int8", "activation_symmetric": True}
WEAK = {"versions": ("8.5.2",), "compute_capability": "7.2", "cuda": "11.4", "typing": "weak"}
STRONG = {"versions": ("11.4.0",), "compute_capability": "9.0", "cuda": "13.0", "typing": "strong"}


def device(nvidia: dict[str, Any], rest: str = "f16", **quantization: object) -> Target:
    engine = EngineSettings(
        nvidia=Nvidia.model_validate(nvidia), inference_precision={"int8": rest}, batch=1
    )
    form = Quantization.model_validate(SYMMETRIC | quantization)
    implicit = form.form == "implicit"
    update = {
        "name": "tested",
        "backend": "trt",
        "placement": "tensorrt_implicit" if implicit else "tensorrt",
        "engine": engine,
        "quantization": form,
        "quantized_fusions": (),
        "engine_fusions": (),
    }
    return Target.load("cpu").model_copy(update=update)


def calibrated(model: Model) -> Ranges:
    return calibrate(model, samples_of(model), "minmax")


class TestSimulated:
    def test_a_cache_is_judged_as_qdq_with_float_weights(self) -> None:
        target = simulated(device(WEAK, form="implicit", highest_opset=17))
        assert target.backend == "reference"
        assert (target.quantization.form, target.quantization.weight_form) == ("qdq", "fp32")
        assert target.quantization.highest_opset == 17

    def test_plugin_operators_stay_out_and_other_rewrites_stay_in(self) -> None:
        wanted = ("approximate_swish", "plugin_shuffle_depthwise")
        target = device(WEAK).model_copy(update={"engine_fusions": wanted})
        assert simulated(target).engine_fusions == ("approximate_swish",)


class TestRest:
    @pytest.mark.parametrize(
        ("hint", "wanted"), [("f16", "fp16"), ("f32", "fp32"), ("bf16", "bf16"), ("", "fp32")]
    )
    def test_what_is_not_int8_is_as_the_target_says(self, hint: str, wanted: str) -> None:
        assert rest_of(device(WEAK, hint), "int8") == wanted

    def test_a_float_engine_is_its_own_rest(self) -> None:
        assert rest_of(device(WEAK, "f16"), "bf16") == "bf16"


class TestShipped:
    def test_a_weakly_typed_compiler_gets_float32_of_its_opset_and_batch(self) -> None:
        source = residual("N")
        shipped = as_shipped(source, device(WEAK, highest_opset=16), "fp16")
        assert shipped.opset == 16
        assert shipped.inputs[0].shape == (1, 3, 6, 8)
        types = {w.data_type for w in shipped.proto.graph.initializer}
        assert types == {1}
        assert [d.reason for d in shipped.decisions] == [
            "opset 17 becomes 16, the newest the device reads"
        ]

    def test_a_dynamic_batch_stays_free(self) -> None:
        target = device(WEAK)
        engine = target.engine.model_copy(update={"batch": "dynamic"})
        shipped = as_shipped(residual("N"), target.model_copy(update={"engine": engine}), "fp32")
        assert shipped.inputs[0].shape == (None, 3, 6, 8)

    def test_a_strongly_typed_compiler_gets_the_types_written_down(self) -> None:
        shipped = as_shipped(residual(1), device(STRONG), "fp16")
        assert 10 in {w.data_type for w in shipped.proto.graph.initializer}
        assert "Cast" in {node.op_type for node in shipped.proto.graph.node}

    def test_int8_with_a_strong_compiler_has_its_rest_in_float16(self) -> None:
        exact = residual(1)
        target = device(STRONG)
        kept = Exclude(kinds={"Gemm": "the test"})
        made = quantize(exact, calibrated(exact), target, exclude=kept)
        shipped = as_shipped(made, target, "int8")
        assert 10 in {w.data_type for w in shipped.proto.graph.initializer}
        assert as_shipped(made, device(STRONG, "f32"), "int8").sha256 == made.sha256

    def test_an_operator_the_opset_lacks_is_refused_by_name(self) -> None:
        from tiny_models import model, node

        gelu = model([node("Gelu", ["x"], ["y"])], {"x": [1, 3]}, {"y": [1, 3]}, opset=20)
        with pytest.raises(BuildError, match=r"reads up to 17.*Gelu"):
            as_shipped(gelu, device(WEAK, highest_opset=17), "fp32")

    def test_bfloat16_in_an_opset_that_is_not_read_is_refused(self) -> None:
        with pytest.raises(BuildError, match=r"bf16 needs opset 22.*up to 20; build with --fp16"):
            as_shipped(residual(1), device(STRONG, highest_opset=20), "bf16")


class TestJudged:
    def test_flags_are_simulated_by_types_written_down(self) -> None:
        """A weakly typed fp16 engine gets a float32 graph; here the same is computed in 16 bits."""
        exact = residual(1)
        judged = as_judged(exact, simulated(device(WEAK)), "fp16")
        assert 10 in {w.data_type for w in judged.proto.graph.initializer}
        x = samples_of(exact)[0].feeds
        with reference.build(exact) as one, reference.build(judged) as other:
            gap = np.abs(one.run(x)["y"] - other.run(x)["y"]).max()
        assert 1e-6 < gap < 1e-2

    def test_float32_is_judged_as_it_is(self) -> None:
        exact = residual(1)
        assert as_judged(exact, simulated(device(WEAK)), "fp32").sha256 == exact.sha256


class TestDescribed:
    def test_the_cache_and_the_twin_hold_the_same_numbers_and_the_same_biases(self) -> None:
        exact = residual(1)
        samples = samples_of(exact)
        target = device(WEAK, form="implicit", highest_opset=17)
        ranges = calibrated(exact)
        twin = quantize(exact, ranges, simulated(target))
        mended = correct(twin, exact, samples, ["bias_correction"])
        found = described(mended, exact, ranges, target, NOTHING)
        scales = cache_scales(found.cache("8.5.2"))
        written = {name: affine.scale for name, affine in parsed(mended).activations.items()}
        assert set(written) == {"x", "r1", "c2", "f"}
        assert {name: scales[name] for name in written} == written
        kinds = [node.op_type for node in found.model.proto.graph.node]
        assert "QuantizeLinear" not in kinds
        # corrected biases travel with the float graph, weights stay what they were
        weights = {w.name: w for w in found.model.proto.graph.initializer}
        assert "w1" in weights
        assert {"c1/corrected_bias", "c2/corrected_bias"} <= set(weights)

    def test_bfloat16_has_no_implicit_form(self) -> None:
        exact = residual(1)
        target = device(WEAK, "bf16", form="implicit", highest_opset=17)
        ranges = calibrated(exact)
        twin = quantize(exact, ranges, simulated(target))
        with pytest.raises(BuildError, match="bf16; give f16 or f32"):
            described(twin, exact, ranges, target, NOTHING)


def test_a_target_without_tensorrt_is_not_touched() -> None:
    from deploy.build import for_compiler

    model = conv("N")
    assert for_compiler(model, Target.load("cpu"), "fp32").inputs[0].shape[0] is None
