"""ONNX Runtime's Q/DQ: what it really turns into integer kernels, and why the rest stays float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
from dialects import dialect, optimized
from helpers import MODELS
from tiny_models import model, node, normal, ranges_of, residual, samples_of

from deploy import registry
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.calibrate import calibrate
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.metrics import sqnr_db
from deploy.placements.onnxruntime import onnxruntime
from deploy.quantize import quantize
from deploy.simplify import simplify
from deploy.surgery.graph import to_graph
from deploy.target import Target

MAP = ["N", 4, 6, 8]
FLOAT = {"Conv", "FusedConv", "Gemm", "MatMul", "Add", "Concat", "AveragePool"}


def between(
    nodes: Sequence[onnx.NodeProto], weights: Mapping[str, np.ndarray] | None = None
) -> Model:
    """A convolution from x to a, the nodes from a to b, a convolution and a softmax to y."""
    given = {"w": normal(4, 4, 1, 1, scale=0.4), "v": normal(4, 4, 1, 1, seed=1, scale=0.4)}
    ends = [
        node("Conv", ["x", "w"], ["a"], name="front"),
        *nodes,
        node("Conv", ["b", "v"], ["c"], name="back"),
        node("Softmax", ["c"], ["y"], axis=1),
    ]
    return model(ends, {"x": MAP}, {"y": ["N", 4, "H", "W"]}, {**given, **(weights or {})})


def kernels(network: Model) -> Counter[str]:
    """What runs, but for changes of layout."""
    made = quantize(network, ranges_of(network), dialect("onnxruntime"))
    return Counter(op for op in optimized(made) if op not in ("Transpose",))


def reasons(network: Model) -> dict[str, str]:
    return {d.subject: d.reason for d in onnxruntime(to_graph(network)).skipped}


ENDS = Counter(["QuantizeLinear", "QLinearConv", "QLinearConv", "DequantizeLinear", "Softmax"])


def test_is_found_by_its_name() -> None:
    assert registry.load("placement", "onnxruntime") is onnxruntime


def test_a_residual_network_runs_in_integers() -> None:
    found = kernels(residual())
    assert found["QLinearConv"] == 2 and found["QLinearAdd"] == 1 and found["QGemm"] == 1
    assert found["QLinearGlobalAveragePool"] == 1
    assert not found.keys() & (FLOAT | {"Relu"})


@pytest.mark.parametrize(
    ("op", "kernel", "attributes"),
    [
        ("Relu", None, {}),
        ("LeakyRelu", "QLinearLeakyRelu", {"alpha": 0.1}),
        ("Sigmoid", "QLinearSigmoid", {}),
        ("AveragePool", "QLinearAveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("GlobalAveragePool", "QLinearGlobalAveragePool", {}),
        ("Transpose", "", {"perm": [0, 1, 3, 2]}),
        ("DepthToSpace", "DepthToSpace", {"blocksize": 1}),
    ],
)
def test_one_operator_between_convolutions(
    op: str, kernel: str | None, attributes: dict[str, object]
) -> None:
    found = kernels(between([node(op, ["a"], ["b"], **attributes)]))
    assert found == ENDS + Counter([kernel] if kernel else [])


def test_a_max_pool_takes_integers() -> None:
    found = kernels(between([node("MaxPool", ["a"], ["b"], kernel_shape=[2, 2])]))
    assert found - Counter(["MaxPool", "NhwcMaxPool"]) == ENDS


def test_a_clip_disappears() -> None:
    bounds = {"low": np.float32(0), "high": np.float32(0.5)}
    assert kernels(between([node("Clip", ["a", "low", "high"], ["b"])], bounds)) == ENDS


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_arithmetic_of_two_maps(op: str) -> None:
    found = kernels(between([node("Sigmoid", ["a"], ["s"]), node(op, ["a", "s"], ["b"])]))
    assert found == ENDS + Counter([f"QLinear{op}", "QLinearSigmoid"])


def test_a_gate_per_channel() -> None:
    gate = [node("GlobalAveragePool", ["a"], ["s"]), node("Mul", ["a", "s"], ["b"])]
    assert kernels(between(gate))["QLinearMul"] == 1


def test_split_and_concat_with_a_relu_behind() -> None:
    found = kernels(
        between(
            [
                node("Split", ["a"], ["one", "two"], axis=1),
                node("Concat", ["two", "one"], ["j"], axis=1),
                node("Relu", ["j"], ["b"]),
            ]
        )
    )
    assert found == ENDS + Counter(["QLinearConcat", "Split"])


def test_resize_by_copies_only() -> None:
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    nearest, linear = (
        between([node("Resize", ["a", "", "scales"], ["b"], name="resize", mode=mode)], scales)
        for mode in ("nearest", "linear")
    )
    assert kernels(nearest) == ENDS + Counter(["Resize"])
    layers = [n.name for n in onnxruntime(to_graph(linear)).layers]
    assert layers == ["front", "back"]


def test_matmul_gives_floats() -> None:
    network = model(
        [
            node("MatMul", ["x", "w"], ["m"]),
            node("Gelu", ["m"], ["g"]),
            node("MatMul", ["g", "v"], ["y"]),
        ],
        {"x": ["N", 5, 4]},
        {"y": ["N", 5, 3]},
        {"w": normal(4, 6), "v": normal(6, 3)},
        opset=20,
    )
    assert kernels(network)["MatMulIntegerToFloat"] == 2


def indices() -> Model:
    """A pool whose indices are read as well."""
    return between(
        [
            node("MaxPool", ["a"], ["p", "i"], name="pool", kernel_shape=[2, 2]),
            node("Cast", ["i"], ["f"], to=1),
            node("Add", ["p", "f"], ["b"], name="sum"),
        ]
    )


class TestStaysFloat:
    def test_a_pool_with_indices(self) -> None:
        network = indices()
        found = onnxruntime(to_graph(network))
        assert {a.layer.name for a in found.activations} == {"front", "back"}
        quantize(network, ranges_of(network), dialect("onnxruntime"))

    def test_a_result_that_is_the_models(self) -> None:
        network = model(
            [node("Conv", ["x", "w"], ["y"], name="it")],
            {"x": MAP},
            {"y": MAP},
            {"w": normal(4, 4, 1, 1)},
        )
        assert reasons(network) == {"it": "its result is a model output, which stays float"}

    def test_a_result_that_the_model_gives_out_besides(self) -> None:
        network = model(
            [
                node("Conv", ["x", "w"], ["c"], name="it"),
                node("Conv", ["c", "w"], ["d"], name="behind"),
                node("Softmax", ["d"], ["y"], axis=1),
            ],
            {"x": MAP},
            {"c": MAP, "y": MAP},
            {"w": normal(4, 4, 1, 1)},
        )
        assert reasons(network) == {"it": "its result is a model output, which stays float"}

    def test_a_result_that_a_body_reads(self) -> None:
        branch = onnx.helper.make_graph(
            [node("Relu", ["c"], ["r"])],
            "branch",
            [],
            [onnx.helper.make_tensor_value_info("r", 1, MAP)],
        )
        network = model(
            [
                node("Conv", ["x", "w"], ["c"], name="it"),
                node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
            ],
            {"x": MAP, "flag": (onnx.TensorProto.BOOL, [])},
            {"y": MAP},
            {"w": normal(4, 4, 1, 1)},
        )
        assert reasons(network)["it"].startswith("its result is read inside If, Loop or Scan")

    def test_a_transposed_convolution(self) -> None:
        network = between(
            [node("ConvTranspose", ["a", "u"], ["b"], name="up")], {"u": normal(4, 4, 2, 2)}
        )
        assert reasons(network) == {"up": "ONNX Runtime has no integer ConvTranspose on the CPU"}

    def test_batched_weights(self) -> None:
        network = model(
            [node("MatMul", ["x", "w"], ["y"], name="it")],
            {"x": ["N", 3, 5, 4]},
            {"y": ["N", 3, 5, 6]},
            {"w": normal(3, 4, 6)},
        )
        assert reasons(network) == {"it": "weights of rank 3: its integer MatMul takes matrices"}

    def test_a_batch_normalization_behind(self) -> None:
        statistics = {n: np.abs(normal(4, seed=i)) for i, n in enumerate(("g", "o", "m", "s"))}
        network = between(
            [node("BatchNormalization", ["a", "g", "o", "m", "s"], ["b"])], statistics
        )
        assert "name fold_affine in the target's fusions" in reasons(network)["front"]

    @pytest.mark.parametrize(
        ("nodes", "reason"),
        [
            ([node("Mul", ["a", "k"], ["b"], name="it")], "multiplies by a constant"),
            ([node("Add", ["a", "k"], ["b"], name="it")], "adds a constant"),
        ],
    )
    def test_constants(self, nodes: list[onnx.NodeProto], reason: str) -> None:
        assert reasons(between(nodes, {"k": normal(4, 1, 1)}))["it"] == reason

    def test_arithmetic_of_floats(self) -> None:
        network = model(
            [
                node("Exp", ["x"], ["e"]),
                node("Mul", ["e", "x"], ["m"], name="it"),
                node("Conv", ["m", "w"], ["c"]),
                node("Sqrt", ["c"], ["y"]),
            ],
            {"x": MAP},
            {"y": MAP},
            {"w": normal(4, 4, 1, 1)},
        )
        assert reasons(network) == {
            "it": "no input is quantized: a QuantizeLinear for each would cost more"
        }

    def test_a_product_of_vectors(self) -> None:
        network = between(
            [
                node("Flatten", ["a"], ["f"]),
                node("Mul", ["f", "f"], ["g"], name="it"),
                node("Reshape", ["g", "shape"], ["b"]),
            ],
            {"shape": np.array([-1, 4, 6, 8])},
        )
        assert reasons(network)["it"] == "not a product of feature maps"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mobilenetv2_1.0_imagenet", {"QLinearConv": 52, "QLinearAdd": 10, "QGemm": 1}),
        ("shufflenetv1_0.5g3_cifar10", {"QLinearConv": 49, "QLinearAdd": 13, "QLinearConcat": 3}),
    ],
)
def test_real_networks_run_in_integers(name: str, wanted: dict[str, int]) -> None:
    path = MODELS / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there: the shared assets are missing")
    network = fuse(simplify(load(read(path))), Target.load("cpu").fusions)
    samples = samples_of(network, 2)
    made = quantize(network, calibrate(network, samples, "minmax"), dialect("onnxruntime"))
    found = Counter(optimized(made))
    assert {op: found[op] for op in wanted} == wanted
    assert not found.keys() & (FLOAT | {"Relu", "Clip", "DequantizeLinear"})
    assert found["QuantizeLinear"] == 1


def test_the_integers_compute_what_the_network_does() -> None:
    network = residual()
    made = quantize(network, ranges_of(network), dialect("onnxruntime"))
    (sample,) = samples_of(network, 1)
    with reference.build(network) as exact, reference.build(made) as engine:
        assert sqnr_db(exact.run(sample.feeds)["y"], engine.run(sample.feeds)["y"]) > 25
