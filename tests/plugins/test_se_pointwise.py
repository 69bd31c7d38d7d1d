"""SePointwise: the CUDA kernels, run on the CPU, give what the NumPy truth gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_kernels import call, compile_kernels, se_pointwise_params

from deploy import registry

op = registry.module("plugin", "se_pointwise")

# input shape, output channels: sizes around the tiles' (64 x 64, 16 and 32 deep) and odd ones
CASES: list[tuple[tuple[int, int, int, int], int]] = [
    ((1, 1, 1, 1), 1),
    ((2, 5, 3, 7), 9),
    ((1, 24, 7, 7), 72),
    ((3, 16, 4, 5), 8),
    ((1, 33, 8, 8), 64),
    ((2, 40, 9, 16), 65),
    ((1, 64, 5, 13), 3),
    ((1, 72, 16, 20), 40),
]
FORMS = ["float32", "float16", "int8", "int8 from float w", "int8, w as it is"]


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("se_pointwise")
    return compile_kernels("se_pointwise", folder).launch_se_pointwise


def arrays(at: int, form: str) -> tuple[list[np.ndarray | None], dict[str, Any]]:
    """The op's inputs and attributes: a scale per image and channel as a sigmoid gives."""
    shape, outputs = CASES[at]
    rng = np.random.default_rng(at)
    w = rng.standard_normal((outputs, shape[1], 1, 1)) * 2.0 ** rng.integers(
        -3, 3, (outputs, 1, 1, 1)
    )
    scale = rng.random((*shape[:2], 1, 1))
    bias = rng.standard_normal(outputs) if at % 2 or form == FORMS[2] else None
    if not form.startswith("int8"):
        x = rng.standard_normal(shape)
        return [None if a is None else a.astype(form) for a in (x, scale, w, bias)], {}
    inputs = [None if a is None else a.astype(np.float32) for a in (scale, w, bias)]
    w_scale = (np.abs(w).max((1, 2, 3)) / 127 * 0.9).astype(np.float32)
    x = rng.integers(-128, 128, shape).astype(np.int8)
    attributes = {"x_scale": 0.02, "y_scale": 0.031}
    return [x, *inputs, None if form == FORMS[-1] else w_scale], attributes


def on_cpu(
    launch: Any, form: str, inputs: list[np.ndarray | None], attributes: dict[str, Any], **how: int
) -> np.ndarray:
    """What the kernels compute for these inputs, given in the way the form says."""
    x, scale, w, bias, *rest = inputs
    assert x is not None and w is not None
    w_scale = rest[0] if rest else None
    if form == "int8" and w_scale is not None:
        w = np.clip(np.rint(w / w_scale[:, None, None, None]), -128, 127).astype(np.int8)
    params = se_pointwise_params(x, w, attributes)
    shape = (x.shape[0], w.shape[0], *x.shape[2:])
    return call(launch, params, [x, scale, w, bias, w_scale], shape, **how)


def assert_close(
    got: np.ndarray, inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> None:
    """As close as the arithmetic allows: float32 sums, of float16 products w * scale where the
    tensor cores multiply; then half a step of y's type."""
    wanted = op.run(*inputs, **attributes)
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    real, size = exact(inputs, attributes)
    channels = inputs[0].shape[1] if inputs[0] is not None else 0
    bound = size * channels * 2.0**-24
    if got.dtype != np.float32:
        bound = bound + size * 2.0**-11
    half_step = {"float32": 0, "float16": np.abs(real) * 2.0**-11 + 2.0**-25, "int8": 0.5}
    error = np.abs(got.astype(np.float64) - real)
    assert (error <= bound + half_step[got.dtype.name]).all()


def exact(
    inputs: list[np.ndarray | None], attributes: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """y before it is rounded, in steps of y_scale for int8, and the sum of its terms' sizes."""
    x, scale, w, bias, *rest = (None if a is None else a.astype(np.float64) for a in inputs)
    assert x is not None and scale is not None and w is not None
    x_scale, y_scale = (
        np.float64(np.float32(attributes.get(k, 1))) for k in ("x_scale", "y_scale")
    )
    if rest and rest[0] is not None:
        steps = rest[0][:, None, None, None]
        w = np.clip(np.rint(np.float32(w) / np.float32(steps)), -128, 127) * steps
    real = op.run(x * x_scale, scale, w, bias) / y_scale
    sizes = [None if a is None else np.abs(a) for a in (x * x_scale, scale, w, bias)]
    if "y_scale" in attributes:
        real = np.clip(real, -128, 127)
    return real, op.run(*sizes) / y_scale


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", range(len(CASES)))
def test_kernel_is_the_numpy_truth(launch: Any, at: int, form: str) -> None:
    inputs, attributes = arrays(at, form)
    assert_close(on_cpu(launch, form, inputs, attributes), inputs, attributes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("at", [2, 5])
def test_arrays_at_any_address_and_threads_in_any_order(
    launch: Any, at: int, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_ON_CPU_REVERSED", "1")
    inputs, attributes = arrays(at, form)
    assert_close(on_cpu(launch, form, inputs, attributes, offset=1), inputs, attributes)


@pytest.mark.parametrize("form", FORMS)
def test_wrong_answers_are_rejected(launch: Any, form: str) -> None:
    inputs, attributes = arrays(2, form)
    got = on_cpu(launch, form, inputs, attributes)
    assert_close(got, inputs, attributes)

    x, scale, *rest = inputs
    assert scale is not None
    with pytest.raises(AssertionError):
        assert_close(got, [x, scale[:, ::-1], *rest], attributes)
    place = np.unravel_index(np.argmin(np.abs(got.astype(int) - 60)), got.shape)
    got[place] = got[place] + 2 if got.dtype == np.int8 else got[place] * got.dtype.type(1.01)
    with pytest.raises(AssertionError):
        assert_close(got, inputs, attributes)


@pytest.mark.parametrize(
    "change",
    [
        {"type": 3},
        {"weight_type": 2},
        {"batch": 0},
        {"out_channels": 0},
        {"type": 2, "x_scale": 1.0},
        {"type": 2, "weight_type": 2, "x_scale": 1.0, "y_scale": 1.0},
    ],
)
def test_launcher_refuses(launch: Any, change: dict[str, Any]) -> None:
    (x, scale, w, _), attributes = arrays(1, "float32")
    assert x is not None and w is not None
    params = se_pointwise_params(x, w, attributes)
    for name, value in change.items():
        setattr(params, name, value)
    with pytest.raises(RuntimeError, match="returned -1"):
        call(launch, params, [x, scale, w, None, None], (2, 9, 3, 7))


@pytest.mark.parametrize(
    ("shapes", "attributes", "reason"),
    [
        (((1, 6, 5), (1, 6, 1, 1), (4, 6, 1, 1)), {}, "x has 3 dimensions"),
        (((1, 6, 5, 5), (1, 5, 1, 1), (4, 6, 1, 1)), {}, r"scale is \[1, 5, 1, 1\]"),
        (((1, 6, 5, 5), (1, 6, 1, 1), (4, 6, 3, 3)), {}, r"w is \[4, 6, 3, 3\]"),
        (((1, 6, 5, 5), (1, 6, 1, 1), (4, 6, 1, 1), (6,)), {}, r"bias is \[6\]"),
        (((1, 6, 5, 5), (1, 6, 1, 1), (4, 6, 1, 1)), {"x_scale": 0.1}, "y_scale = None"),
    ],
)
def test_op_refuses(
    shapes: tuple[tuple[int, ...], ...], attributes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        op.infer_shape(*shapes, **attributes)
