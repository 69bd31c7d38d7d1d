"""One set of ranges, every dialect: all emissions encode the same numbers, to the last bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dialects import EXPLICIT, SYMMETRIC, Numbers, dialect, numbers, parsed
from helpers import MODELS
from tiny_models import conv, model, node, normal, ranges_of, residual, samples_of

from calibrators.ranges import Affine, Range, activation_params, weight_params
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.calibrate import calibrate
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.placed import place
from deploy.placement import NOTHING
from deploy.quantize import quantize
from deploy.simplify import simplify
from deploy.target import Target


def inception() -> Model:
    """Branches of very different size that meet in a Concat, a pool, a sum and a shared weight."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], name="stem"),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1"], ["c1"], name="left"),
        node("Relu", ["c1"], ["r1"]),
        node("AveragePool", ["r0"], ["p"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="pool"),
        node("Conv", ["p", "w2"], ["c2"], name="right"),
        node("Concat", ["r1", "c2"], ["m"], axis=1, name="join"),
        node("Reshape", ["m", "groups"], ["g"]),
        node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3, 4]),
        node("Reshape", ["t", "flat"], ["s"]),
        node("Conv", ["s", "w3"], ["c3"], name="mix"),
        node("Conv", ["r1", "w1"], ["c4"], name="again"),
        node("Add", ["c3", "c4"], ["a"], name="sum"),
        node("MaxPool", ["a"], ["q"], kernel_shape=[2, 2], strides=[2, 2], name="max"),
        node("Conv", ["q", "w1"], ["c5"], name="last"),
        node("Sigmoid", ["c5"], ["y"]),
    ]
    weights = {
        "w0": normal(6, 3, 1, 1, seed=1),
        "b0": normal(6, seed=2),
        "w1": normal(6, 6, 1, 1, seed=3, scale=0.2),
        "w2": normal(6, 6, 1, 1, seed=4, scale=7),
        "w3": normal(6, 12, 1, 1, seed=5),
        "groups": np.array([0, 2, 6, 8, 6]),
        "flat": np.array([0, 12, 8, 6]),
    }
    return model(nodes, {"x": ["N", 3, 8, 6]}, {"y": ["N", 6, 4, 3]}, weights)


def ends(params: Affine) -> tuple[float, float]:
    """The lowest and highest real value that the integers mean."""
    lowest, highest = (np.asarray(q, params.zero_point.dtype) for q in (params.qmin, params.qmax))
    return float(params.dequantize(lowest)), float(params.dequantize(highest))


def ranges_in(name: str, network: Model, ranges: Ranges) -> dict[str, Range]:
    """Per tensor the range the dialect encodes: united where its rules want one scale."""
    used = {tensor: found.range for tensor, found in ranges.tensors.items()}
    for tensor, group in place(network, ranges, dialect(name), NOTHING).groups.items():
        parts = [ranges.tensors[other].range for other in group.tensors]
        used[tensor] = Range(min(p.low for p in parts), max(p.high for p in parts))
    return used


def activations(network: Model) -> dict[str, str]:
    """Per value that only a Relu or Clip behind a layer reads: its result."""
    nodes = network.proto.graph.node
    made = {name: n for n in nodes for name in n.output}
    read = [name for n in nodes for name in n.input]
    return {
        n.input[0]: n.output[0]
        for n in nodes
        if n.op_type in ("Relu", "Clip")
        and read.count(n.input[0]) == 1
        and made[n.input[0]].op_type in ("Conv", "Gemm", "Add")
    }


def check(network: Model, ranges: Ranges) -> dict[str, Numbers]:
    """The claim of this file, on one network; what every dialect wrote."""
    written = {name: numbers(name, network, ranges) for name in (*EXPLICIT, "tensorrt_implicit")}
    behind = activations(network)
    for name, found in written.items():
        form = dialect(name).quantization
        used = ranges_in(name, network, ranges)
        for written_name, params in found.activations.items():
            # inside a layer with its activation the cache has the result's scale
            tensor = (
                behind.get(written_name, written_name) if name not in EXPLICIT else written_name
            )
            exact = activation_params(
                used[tensor], form.activation_dtype, form.activation_symmetric
            )
            assert params.scale.tobytes() == exact.scale.tobytes(), (name, tensor)
            assert ends(params) == ends(exact)
            if name in SYMMETRIC:
                amax = max(-used[tensor].low, used[tensor].high)
                assert float(params.scale) == np.float32(amax / 127) or amax == 0
    weights = {name: written[name].weights for name in EXPLICIT}
    for name, found in weights.items():
        for weight in found.keys() & weights["tensorrt"].keys():
            for one, other in zip(found[weight], weights["tensorrt"][weight], strict=True):
                assert one.dtype == other.dtype and np.array_equal(one, other), (name, weight)
    return written


def matrices() -> Model:
    """Gemm in both orders, MatMul, and weights of no single axis."""
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["g"], name="gemm"),
        node("Relu", ["g"], ["r"]),
        node("Gemm", ["r", "w2"], ["h"], name="transposed", transB=1),
        node("MatMul", ["h", "w3"], ["y"], name="matmul"),
    ]
    weights = {"w1": normal(4, 7), "b1": normal(7), "w2": normal(5, 7), "w3": normal(5, 3)}
    return model(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, weights)


NETWORKS: dict[str, Callable[[], Model]] = {
    "residual": residual,
    "inception": inception,
    "matrices": matrices,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_dialect_encodes_the_same_numbers(name: str) -> None:
    network = NETWORKS[name]()
    written = check(network, ranges_of(network))
    assert written["tensorrt"].activations.keys() == written["tensorrt_8_5"].activations.keys()
    assert all(found.activations for found in written.values())
    assert len({len(written[explicit].weights) for explicit in EXPLICIT}) == 1


def test_symmetric_and_asymmetric_cover_the_same_range() -> None:
    network = residual()
    ranges = ranges_of(network)
    written = {name: numbers(name, network, ranges) for name in ("openvino", "tensorrt")}
    for tensor in written["tensorrt"].activations:
        low, high = ends(written["openvino"].activations[tensor])
        amax = 127 * float(written["tensorrt"].activations[tensor].scale)
        step = float(written["openvino"].activations[tensor].scale)
        assert max(-low, high) == pytest.approx(amax, abs=step)


def test_the_cache_holds_the_scales_of_the_graph() -> None:
    network = conv()
    ranges = ranges_of(network)
    cache = numbers("tensorrt_implicit", network, ranges).activations
    graph = numbers("tensorrt", network, ranges).activations
    assert graph.keys() == {"x"} and cache.keys() == {"x", "y"}
    assert cache["x"].scale.tobytes() == graph["x"].scale.tobytes()


def test_a_changed_bit_is_noticed() -> None:
    network = residual()
    ranges = ranges_of(network)
    found = ranges.tensors["r1"]
    nudged = Range(found.range.low, float(np.nextafter(np.float32(found.range.high), np.inf)))
    changed = {**ranges.tensors, "r1": type(found)(nudged, found.seen, found.picture)}
    for name in EXPLICIT:
        one = numbers(name, network, ranges).activations["r1"]
        other = numbers(name, network, Ranges(changed, ranges.source)).activations["r1"]
        assert one.scale.tobytes() != other.scale.tobytes()


@pytest.mark.parametrize("bits", [8, 7, 4])
@pytest.mark.parametrize("seed", range(3))
def test_fp32_weights_fold_to_the_stored_integers(bits: int, seed: int) -> None:
    sizes = np.logspace(-30, 3, 64).astype("f4").reshape(64, 1, 1, 1)
    weights = normal(64, 5, 3, 3, seed=seed) * sizes
    weights[7] = 0
    # halves of a step round to even in both
    weights[9] = np.linspace(-127, 127, 45).reshape(5, 3, 3) * np.float32(0.5)
    network = model(
        [node("Conv", ["x", "w"], ["c"]), node("Relu", ["c"], ["y"])],
        {"x": ["N", 5, 5, 7]},
        {"y": ["N", 64, 3, 5]},
        {"w": weights},
    )
    ranges = ranges_of(network, 2)
    stored, folded = (
        parsed(quantize(network, ranges, dialect(name, weight_bits=bits))).weights["w"]
        for name in ("tensorrt", "tensorrt_8_5")
    )
    exact = weight_params(weights, 0, bits)
    assert np.array_equal(stored[0], exact.quantize(weights))
    assert np.array_equal(stored[0], folded[0]) and stored[1].tobytes() == folded[1].tobytes()


@pytest.mark.parametrize("name", [*EXPLICIT, "tensorrt_implicit"])
def test_a_target_file_says_it(name: str, tmp_path: Path) -> None:
    wanted = dialect(name)
    form = wanted.quantization.model_dump(exclude_none=True)
    lines = [
        'extends = "cpu"',
        f'placement = "{wanted.placement}"',
        "quantized_fusions = []",
        "[quantization]",
        *(f"{key} = {json.dumps(value)}" for key, value in form.items()),
    ]
    (tmp_path / "device.toml").write_text("\n".join(lines))
    target = Target.load(str(tmp_path / "device.toml"))
    assert target.quantization == wanted.quantization
    assert target.placement == wanted.placement


REAL = {"mobilenetv2_1.0_imagenet": 53, "shufflenetv1_0.5g3_cifar10": 50}


@pytest.mark.parametrize("name", REAL)
def test_real_networks(name: str) -> None:
    path = MODELS / f"{name}.onnx"
    if not path.is_file():
        pytest.skip(f"{path} is not there: the shared assets are missing")
    network = fuse(simplify(load(read(path))), Target.load("cpu").fusions)
    written = check(network, calibrate(network, samples_of(network, 2), "minmax"))
    for dialect_ in EXPLICIT:
        assert len(written[dialect_].weights) == REAL[name]
    assert len(written["tensorrt_implicit"].activations) > REAL[name]
