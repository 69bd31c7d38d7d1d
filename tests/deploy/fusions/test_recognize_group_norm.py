"""recognize_group_norm: instance normalization over groups, with what makes it certain."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "recognize_group_norm"
NORM = "r = Reshape(x, groups) i = InstanceNormalization<epsilon=0.01>(r, s, t) "
TORCH = NORM + "h = Shape(x) u = Reshape(i, h) m = Mul(u, w) y = Add(m, b)"
SIZES = TORCH.replace("h = Shape(x) ", "").replace("(i, h)", "(i, back)")
# torch's decomposition: as groups, mean and variance taken apart
MEANS = (
    "r = Reshape(x, groups) n = ReduceMean<axes=[AXES]>(r) c = Sub(r, n) p = Mul(c, c) "
    "v = ReduceMean<axes=[AXES]>(p) a = Add(v, eps) q = Sqrt(a) d = Div(c, q) "
)
BEHIND = "u = Reshape(d, back) m = Mul(u, w) y = Add(m, b)"
CONSTANTS = {
    "eps": np.float32(0.01),
    "zero": np.float32(0),
    "groups": np.array([0, 2, -1]),
    "s": np.ones(2, np.float32),
    "t": np.zeros(2, np.float32),
    "back": np.array([0, 6, 5, 4]),
    "w": weight(6, 1, 1, seed=1),
    "b": weight(6, 1, 1, seed=2),
}


def model(
    body: str,
    *,
    x: str = "N,6,5,4",
    y: str = "",
    opset: int = 17,
    dtype: str = "float",
    **other: object,
) -> Model:
    kind = {"float": "float32", "float16": "float16"}[dtype]
    values = {n: np.asarray(v) for n, v in {**CONSTANTS, **other}.items()}
    used = {
        n: v.astype(kind) if v.dtype.kind == "f" else v
        for n, v in values.items()
        if f" {n}," in body or f" {n})" in body or f"({n}," in body
    }
    text = f"g ({dtype}[{x}] x) => ({dtype}[{y or x}] y) {{ {body} }}"
    return model_from(text, used, opset=opset, ir=10)


def test_torch_fuses() -> None:
    fused = assert_fuses(
        model(TORCH), NAME, ["GroupNormalization"], reason="6 channels in 2 groups"
    )
    assert fused.opset == 21


@pytest.mark.parametrize(
    ("body", "other"),
    [
        (SIZES, {}),
        (TORCH, {"groups": np.array([-1, 2, 60])}),
        (TORCH, {"groups": np.array([0, 2, 3, 5, 4])}),
        (TORCH, {"s": weight(2, seed=5), "t": weight(2, seed=6)}),
        (TORCH, {"w": weight(1, 6, 1, 1), "b": weight(1)}),
        (TORCH.replace("Mul(u, w)", "Mul(w, u)").replace("Add(m, b)", "Add(b, m)"), {}),
        (NORM + "h = Shape(x) y = Reshape(i, h)", {}),
        (NORM + "h = Shape(x) u = Reshape(i, h) y = Add(u, b)", {}),
        (NORM + "h = Shape(x) u = Reshape(i, h) y = Mul(u, w)", {}),
    ],
    ids=["sizes", "-1 first", "five axes", "own scale", "one bias", "turned", "bare", "add", "mul"],
)
def test_spellings_fuse(body: str, other: dict[str, np.ndarray]) -> None:
    assert_fuses(model(body, **other), NAME, ["GroupNormalization"])


@pytest.mark.parametrize(
    ("body", "groups"),
    [
        (MEANS.replace("AXES", "2") + BEHIND, [0, 2, -1]),
        (MEANS.replace("AXES", "-1") + BEHIND, [-1, 2, 60]),
        (MEANS.replace("AXES", "2,3,4") + BEHIND, [0, 2, 3, 5, 4]),
        (MEANS.replace("AXES", "2") + "y = Reshape(d, back)", [0, 2, -1]),
        (
            MEANS.replace("AXES", "2").replace(
                "q = Sqrt(a) d = Div(c, q)", "q = Sqrt(a) i = Reciprocal(q) d = Mul(i, c)"
            )
            + BEHIND,
            [0, 2, -1],
        ),
        (
            "r = Reshape(x, groups) n = ReduceMean<axes=[2,3,4]>(r) h = Mul(r, r) "
            "k = ReduceMean<axes=[2,3,4]>(h) o = Mul(n, n) e = Sub(k, o) v = Max(e, zero) "
            "a = Add(v, eps) q = Sqrt(a) i = Reciprocal(q) c = Sub(r, n) d = Mul(c, i) " + BEHIND,
            [0, 2, 3, 5, 4],
        ),
    ],
    ids=["flat", "-1 first", "five axes", "bare", "reciprocal", "jax"],
)
def test_means_over_groups_fuse(body: str, groups: list[int]) -> None:
    fused = assert_fuses(
        model(body, groups=np.array(groups)),
        NAME,
        ["GroupNormalization"],
        reason="6 channels in 2 groups",
    )
    (epsilon,) = (a.f for a in fused.proto.graph.node[0].attribute if a.name == "epsilon")
    assert (fused.opset, epsilon) == (21, np.float32(0.01))


def test_means_go_before_layer_norm_takes_them() -> None:
    body = MEANS.replace("AXES", "2") + BEHIND
    fused = fuse(model(body), [NAME, "recognize_layer_norm"])
    assert ops(fused) == ["GroupNormalization"]


def test_means_over_the_last_axis_alone_are_layer_norm() -> None:
    body = MEANS.replace("AXES", "4") + BEHIND
    assert fuse(model(body, groups=np.array([0, 2, 3, 5, 4])), [NAME]).decisions == ()


def test_skips_means_of_what_is_no_group() -> None:
    body = MEANS.replace("AXES", "2") + BEHIND
    cut = model(body, groups=np.array([0, 4, -1]))
    assert_skips(cut, NAME, "isn't known to be groups of channels")


def test_skips_a_scale_inside_the_groups() -> None:
    body = MEANS.replace("AXES", "2").replace(
        "d = Div(c, q)", "i = Reciprocal(q) j = Mul(i, s) d = Mul(c, j)"
    )
    inside = model(body + BEHIND, s=np.full((2, 1), 2, np.float32))
    assert_skips(inside, NAME, "isn't one per group")


def test_float16_fuses() -> None:
    # the chain rounds the normalized value, the product and the sum to 11 bits
    assert_fuses(model(TORCH, dtype="float16"), NAME, ["GroupNormalization"], rtol=1e-2)


def test_three_and_five_axes_fuse() -> None:
    shapes = {"w": weight(6, 1), "b": weight(6, 1, seed=2)}
    assert_fuses(model(TORCH, x="N,6,5", **shapes), NAME, ["GroupNormalization"])
    shapes = {"w": weight(6, 1, 1, 1), "b": weight(6, 1, 1, 1, seed=2)}
    assert_fuses(model(TORCH, x="N,6,2,5,3", **shapes), NAME, ["GroupNormalization"])


def test_bytes_saved() -> None:
    fused = assert_fuses(
        model(TORCH.replace("h = Shape(x) ", "").replace("h)", "back)")),
        NAME,
        ["GroupNormalization"],
    )
    # two Reshapes, InstanceNormalization, Mul, Add: each reads and writes; one does so afterwards
    assert [d.bytes_saved for d in fused.decisions] == [(10 - 2) * 4 * (6 * 5 * 4)]


def test_a_scale_over_another_axis_stays_outside() -> None:
    body = model(SIZES, w=weight(5, 1))
    assert_fuses(body, NAME, ["GroupNormalization", "Mul", "Add"])


def test_skips_a_shape_that_is_not_the_one_before() -> None:
    body = NORM + "y = Reshape(i, back)"
    swapped = model(body, y="N,6,4,5", back=np.array([0, 6, 4, 5]))
    assert_skips(swapped, NAME, "isn't known to be the shape before")


def test_skips_what_cuts_through_the_channels() -> None:
    one = {
        "groups": np.array([0, 4, -1]),
        "s": np.ones(4, np.float32),
        "t": np.zeros(4, np.float32),
    }
    assert_skips(model(SIZES, **one), NAME, "isn't known to be groups of channels")


def test_skips_what_mixes_the_batch_in() -> None:
    one = {"groups": np.array([1, 2, -1])}
    assert_skips(model(SIZES, **one), NAME, "isn't known to be groups of channels")


def test_skips_a_scale_computed_at_run_time() -> None:
    text = f"g (float[N,6,5,4] x, float[2] s) => (float[N,6,5,4] y) {{ {SIZES} }}"
    used = {n: CONSTANTS[n] for n in ("groups", "t", "w", "b", "back")}
    assert_skips(model_from(text, used, ir=10), NAME, "computed at run time")


def test_an_instance_normalization_alone_is_none() -> None:
    fused = fuse(
        model(
            "y = InstanceNormalization(x, s, t)",
            s=np.ones(6, np.float32),
            t=np.zeros(6, np.float32),
        ),
        [NAME],
    )
    assert (ops(fused), fused.decisions) == (["InstanceNormalization"], ())


def test_a_reader_behind_it_keeps_its_shape() -> None:
    """ONNX infers no shape behind GroupNormalization, so the one from before has to stay known."""
    body = TORCH.replace("y = Add", "z = Add") + " y = Relu(z)"
    fused = assert_fuses(model(body), NAME, ["GroupNormalization", "Relu"])
    assert ops(fuse(fused, ["hoist_downcast"])) == ["GroupNormalization", "Relu"]


def test_skips_float64() -> None:
    text = f"g (double[N,6,5,4] x) => (double[N,6,5,4] y) {{ {SIZES} }}"
    used = {n: v.astype("float64") if v.dtype.kind == "f" else v for n, v in CONSTANTS.items()}
    assert_skips(model_from(text, used, ir=10), NAME, "statistics in float32, and this is float64")
