"""The list of fused layers in TensorRT-RTX's log, read back from lines in its form."""

from __future__ import annotations

from deploy.nvidia.rtx_log import bytes_moved, layers_in


def tensor(name: str, shape: str, kind: str) -> str:
    return (
        f"{{ Name: {name}, Dimensions: [{shape}], Strides: [1,1], StrideOrder: [1,0], "
        f"Datatype: {kind}, Format: (NHWC) Channel major format }}"
    )


def line(
    name: str, kind: str, reads: list[str], writes: list[str], origin: list[str], kernel: str = "k"
) -> str:
    weights = tensor("w", "4,4,3,3", "Int4")
    metadata = "\x1f".join(f"[ONNX Layer: {o}]" for o in origin)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {', '.join(reads)}], "
        f"Constants: [ {weights}], Outputs: [ {', '.join(writes)}], TacticName: {kernel}, "
        f"StreamId: 0, Metadata: {metadata}"
    )


CONV = line(
    "/a/Conv_myl0_1",
    "correlation",
    [tensor("q", "1,4,8,8", "Int8")],
    [tensor("y", "1,4,8,8", "Float")],
    ["/a/Conv", "x/dequantized/DequantizeLinear"],
    "stub",
)
SUM = line(
    "__myl_AddRelu_2",
    "kgen",
    [tensor("q", "1,4,8,8", "Int8"), tensor("y", "1,4,8,8", "Float"), tensor("z", "4", "Float")],
    [tensor("r", "1,4,8,8", "Int8")],
    ["/a/Add", "/a/Relu", "/a/Conv"],
)
WAIT = (
    "Name: __mye8_myl0_3, LayerType: signal, Inputs: [], Constants: [], Outputs: [], "
    "TacticName: , StreamId: 0, EventId: 1, Metadata: "
)


def test_a_layer_with_its_types_kernel_and_origin() -> None:
    (layer,) = layers_in(f"Layers:\n{CONV}\n\nI/O Tensors:\n Name: input, IOMode: Input")
    assert layer.name == "/a/Conv_myl0_1"
    assert layer.kind == "correlation"
    assert layer.precision == "int8 -> fp32"  # the weights' type, Int4 here, isn't among them
    assert layer.kernel == "stub"
    assert layer.fused_from == ("/a/Conv", "x/dequantized/DequantizeLinear")


def test_each_type_once_in_order() -> None:
    (layer,) = layers_in(SUM)
    assert layer.precision == "int8+fp32 -> int8"


def test_one_type_throughout() -> None:
    row = line("c", "conv", [tensor("x", "2", "Half")], [tensor("y", "2", "Half")], [])
    (layer,) = layers_in(row)
    assert layer.precision == "fp16"
    assert layer.fused_from == ()


def test_bfloat16_and_names_with_brackets_and_commas() -> None:
    row = line(
        "f", "fusion", [tensor("x", "2", "BFloat16")], [tensor("y", "2", "Half")], ["a[0], b", "c"]
    )
    (layer,) = layers_in(row)
    assert layer.precision == "bf16 -> fp16"
    assert layer.fused_from == ("a[0], b", "c")


def test_origins_side_by_side_or_apart() -> None:
    head = CONV.split("Metadata: ")[0]
    for between in ("", "\x1f"):
        (layer,) = layers_in(f"{head}Metadata: [ONNX Layer: a]{between}[ONNX Layer: b]")
        assert layer.fused_from == ("a", "b")


def test_order_and_what_only_waits() -> None:
    assert [row.name for row in layers_in(f"{CONV}\n{WAIT}\n{SUM}")] == [
        "/a/Conv_myl0_1",
        "__myl_AddRelu_2",
    ]


def test_other_lines() -> None:
    assert list(layers_in("Adding network input: input\nName: input, IOMode: Input\n")) == []


def test_bytes_moved_counts_values_and_not_weights() -> None:
    values = 4 * 8 * 8
    assert bytes_moved(CONV) == values * (1 + 4)
    assert bytes_moved(f"{CONV}\n{SUM}") == values * (1 + 4) + values * (1 + 4 + 1) + 4 * 4


def test_a_free_dimension_counts_once() -> None:
    row = line("c", "conv", [tensor("x", "-1,6", "Half")], [tensor("y", "", "Float")], [])
    assert bytes_moved(row) == 6 * 2 + 4
