"""Every limit of the DLA, beside a layer that is just inside it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from, weight

from deploy.doctor.dla_limits import is_layer, why_not_dla
from deploy.surgery.graph import to_graph

Weights = dict[str, np.ndarray]


def why(text: str, weights: Weights | None = None, *, generation: int = 2, each: int = 1) -> str:
    """The reason for the node that gives `y`; empty where the DLA takes it."""
    graph = to_graph(model_from(text, weights))
    (node,) = (n for n in graph.nodes if n.outputs[0].name == "y")
    return why_not_dla(node, generation, each) or ""


def conv(attributes: str, *shape: int, x: str = "1,4,40,36", op: str = "Conv") -> str:
    text = f"g (float[{x}] x) => (float[a,b,c,d] y) {{ y = {op}{attributes}(x, w) }}"
    return why(text, {"w": weight(*shape)})


@pytest.mark.parametrize(
    ("attributes", "shape", "reason"),
    [
        ("", (8, 4, 32, 32), ""),
        ("", (8, 4, 33, 3), "kernel 33; the DLA takes 1 to 32"),
        ("<strides=[8,8]>", (8, 4, 3, 3), ""),
        ("<strides=[9,1]>", (8, 4, 3, 3), "stride 9; the DLA takes 1 to 8"),
        ("<dilations=[1,16]>", (8, 4, 3, 3), ""),
        ("<dilations=[33,1], pads=[31,0,31,0]>", (8, 4, 32, 1), "dilation 33"),
        ("<pads=[1,1,1,1]>", (8, 4, 3, 3), ""),
        ("<pads=[3,1,3,1]>", (8, 4, 3, 3), "padding 3 isn't smaller than the kernel"),
        ("<group=4>", (8, 1, 3, 3), ""),
        ("", (8193, 4, 1, 1), "a dimension of 8193; the DLA takes up to 8192"),
    ],
)
def test_convolution(attributes: str, shape: tuple[int, ...], reason: str) -> None:
    found = conv(attributes, *shape)
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_convolution_in_one_dimension_or_with_computed_weights() -> None:
    text = "g (float[1,4,40] x) => (float[a,b,c] y) { y = Conv(x, w) }"
    assert "1 spatial dimensions" in why(text, {"w": weight(8, 4, 3)})
    text = "g (float[1,4,8,6] x, float[8,4,3,3] w) => (float[a,b,c,d] y) { y = Conv(x, w) }"
    assert "its weights are computed at run time" in why(text)


@pytest.mark.parametrize(
    ("kernel", "each", "banks"),
    # banks: ceil(512 x k^2 x bytes / 32768) + ceil(16 x bytes x 56 / 4 x k / 256)
    [(7, 1, 0), (11, 1, 0), (11, 2, 24), (15, 1, 18)],
)
def test_the_convolution_buffer(kernel: int, each: int, banks: int) -> None:
    text = "g (float[1,512,56,56] x) => (float[a,b,c,d] y) { y = Conv(x, w) }"
    found = why(text, {"w": weight(8, 512, kernel, kernel)}, each=each)
    assert bool(found) == bool(banks)
    assert not banks or f"take {banks} banks of the convolution buffer's 16" in found


@pytest.mark.parametrize(
    ("attributes", "shape", "reason"),
    [
        ("<strides=[2,2]>", (4, 8, 2, 2), ""),
        ("<pads=[1,1,1,1]>", (4, 8, 3, 3), "a padded deconvolution"),
        ("<group=2>", (4, 8, 2, 2), "a grouped deconvolution"),
        ("<dilations=[2,2]>", (4, 8, 2, 2), "dilation 2"),
        ("", (4, 8, 33, 2), "kernel 33"),
    ],
)
def test_deconvolution(attributes: str, shape: tuple[int, ...], reason: str) -> None:
    found = conv(attributes, *shape, op="ConvTranspose")
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("attributes", "generation", "reason"),
    [
        ("kernel_shape=[8,8]", 1, ""),
        ("kernel_shape=[9,2]", 1, "window 9; the DLA takes 1 to 8"),
        ("kernel_shape=[2,2], strides=[17,1]", 1, "stride 17; the DLA takes 1 to 16"),
        ("kernel_shape=[3,3], pads=[1,1,1,1]", 1, "counts the padding into an average"),
        ("kernel_shape=[3,3], pads=[1,1,1,1]", 2, ""),
        ("kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1", 1, ""),
    ],
)
def test_average_pool(attributes: str, generation: int, reason: str) -> None:
    text = f"g (float[1,4,40,36] x) => (float[a,b,c,d] y) {{ y = AveragePool<{attributes}>(x) }}"
    found = why(text, generation=generation)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(("size", "advice"), [(7, True), (9, False)])
def test_a_global_average_says_what_would_run(size: int, advice: bool) -> None:
    text = f"g (float[1,4,{size},7] x) => (float[1,4,1,1] y) {{ y = GlobalAveragePool(x) }}"
    assert ("as an AveragePool of 7x7 it would run there" in why(text)) == advice


ONE = "g (float[1,4,8,6] x) => (float[a,b,c,d] y)"
TWO = "g (float[1,4,8,6] x, float[1,4,8,6] z) => (float[a,b,c,d] y)"


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (f"{ONE} {{ y = Relu(x) }}", {}, ""),
        (f"{ONE} {{ y = Erf(x) }}", {}, "the DLA has no Erf"),
        (f"{TWO} {{ y = Add(x, z) }}", {}, ""),
        (f"{TWO} {{ y = Div(x, z) }}", {}, "the DLA has no Div"),
        (
            "g (float[1,4,8,6] x, float[1,4,1,1] z) => (float[a,b,c,d] y) { y = Mul(x, z) }",
            {},
            "broadcasts 1x4x1x1 over 1x4x8x6",
        ),
        (f"{ONE} {{ y = Mul(x, w) }}", {"w": weight(1)}, ""),
        (f"{ONE} {{ y = Add(x, w) }}", {"w": weight(4, 1, 1)}, ""),
        (f"{ONE} {{ y = Add(x, w) }}", {"w": weight(6)}, "its constant isn't per channel"),
        (f"{TWO} {{ y = Concat<axis=1>(x, z) }}", {}, ""),
        (f"{TWO} {{ y = Concat<axis=2>(x, z) }}", {}, "joins axis 2; the DLA joins channels"),
        (f"{ONE} {{ y = Transpose<perm=[0,2,3,1]>(x) }}", {}, ""),
        (f"{ONE} {{ y = Transpose<perm=[1,0,2,3]>(x) }}", {}, "moves the batch"),
        (
            "g (float[1,4,8,6] x) => (float[a,b,c,d,e] y) { y = Reshape(x, s) }",
            {"s": np.asarray([1, 2, 2, 8, 6], np.int64)},
            "its values have 5 dimensions",
        ),
        (
            f"{ONE} {{ y = Reshape(x, s) }}",
            {"s": np.asarray([4, 1, 8, 6], np.int64)},
            "moves the batch",
        ),
        ("g (float[1,4,1,1] x) => (float[1,4] y) { y = Flatten(x) }", {}, ""),
        ("g (float[4097,4,1,1] x) => (float[4097,4,1,1] y) { y = Relu(x) }", {}, "a batch of 4097"),
        (
            "g (float[1,6] x) => (float[1,5] y) { y = Gemm(x, w) }",
            {"w": weight(6, 5)},
            "",
        ),
        (
            "g (float[1,6] x, float[6,5] w) => (float[1,5] y) { y = MatMul(x, w) }",
            {},
            "both inputs are computed at run time",
        ),
    ],
)
def test_other_layers(text: str, weights: Weights, reason: str) -> None:
    found = why(text, weights)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("low", "high", "reason"),
    [(0, 6, ""), (0, 128, "clipped to 0 to 128"), (-1, 6, "clipped to -1"), (0, 0.5, "0 to 0.5")],
)
def test_clip(low: float, high: float, reason: str) -> None:
    bounds = {"l": np.asarray(low, np.float32), "h": np.asarray(high, np.float32)}
    found = why(f"{ONE} {{ y = Clip(x, l, h) }}", bounds)
    assert reason in found
    assert bool(found) == bool(reason)


def test_clip_on_one_side() -> None:
    bounds = {"l": np.asarray(0, np.float32)}
    assert "clipped on one side" in why(f"{ONE} {{ y = Clip(x, l) }}", bounds)


@pytest.mark.parametrize(
    ("shape", "axis", "generation", "reason"),
    [
        ("1,8192,1,1", 1, 2, ""),
        ("1,1024,2,1", 1, 2, ""),
        ("1,1025,2,1", 1, 2, "softmax over 1025; the DLA takes 1 to 1024"),
        ("1,10,1,1", 1, 1, "Xavier's DLA has no softmax"),
        ("1,10,1,1", 0, 2, "over the batch"),
    ],
)
def test_softmax(shape: str, axis: int, generation: int, reason: str) -> None:
    text = f"g (float[{shape}] x) => (float[{shape}] y) {{ y = Softmax<axis={axis}>(x) }}"
    found = why(text, generation=generation)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("starts", "axes", "steps", "reason"),
    [
        ([1], [2], [1], ""),
        ([1], [2], [2], "slices in steps"),
        ([0], [0], [1], "slices the batch"),
    ],
)
def test_slice(starts: list[int], axes: list[int], steps: list[int], reason: str) -> None:
    made = {
        name: np.asarray(value, np.int64)
        for name, value in {"s": starts, "e": [5], "a": axes, "t": steps}.items()
    }
    found = why(f"{ONE} {{ y = Slice(x, s, e, a, t) }}", made)
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize(
    ("mode", "factors", "reason"),
    [
        ("nearest", [32, 2], ""),
        ("linear", [4, 4], ""),
        ("linear", [5, 5], "by 5 x 5; the DLA takes whole factors up to 4"),
        ("nearest", [1.5, 2], "by 1.5 x 2"),
    ],
)
def test_resize(mode: str, factors: list[float], reason: str) -> None:
    scales = {"s": np.asarray([1, 1, *factors], np.float32)}
    found = why(f'{ONE} {{ y = Resize<mode="{mode}">(x, , s) }}', scales)
    assert reason in found
    assert bool(found) == bool(reason)


def test_what_is_no_layer() -> None:
    text = "g (float[1,4,8,6] x) => (float[1,4,8,6] y, int64[4] s) { y = Identity(x) s = Shape(x) }"
    assert not any(is_layer(node) for node in to_graph(model_from(text)).nodes)
    (relu,) = to_graph(model_from(f"{ONE} {{ y = Relu(x) }}")).nodes
    assert is_layer(relu)
