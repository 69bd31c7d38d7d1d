"""Sizes computed at run time become constants, exactly where those mean the same."""

from __future__ import annotations

import re

import numpy as np
import pytest
from helpers import assert_same_numbers, feeds_for, model_from, ops, run, skips, weight
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.graph import verified

PLACES = """int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64 i3 = {3}, int64[1] first = {0},
  int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4},
  int64[1] rest = {-1}, int64[1] zero = {0}, int64 two_ = {2}, int64 eight = {8},
  int64[2] spots = {2, 3}, float half = {0.5}, int64[1] big = {9223372036854775807}"""


def computed(
    body: str,
    *,
    data: str = "float[N,12,H,W] x",
    result: str = "",
    rank: int = 4,
    more: str = "",
) -> Model:
    """A graph around Shape(x): n, c, h and w are its elements, where the body reads them."""
    result = result or f"float[{','.join('abcdef'[:rank])}] y"
    places = {"n": "first", "c": "one", "h": "two", "w": "three"}
    read = [f"{k} = Gather (shape, {v})" for k, v in places.items() if re.search(rf"\b{k}\b", body)]
    text = f"""g ({data}) => ({result}) <{PLACES}{more}>
      {{ {"shape = Shape (x)" if read else ""} {" ".join(read)} {body} }}"""
    model = model_from(text, {"conv": weight(12, 12, 3, 3, seed=3)})
    return model.derive(verified(model.proto, "m"), ())


def assert_becomes(model: Model, wanted: list[str]) -> Model:
    """The fusion leaves these operators and every bit; sizes of outputs may be known better."""
    fused = fuse(model, ["constant_shape"])
    assert sorted(ops(fused)) == sorted(wanted)
    assert_same_numbers(model, fused, rtol=0)
    return fused


def assert_stays(model: Model, reason: str) -> None:
    fused = fuse(model, ["constant_shape"])
    assert sorted(ops(fused)) == sorted(ops(model))
    assert any(re.search(reason, text) for text in skips(fused.decisions)), fused.decisions


def target(model: Model) -> list[int]:
    """What the one Reshape reads."""
    node = next(n for n in model.proto.graph.node if n.op_type == "Reshape")
    values = {i.name: i for i in model.proto.graph.initializer}
    return list(numpy_helper.to_array(values[node.input[1]]))


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ("n, c, rest", [0, 12, -1]),
        ("n, c, h, w", [0, 12, 0, 0]),
        ("n, two, c2, hw", [0, 2, 6, -1]),
        ("n, chw", [0, -1]),
        ("nc, h, w", None),
        ("nhalf, two, hw", None),
        ("n, c, h, w, one", [0, 12, 0, 0, 1]),
        ("zero, zero, hw", [0, 12, -1]),
    ],
)
def test_targets_of_a_reshape(parts: str, wanted: list[int] | None) -> None:
    made = {
        "c2": "c2 = Div (c, two)",
        "hw": "hw = Mul (h, w)",
        "chw": "hw = Mul (h, w) chw = Mul (c, hw)",
        "nc": "nc = Mul (n, c)",
        "nhalf": "six = Div (c, two) nhalf = Mul (n, six)",
    }
    steps = " ".join(made[part] for part in parts.split(", ") if part in made)
    body = f"{steps} t = Concat <axis = 0> ({parts}) y = Reshape (x, t)"
    model = computed(body, rank=parts.count(",") + 1)
    if wanted is None:
        assert_stays(model, "[23] sizes of its target vary")
        return
    # Shape and all that computes with it are gone
    fused = assert_becomes(model, ["Reshape"])
    assert target(fused) == wanted


def test_floats_that_a_legacy_exporter_computes_with() -> None:
    """x.view(n, int(c * 0.5), 2, -1)"""
    body = """f = Cast <to = 1> (c) g = Mul (f, half) r = Floor (g) k = Cast <to = 7> (r)
      t = Concat <axis = 0> (n, k, two, rest) y = Reshape (x, t)"""
    assert target(assert_becomes(computed(body), ["Reshape"])) == [0, 6, 2, -1]


def test_sizes_behind_strided_layers() -> None:
    """(h - 1) // 4 + 1, computed from the input, is the height behind two layers of stride 2."""
    body = """k = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, conv)
      p = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (k)
      h1 = Sub (h, one) h4 = Div (h1, four) hp = Add (h4, one)
      t = Concat <axis = 0> (n, c, hp, rest) y = Reshape (p, t)"""
    fused = assert_becomes(computed(body), ["Conv", "MaxPool", "Reshape"])
    assert target(fused) == [0, 12, 0, 0]


def test_where_and_expand_as_exporters_write_them() -> None:
    """expand(-1, 12, h, w): -1 is replaced by 1 with ConstantOfShape, Equal and Where."""
    body = """wanted = Concat <axis = 0> (rest, c, h, w) count = Shape (wanted)
      ones = ConstantOfShape <value = int64[1] {1}> (count) minus = Mul (ones, rest)
      same = Equal (wanted, minus) t = Where (same, ones, wanted) y = Expand (x, t)"""
    fused = assert_becomes(computed(body), ["Expand"])
    assert fused.proto.graph.initializer[0].dims == [4]


class TestReshapesThatStay:
    def test_two_sizes_that_vary(self) -> None:
        body = "t = Concat <axis = 0> (n, two, rest, h, w) y = Reshape (x, t)"
        assert_stays(computed(body, rank=5), "2 sizes of its target vary")

    def test_a_size_that_may_come_to_0(self) -> None:
        body = """small = Div (h, eight) t = Concat <axis = 0> (n, small, rest)
          y = Reshape (x, t)"""
        model = computed(body, rank=3)
        assert_stays(model, "may be 0 or less")

    def test_a_size_of_0(self) -> None:
        body = "e = Slice (x, first, first, one) s = Shape (e) y = Reshape <allowzero = 1> (e, s)"
        model = computed(body, result="float[N,Z,H,W] y")
        assert_stays(model, "is 0, where a constant would copy")

    def test_beside_one_that_may_be_0(self) -> None:
        """A copied size may be 0 where it isn't an input's own: then -1 can't be inferred."""
        body = """z = NonZero (x) i = Gather (z, i0) f = Cast <to = 1> (i) s = Shape (f)
          k = Gather (s, first) u = Unsqueeze (f, last_two)
          m = ReduceMean <axes = [0, 1], keepdims = 0> (x) e = Mul (u, m) hw = Mul (h, w)
          t = Concat <axis = 0> (k, hw) y = Reshape (e, t)"""
        model = computed(body, rank=2, more=", int64[2] last_two = {1, 2}")
        assert_stays(model, "beside the one to infer may be 0")

    def test_a_target_that_is_data(self) -> None:
        body = "y = Reshape (x, t)"
        model = computed(body, data="float[2,12,H,W] x, int64[2] t", rank=2)
        assert_stays(model, "computed from more than sizes")

    def test_an_unknown_number_of_axes(self) -> None:
        body = "e = Expand (x, t) s = Shape (x) y = Reshape (e, s)"
        model = computed(body, data="float[N,12,H,W] x, int64[K] t")
        assert_stays(model, "the number of axes")

    def test_dimensions_of_one_name_are_one_size_and_others_are_not(self) -> None:
        body = "t = Concat <axis = 0> (n, c, w, h) y = Reshape (x, t)"
        assert_stays(computed(body), "2 sizes of its target vary")
        square = computed(body, data="float[N,12,S,S] x")
        assert target(assert_becomes(square, ["Reshape"])) == [0, 12, 0, 0]

    def test_a_division_of_what_may_be_negative(self) -> None:
        """ONNX divides towards zero: (h - 9) // 8 isn't that for a height below 9."""
        body = """nine = Add (one, eight) less = Sub (h, nine) k = Div (less, eight)
          k2 = Add (k, two) t = Concat <axis = 0> (n, k2, rest) y = Reshape (x, t)"""
        assert_stays(computed(body, rank=3), "computed from more than sizes")


class TestOthers:
    def test_the_end_of_a_slice(self) -> None:
        body = """mid = Div (c, two) last = Sub (w, one)
          l = Slice (x, zero, mid, one) k = Slice (l, zero, h, two)
          y = Slice (k, one, last, three)"""
        fused = assert_becomes(computed(body), ["Slice"] * 3)
        ends = [i for i in fused.proto.graph.initializer if "Slice_2" in i.name]
        assert len(ends) == 3

    def test_the_end_of_a_slice_backwards(self) -> None:
        """From 0 down to H takes nothing; the largest number would mean the other end."""
        body = "y = Slice (x, zero, h, two, rest)"
        assert_stays(computed(body), "varies with the sizes")

    def test_a_slice_that_may_be_shorter_than_it_takes_off(self) -> None:
        body = "last = Sub (w, four) y = Slice (x, zero, last, three)"
        assert_stays(computed(body), "varies with the sizes")

    def test_a_resize_to_a_multiple(self) -> None:
        body = """h2 = Mul (h, two) w2 = Mul (w, two) t = Concat <axis = 0> (n, c, h2, w2)
          y = Resize <mode = "linear"> (x, , , t)"""
        model = computed(body)
        assert_becomes(model, ["Resize"])

    def test_a_resize_to_anything_else(self) -> None:
        body = """h2 = Mul (h, two) w2 = Add (w, two) t = Concat <axis = 0> (n, c, h2, w2)
          y = Resize <mode = "linear"> (x, , , t)"""
        assert_stays(computed(body), "aren't a known multiple")

    def test_an_expand_beyond(self) -> None:
        body = """t = Concat <axis = 0> (n, c, h, w) p = GlobalAveragePool (x) y = Expand (p, t)"""
        assert_stays(computed(body), "varies with the sizes")

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9])
    def test_every_size_gives_the_same(self, size: int) -> None:
        body = """k = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, conv)
          h1 = Sub (h, one) h2 = Div (h1, two) hp = Add (h2, one) last = Sub (h, one)
          cut = Slice (x, zero, last, two) t = Concat <axis = 0> (n, c, hp, rest)
          y = Reshape (k, t)"""
        model = computed(body, result="float[a,b,c,d] y, float[e,f,g,h] cut")
        fused = fuse(model, ["constant_shape"])
        assert ops(fused) == ["Conv", "Slice", "Reshape"] or ops(fused) == [
            "Slice",
            "Conv",
            "Reshape",
        ]
        feeds = feeds_for(model, batch=size)
        got = run(fused, feeds)
        for name, value in run(model, feeds).items():
            np.testing.assert_array_equal(got[name], value)
