"""Operators of another domain, plugins and functions."""

from __future__ import annotations

import onnx
import onnx.parser
import pytest
from doctor_cases import case, only, said
from helpers import model_from

from deploy.doctor.case import Case
from deploy.doctor.diagnosis import case_of
from deploy.plugin.ops import expand_plugins
from deploy.target import Target

SHUFFLE = (
    "g (float[1,6,4,5] x) => (float[1,6,4,5] y) { y = onnx_deploy.ChannelShuffle<groups=3>(x) }"
)


def test_an_operator_of_one_runtime_only() -> None:
    text = "g (float[2,6] x, float[6] b) => (float[2,6] y) { y = com.microsoft.BiasGelu(x, b) }"
    found = only("domains", case(text, "orin"))
    assert found.level == "stop"
    assert "BiasGelu of domain com.microsoft" in found.text
    assert only("domains", case(text, "cpu")).level == "warning"


def plugin_case(target: str) -> Case:
    raw = model_from(SHUFFLE)
    expanded = raw.derive(expand_plugins(raw.proto, "m"), ())
    return case_of(expanded, Target.load(target), "fp16", {}, raw.proto)


def test_a_plugin_without_a_kernel_is_written_out() -> None:
    found = only("domains", plugin_case("rtx40"))
    assert found.level == "note"
    assert found.text == (
        "plugin ChannelShuffle (1): this device has no kernel of it, so it is written out in "
        "standard operators"
    )


def test_a_plugin_with_a_kernel() -> None:
    target = Target.load("xavier")
    assert target.engine.nvidia is not None
    nvidia = target.engine.nvidia.model_copy(update={"plugins": ("channel_shuffle",)})
    engine = target.engine.model_copy(update={"nvidia": nvidia})
    raw = model_from(SHUFFLE)
    expanded = raw.derive(expand_plugins(raw.proto, "m"), ())
    made = case_of(expanded, target.model_copy(update={"engine": engine}), "fp16", {}, raw.proto)
    assert "this device may use its kernel" in only("domains", made).text


@pytest.mark.parametrize(("target", "refused"), [("xavier", True), ("orin", False)])
def test_functions_are_read_from_release_9_on(target: str, refused: bool) -> None:
    made = case("g (float[2] x) => (float[2] y) { y = Relu(x) }", target)
    made.fused.proto.functions.append(
        onnx.parser.parse_function(
            '<domain: "own", opset_import: ["" : 17]> twice (a) => (b) { b = Add(a, a) }'
        )
    )
    found = said("domains", made)
    assert bool(found) == refused
    assert all("the model's own functions (twice) are read from" in f.text for f in found)
