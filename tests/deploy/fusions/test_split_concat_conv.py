"""split_concat_conv: when a conv of a Concat becomes a sum, and why the others stay."""

from __future__ import annotations

import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.fusions.split_concat_conv import split_concat_conv
from deploy.surgery.graph import to_graph
from deploy.surgery.rewrite import Skip

SPLIT = "split_concat_conv"


def model(parts: tuple[int, ...], conv: str, out: int = 3, size: str = "8,6") -> Model:
    names = [f"x{i}" for i in range(len(parts))]
    inputs = ", ".join(f"float[N,{n},8,6] {name}" for n, name in zip(parts, names, strict=True))
    text = (
        f"g ({inputs}) => (float[N,{out},{size}] y) "
        f"{{ j = Concat<axis=1>({', '.join(names)}) y = {conv} }}"
    )
    values = {"w": weight(out, sum(parts), 1, 1), "b": weight(out, seed=1)}
    return model_from(
        text, {n: a for n, a in values.items() if f" {n})" in text or f" {n}," in text}
    )


@pytest.mark.parametrize("conv", ["Conv(j, w, b)", "Conv(j, w)"])
def test_two_parts(conv: str) -> None:
    fused = assert_fuses(model((4, 9), conv), SPLIT, ["Conv", "Conv", "Add"], reason="a sum of 2")
    assert [d.bytes_saved for d in fused.decisions] == [4 * (2 * 13 - 4 * 3) * 8 * 6]


def test_three_parts() -> None:
    made = model((5, 9, 2), "Conv(j, w, b)")
    assert_fuses(made, SPLIT, ["Conv", "Conv", "Conv", "Add", "Add"], reason="a sum of 3")


@pytest.mark.parametrize(("attrs", "size"), [("strides=[2,1]", "4,6"), ("pads=[1,0,0,2]", "9,8")])
def test_strides_and_padding(attrs: str, size: str) -> None:
    made = model((4, 9), f"Conv<{attrs}>(j, w, b)", size=size)
    assert_fuses(made, SPLIT, ["Conv", "Conv", "Add"])


def test_a_negative_axis() -> None:
    text = (
        "g (float[N,4,8,6] x, float[N,9,8,6] z) => (float[N,3,8,6] y) "
        "{ j = Concat<axis=-3>(x, z) y = Conv(j, w) }"
    )
    assert_fuses(model_from(text, {"w": weight(3, 13, 1, 1)}), SPLIT, ["Conv", "Conv", "Add"])


@pytest.mark.parametrize(
    "text",
    [
        "j = Concat<axis=2>(x, x) y = Conv(j, w)",
        "j = Concat<axis=1>(x) y = Conv(j, w)",
        "j = Relu(x) y = Conv(j, w)",
        "j = Concat<axis=1>(x) y = Conv<pads=[1,1,1,1]>(j, v)",
    ],
)
def test_other_shapes_of_it_are_none(text: str) -> None:
    values = {"w": weight(3, 13, 1, 1), "v": weight(3, 13, 3, 3)}
    used = {n: a for n, a in values.items() if f" {n})" in text}
    height = 16 if "axis=2" in text else 8
    head = f"g (float[N,13,8,6] x) => (float[N,3,{height},6] y)"
    made = model_from(f"{head} {{ {text} }}", used)
    fused = fuse(made, [SPLIT])
    assert (ops(fused), fused.decisions) == (ops(made), ())


def test_a_larger_kernel_is_none() -> None:
    text = (
        "g (float[N,4,8,6] x, float[N,9,8,6] z) => (float[N,3,6,4] y) "
        "{ j = Concat<axis=1>(x, z) y = Conv(j, w) }"
    )
    made = model_from(text, {"w": weight(3, 13, 3, 3)})
    assert ops(fuse(made, [SPLIT])) == ["Concat", "Conv"]


# ---- what stays, and why


@pytest.mark.parametrize(("out", "more"), [(7, 2 * 48), (20, 54 * 48)])
def test_skips_where_the_sum_moves_more(out: int, more: int) -> None:
    made = model((4, 9), "Conv(j, w)", out)
    assert_skips(made, SPLIT, f"a sum of convs would move {more} elements more")


def test_skips_groups() -> None:
    text = (
        "g (float[N,4,8,6] x, float[N,8,8,6] z) => (float[N,2,8,6] y) "
        "{ j = Concat<axis=1>(x, z) y = Conv<group=2>(j, w) }"
    )
    made = model_from(text, {"w": weight(2, 6, 1, 1)})
    assert_skips(made, SPLIT, "the groups of Conv read across the parts")


def test_skips_weights_computed_at_run_time() -> None:
    text = (
        "g (float[N,4,8,6] x, float[N,9,8,6] z, float[3,13,1,1] w) => (float[N,3,8,6] y) "
        "{ j = Concat<axis=1>(x, z) y = Conv(j, w) }"
    )
    assert_skips(model_from(text), SPLIT, "the weights of Conv are computed at run time")


def test_skips_unknown_channels() -> None:
    text = (
        "g (float[N,C,8,6] x, float[N,D,8,6] z) => (float[N,3,8,6] y) "
        "{ j = Concat<axis=1>(x, z) y = Conv(j, w) }"
    )
    made = model_from(text, {"w": weight(3, 13, 1, 1)})
    assert_skips(made, SPLIT, "how many channels 'j' joins is unknown")


def test_skips_an_unknown_output() -> None:
    *_, conv = to_graph(model((4, 9), "Conv(j, w)")).nodes
    conv.outputs[0].shape = None
    assert split_concat_conv(conv) == Skip("the size of 'y' is unknown, so the gain is too")


def test_skips_a_concat_that_others_read() -> None:
    text = (
        "g (float[N,4,8,6] x, float[N,9,8,6] z) => (float[N,3,8,6] y, float[N,13,8,6] r) "
        "{ j = Concat<axis=1>(x, z) y = Conv(j, w) r = Relu(j) }"
    )
    made = model_from(text, {"w": weight(3, 13, 1, 1)})
    assert_skips(made, SPLIT, "'j' is also read by 'Relu -> r'")
