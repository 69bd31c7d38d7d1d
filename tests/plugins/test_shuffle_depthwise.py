"""ShuffleDepthwise: the CUDA kernels, run on the CPU, give what the NumPy truth gives."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_kernels import PLUGINS, call, compile_kernels, shuffle_depthwise_params

from deploy import registry

op = registry.module("plugin", "shuffle_depthwise")

# input shape, kernel, attributes: odd sizes, H != W, groups from 1 to C, C != groups^2
Case = tuple[tuple[int, int, int, int], int, dict[str, Any]]
CASES: list[Case] = [
    ((1, 6, 7, 11), 3, {"groups": 3, "pads": (1, 1, 1, 1)}),
    ((2, 10, 9, 14), 3, {"groups": 5, "pads": (1, 1, 1, 1), "strides": (2, 2)}),
    ((2, 12, 13, 8), 5, {"groups": 4, "pads": (2, 2, 2, 2)}),
    ((1, 15, 11, 17), 5, {"groups": 3, "pads": (2, 2, 2, 2), "strides": (2, 2)}),
    ((3, 7, 5, 3), 3, {"groups": 7, "pads": (0, 0, 0, 0)}),
    ((1, 7, 3, 5), 3, {"groups": 1, "pads": (1, 0, 0, 1)}),
    ((2, 9, 1, 1), 3, {"groups": 3, "pads": (1, 1, 1, 1)}),
    ((2, 6, 2, 19), 5, {"groups": 2, "pads": (2, 0, 1, 2)}),
    ((1, 24, 6, 10), 3, {"groups": 8, "pads": (0, 1, 1, 0), "strides": (2, 2)}),
    ((5, 58, 7, 7), 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
    ((1, 4, 33, 64), 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
    ((1, 2, 40, 37), 5, {"groups": 2, "pads": (2, 1, 2, 1), "strides": (2, 2)}),
    ((1, 2, 70, 131), 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
    ((1, 2, 31, 512), 5, {"groups": 1, "pads": (2, 2, 2, 2)}),
    ((1, 3, 4, 6100), 3, {"groups": 3, "pads": (1, 1, 1, 1)}),
    ((1, 3, 6, 6101), 5, {"groups": 3, "pads": (2, 2, 2, 2), "strides": (2, 2)}),
    ((1, 6, 57, 57), 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
    ((3, 6, 28, 30), 5, {"groups": 3, "pads": (2, 2, 2, 2)}),
    ((1, 2, 30, 59), 3, {"groups": 1, "pads": (0, 0, 1, 1), "strides": (2, 2)}),
    # a part of a strip is all that shared memory takes
    ((1, 2, 9, 1300), 3, {"groups": 2, "pads": (1, 1, 1, 1)}),
    ((1, 2, 11, 2001), 5, {"groups": 1, "pads": (2, 2, 2, 2), "strides": (2, 2)}),
    # a band of two, and short segments
    ((1, 2, 90, 258), 5, {"groups": 2, "pads": (2, 2, 2, 2)}),
    ((2, 3, 14, 14), 5, {"groups": 3, "pads": (2, 2, 2, 2)}),
]
# so many maps that a block takes several images, and the last block one of them twice, when few
# blocks are enough
SEVERAL_IMAGES: Case = ((9, 56, 3, 4), 3, {"groups": 4, "pads": (1, 1, 1, 1)})
FEW_BLOCKS = "-DSHUFFLE_DEPTHWISE_ENOUGH_BLOCKS=1"
ALL_TENSOR = "-DSHUFFLE_DEPTHWISE_TENSOR=2"
FORMS = ["float32", "float16", "int8", "int8 from float w", "int8, scales from max"]


@pytest.fixture(scope="module", params=[720, 900])
def launch(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernels of a GPU without and with the tensor cores that they use."""
    folder = tmp_path_factory.mktemp("shuffle_depthwise")
    options = [f"-DCUDA_ON_CPU_ARCH={request.param}", ALL_TENSOR]
    library = compile_kernels("shuffle_depthwise", folder, options=options)
    return library.launch_shuffle_depthwise


def arrays(case: Case, form: str, seed: int) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """The op's inputs and attributes for a case, activations of every size a type holds."""
    shape, kernel, attributes = case
    rng = np.random.default_rng(seed)
    wanted = np.dtype("int8" if form.startswith("int8") else form)
    w = rng.standard_normal((shape[1], 1, kernel, kernel)).astype(np.float32)
    w *= 2.0 ** rng.integers(-3, 3, (shape[1], 1, 1, 1))
    bias = rng.standard_normal(shape[1]).astype(np.float32) if seed % 2 else None
    attributes = {**attributes, "activation": "Relu" if seed % 3 else ""}
    if wanted != np.int8:
        x = rng.standard_normal(shape)
        bias = None if bias is None else bias.astype(wanted)
        return [x.astype(wanted), w.astype(wanted), bias], attributes
    w_scale = (np.abs(w).max((1, 2, 3)) / np.float32(127)).astype(np.float32)
    if form != FORMS[-1]:
        w_scale *= np.float32(0.9)  # the largest weights saturate
    x = rng.integers(-128, 128, shape).astype(np.int8)
    attributes |= {"x_scale": 0.02, "y_scale": 0.0625 if form == "int8" else 0.031}
    return [x, w, bias, w_scale], attributes


def on_cpu(
    launch: Any, form: str, inputs: list[np.ndarray | None], attributes: dict[str, Any], **how: int
) -> np.ndarray:
    """What the kernels compute for these inputs, given in the way the form says."""
    x, w, bias, *rest = inputs
    assert x is not None and w is not None
    w_scale = rest[0] if rest else None
    shape = op.infer_shape(
        x.shape, w.shape, **{k: v for k, v in attributes.items() if "_" not in k}
    )
    if form == "int8" and w_scale is not None:
        w = np.clip(np.rint(w / w_scale[:, None, None, None]), -128, 127).astype(np.int8)
    if form == FORMS[-1]:
        w_scale = None
    params = shuffle_depthwise_params(x, w, attributes)
    return call(launch, params, [x, w, bias, w_scale], shape, **how)


def assert_equal(
    got: np.ndarray, inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    """As close as the type allows: half a step of float32 sums and of the stored type; in int8 the
    same integer, but for values that lie at the middle between two to float32's precision."""
    wanted = op.run(*inputs, **attributes)
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    x, w, bias, *rest = (None if a is None else a.astype(np.float64) for a in inputs)
    if got.dtype == np.int8:
        exact = exact_steps(inputs, attributes)
        tied = np.abs(np.abs(exact - np.floor(exact)) - 0.5) < 1e-5 * np.maximum(1, np.abs(exact))
        np.testing.assert_array_equal(got[~tied], wanted[~tied])
        assert np.abs(got.astype(int) - wanted).max(initial=0) <= 1
        return
    assert x is not None and w is not None
    plain = {k: v for k, v in attributes.items() if k != "activation"}
    size = op.run(np.abs(x), np.abs(w), None if bias is None else np.abs(bias), *rest, **plain)
    bound = size * w[0].size * 2.0**-24
    if got.dtype == np.float16:
        bound = bound + np.abs(wanted.astype(np.float64)) * 2.0**-10 + 2.0**-24
    assert (np.abs(got.astype(np.float64) - wanted) <= bound).all()


def exact_steps(inputs: list[np.ndarray | None], attributes: dict[str, Any]) -> np.ndarray:
    """y in steps of y_scale before it is rounded; by the float form on the int8 form's numbers."""
    x, w, bias, w_scale = inputs
    assert x is not None and w is not None and w_scale is not None
    scale = w_scale.astype(np.float64)[:, None, None, None]
    weights = np.clip(np.rint(w / w_scale[:, None, None, None]), -128, 127) * scale
    plain = {k: v for k, v in attributes.items() if not k.endswith("_scale")}
    real = np.float64(np.float32(attributes["x_scale"])) * x
    return op.run(real, weights, bias, **plain) / np.float64(np.float32(attributes["y_scale"]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", range(len(CASES)))
def test_kernel_is_the_numpy_truth(launch: Any, at: int, form: str) -> None:
    inputs, attributes = arrays(CASES[at], form, seed=at)
    assert_equal(on_cpu(launch, form, inputs, attributes), inputs, attributes)


@pytest.mark.parametrize("form", FORMS)
def test_any_shape(launch: Any, form: str) -> None:
    rng = np.random.default_rng(11)
    for seed in range(40):
        channels, kernel = int(rng.integers(1, 20)), int(rng.choice([3, 5]))
        groups = int(rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        pads = tuple(int(pad) for pad in rng.integers(0, kernel // 2 + 1, 4))
        height, width = (int(size) for size in rng.integers(kernel, 30, 2))
        stride = int(rng.integers(1, 3))
        shape = (int(rng.integers(1, 4)), channels, height, width)
        case = (shape, kernel, {"groups": groups, "pads": pads, "strides": (stride, stride)})
        inputs, attributes = arrays(case, form, seed)
        assert_equal(on_cpu(launch, form, inputs, attributes), inputs, attributes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [1, 9, 10, 11, 12, 16, 17, 18, 19])
def test_arrays_at_any_address_and_threads_in_any_order(
    launch: Any, at: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_ON_CPU_REVERSED", "1")
    inputs, attributes = arrays(CASES[at], form, seed=at)
    for offset in (1, 2, 3, 4, 8):
        got = on_cpu(launch, form, inputs, attributes, offset=offset)
        assert_equal(got, inputs, attributes)


@pytest.mark.parametrize("chip", [720, 900])
@pytest.mark.parametrize("form", FORMS)
def test_several_images_of_a_block(form: str, chip: int, tmp_path: Path) -> None:
    options = [FEW_BLOCKS, ALL_TENSOR, f"-DCUDA_ON_CPU_ARCH={chip}"]
    library = compile_kernels("shuffle_depthwise", tmp_path, options=options)
    inputs, attributes = arrays(SEVERAL_IMAGES, form, seed=1)
    got = on_cpu(library.launch_shuffle_depthwise, form, inputs, attributes)
    assert_equal(got, inputs, attributes)


@pytest.mark.parametrize(
    ("file", "barrier", "reversed_", "form", "case"),
    [
        ("kernel.cuh", 0, "", "float32", CASES[12]),
        ("kernel.cuh", 0, "1", "float32", CASES[12]),
        ("kernel.cuh", 1, "", "float32", SEVERAL_IMAGES),  # the next image comes too early
        ("tile_steps.cuh", 0, "1", "int8", CASES[12]),
        ("tile_steps.cuh", 1, "", "int8", CASES[12]),
        ("tile_steps.cuh", 1, "", "float16", SEVERAL_IMAGES),
    ],
)
def test_missing_barrier_shows(
    file: str,
    barrier: int,
    reversed_: str,
    form: str,
    case: Case,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = shutil.copytree(PLUGINS / "shuffle_depthwise", tmp_path / "source")
    parts = re.split(r"\n *__syncthreads\(\);\n", (source / file).read_text())
    assert len(parts) == 3
    parts[barrier : barrier + 2] = ["\n".join(parts[barrier : barrier + 2])]
    (source / file).write_text("\n__syncthreads();\n".join(parts))
    library = compile_kernels("shuffle_depthwise", tmp_path, source, [FEW_BLOCKS, ALL_TENSOR])
    launch = library.launch_shuffle_depthwise
    if reversed_:
        monkeypatch.setenv("CUDA_ON_CPU_REVERSED", reversed_)
    inputs, attributes = arrays(case, form, seed=1)
    with pytest.raises(AssertionError):
        assert_equal(on_cpu(launch, form, inputs, attributes), inputs, attributes)


@pytest.mark.parametrize("form", FORMS)
def test_wrong_answers_are_rejected(launch: Any, form: str) -> None:
    inputs, attributes = arrays(CASES[0], form, seed=1)
    got = on_cpu(launch, form, inputs, attributes)
    assert_equal(got, inputs, attributes)

    with pytest.raises(AssertionError):
        assert_equal(got, inputs, {**attributes, "groups": 2})
    bumped = got.copy()
    place = np.unravel_index(np.argmax(np.abs(got.astype(np.float64))), got.shape)
    bumped[place] = got[place] - 1 if got.dtype == np.int8 else got[place] * got.dtype.type(1.002)
    with pytest.raises(AssertionError):
        assert_equal(bumped, inputs, attributes)


@pytest.mark.parametrize(
    "change",
    [
        {"type": 3},
        {"weight_type": 1},
        {"batch": 0},
        {"groups": 4},
        {"groups": 0},
        {"kernel": 7},
        {"stride": 3},
        {"pad_left": 2},
        {"pad_top": -1},
        {"height": 0},
        {"type": 2, "x_scale": 0.0},
        {"type": 2, "weight_type": 2, "x_scale": 1.0, "y_scale": 1.0},
    ],
)
def test_launcher_refuses(launch: Any, change: dict[str, Any]) -> None:
    inputs, attributes = arrays(CASES[0], "float32", seed=1)
    x, w, bias = inputs
    assert x is not None and w is not None
    params = shuffle_depthwise_params(x, w, attributes)
    for name, value in change.items():
        setattr(params, name, value)
    with pytest.raises(RuntimeError, match="returned -1"):
        call(launch, params, [x, w, bias, None], x.shape)


@pytest.mark.parametrize(
    ("shapes", "attributes", "reason"),
    [
        (((1, 6, 5, 5), (6, 1, 3, 3)), {"groups": 4}, "groups = 4 doesn't divide 6 channels"),
        (((1, 6, 5, 5), (6, 1, 7, 7)), {}, r"w is \[6, 1, 7, 7\]"),
        (((1, 6, 5, 5), (6, 1, 3, 3), (5,)), {}, r"bias is \[5\]; it has to be \[6\]"),
        (((1, 6, 5, 5), (6, 1, 3, 3)), {"strides": (1, 2)}, r"strides = \[1, 2\]"),
        (((1, 6, 5, 5), (6, 1, 3, 3)), {"pads": (2, 0, 0, 0)}, r"pads = \[2, 0, 0, 0\]"),
        (((1, 6, 5, 5), (6, 1, 3, 3)), {"activation": "Tanh"}, "activation = 'Tanh'"),
        (((1, 6, 2, 5), (6, 1, 3, 3)), {}, "smaller than the kernel"),
        (((1, 6, 5), (6, 1, 3, 3)), {}, "x has 3 and w 4 dimensions"),
        (((1, 6, 5, 5), (6, 1, 3, 3)), {"x_scale": 0.1, "y_scale": 0.1}, "w_scale is left out"),
    ],
)
def test_op_refuses(
    shapes: tuple[tuple[int, ...], ...], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        op.infer_shape(*shapes, **attributes)


def test_truth_by_hand() -> None:
    # two channels swap nothing in two groups of one; the window sums its 3x3 neighbours
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 2, 3)
    w = np.ones((4, 1, 3, 3), np.float32)
    y = op.run(x, w, groups=2, pads=(1, 1, 1, 1))
    order = [0, 2, 1, 3]
    assert y[0, :, 0, 1].tolist() == [x[0, c].sum() for c in order]
    assert y[0, :, 0, 0].tolist() == [x[0, c, :, :2].sum() for c in order]
