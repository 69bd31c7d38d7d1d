"""What the vendor's list says of each layer of the graph, and the reason for each exception."""

from __future__ import annotations

from dialects import dialect
from tiny_models import model, node, normal, ranges_of, residual

from deploy.analysis.vendor_layers import VendorLayer, in_words, refused, vendor_layers
from deploy.artifacts.engine import Layer
from deploy.artifacts.model import Model
from deploy.placement import Exclude
from deploy.quantize import quantize


def shipped(network: Model, **exclude: dict[str, str]) -> Model:
    target = dialect("tensorrt")
    return quantize(network, ranges_of(network), target, exclude=Exclude(**exclude))


def layer(kind: str, precision: str, *origin: str) -> Layer:
    return Layer(f"{kind} of {origin[0]}", kind, precision, "kernel", origin)


ALL_INT8 = [
    layer("kgen", "fp32 -> int8", "x/quantized/QuantizeLinear", "conv1"),
    layer("correlation", "int8 -> fp32", "conv1"),
    layer("kgen", "fp32 -> int8", "conv1", "relu1"),
    layer("correlation", "int8 -> fp32", "conv2"),
    layer("kgen", "int8+fp32 -> fp32", "conv2", "add", "relu2", "pool"),
    layer("gemm", "int8 -> fp32", "head"),
]


def by_name(rows: list[VendorLayer]) -> dict[str, VendorLayer]:
    return {row.layer: row for row in rows}


def test_every_layer_reads_int8() -> None:
    rows = vendor_layers(ALL_INT8, shipped(residual()))
    assert [row.layer for row in rows] == ["conv1", "conv2", "head"]
    assert all(row.asked and row.int8 and row.reason == "" for row in rows)
    # the layer that multiplies, not those that quantize in front and activate behind
    assert rows[0].kernel == "correlation of conv1"
    assert refused(rows) == []
    assert in_words(rows) == "3 of 3 layers with weights read INT8"


def test_one_that_the_compiler_computes_in_float() -> None:
    layers = [
        layer("correlation", "fp32", "conv2") if "conv2" in one.fused_from else one
        for one in ALL_INT8
    ]
    rows = vendor_layers(layers, shipped(residual()))
    (row,) = refused(rows)
    assert row.layer == "conv2"
    assert row.reason == "the compiler chose fp32 (correlation) although the graph asks for 8 bits"
    assert in_words(rows) == f"2 of 3 layers with weights read INT8; conv2: {row.reason}"


def test_one_that_stays_float_by_decision() -> None:
    layers = [
        layer("gemm", "fp16", "head") if "head" in one.fused_from else one for one in ALL_INT8
    ]
    rows = vendor_layers(layers, shipped(residual(), layers={"head": "it is the noisiest"}))
    row = by_name(rows)["head"]
    assert (row.asked, row.int8, row.precision) == (False, False, "fp16")
    assert row.reason.startswith("stays float: ")
    assert "it is the noisiest" in row.reason
    assert refused(rows) == []


def test_reasons_from_elsewhere() -> None:
    rows = vendor_layers(ALL_INT8, residual(), {"head": "it read the noise"})
    assert by_name(rows)["head"].asked is False
    floats = vendor_layers([layer("gemm", "fp32", "head")], residual(), {"head": "it is noisy"})
    assert by_name(floats)["head"].reason == "stays float: it is noisy"


def test_one_without_a_decision() -> None:
    network = residual()
    rows = vendor_layers([layer("gemm", "fp32", "head")], network)
    reason = "stays float: the placement has no Q/DQ in front of it"
    assert by_name(rows)["head"].reason == reason


def test_one_that_the_list_does_not_name() -> None:
    rows = vendor_layers(ALL_INT8[:-1], shipped(residual()))
    assert by_name(rows)["head"].reason == "the compiler's list doesn't name it"
    assert [row.layer for row in refused(rows)] == ["head"]


def test_one_within_a_generated_kernel() -> None:
    layers = [*ALL_INT8[:-1], layer("kgen", "fp32", "pool", "head")]
    assert by_name(vendor_layers(layers, shipped(residual())))["head"].kernel == "kgen of pool"


def test_a_layer_without_a_name() -> None:
    network = model(
        [node("Conv", ["x", "w"], ["y"])],
        {"x": [1, 3, 5, 7]},
        {"y": [1, 4, 3, 5]},
        {"w": normal(4, 3, 3, 3)},
    )
    (row,) = vendor_layers([layer("correlation", "int8", "node_of_y")], shipped(network))
    assert row.layer == "Conv -> y"
    assert row.int8


def test_a_type_that_only_begins_like_int8_or_comes_second() -> None:
    network = shipped(residual())
    for precision in ("fp32+int8 -> fp32", "fp32 -> int8", "int84", ""):
        assert not vendor_layers([layer("conv", precision, "conv1")], network)[0].int8, precision


def test_other_vendors_words() -> None:
    network = shipped(residual())
    for precision in ("Int8", "INT8 (linear)", "u8", "i8"):
        assert vendor_layers([layer("conv", precision, "conv1")], network)[0].int8, precision


def test_many_exceptions_are_counted() -> None:
    rows = vendor_layers([], shipped(residual()))
    assert in_words(rows, most=1).endswith("; and 2 more")
