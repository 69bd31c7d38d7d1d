"""Channel shuffles whose sizes are computed, in the spellings of several exporters."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_same_numbers, feeds_for, model_from, ops, run, skips, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery.graph import verified

FUSIONS = ["constant_shape", "shuffle_to_gather", "channel_layout"]
NUMBERS = """int64[1] first = {0}, int64[1] one = {1}, int64[1] two = {2}, int64[1] three = {3},
  int64[1] six = {6}, int64[1] twelve = {12}, int64[1] rest = {-1},
  int64 i0 = {0}, int64 i1 = {1}"""
SIZES = """shape = Shape (c) n = Gather (shape, first) ch = Gather (shape, one)
  h = Gather (shape, two) w = Gather (shape, three)"""
FROM_THE_INPUT = """n = Shape <start = 0, end = 1> (x) hx = Shape <start = 2, end = 3> (x)
  wx = Shape <start = 3> (x) hm = Add (rest, hx) hd = Div (hm, two) h = Add (hd, one)
  wm = Add (wx, rest) wd = Div (wm, two) w = Add (wd, one)"""
SPLIT = "{a} b = Transpose <perm = [0, 2, 1, 3, 4]> (a) {m}"
# how the two Reshapes come to their sizes: PyTorch's legacy exporter from the map in front, its
# dynamo exporter from the input; view(n, g, c // g, h, w), flatten(1, 2), view(n, c, -1) ...
SPELLINGS = {
    "from the map": SIZES
    + """ half = Div (ch, two) s = Concat <axis = 0> (n, two, half, h, w) a = Reshape (c, s)
      b = Transpose <perm = [0, 2, 1, 3, 4]> (a) t = Concat <axis = 0> (n, rest, h, w)
      m = Reshape (b, t)""",
    "from the input": FROM_THE_INPUT
    + """ s = Concat <axis = 0> (n, two, six, h, w) a = Reshape <allowzero = 1> (c, s)
      b = Transpose <perm = [0, 2, 1, 3, 4]> (a) t = Concat <axis = 0> (n, rest, h, w)
      m = Reshape <allowzero = 1> (b, t)""",
    "flattened": SIZES
    + """ s = Concat <axis = 0> (n, two, rest, h, w) a = Reshape (c, s)
      b = Transpose <perm = [0, 2, 1, 3, 4]> (a) e = Shape (b)
      d = Slice (e, three, five) t = Concat <axis = 0> (n, twelve, d) m = Reshape (b, t)""",
    "pixels in one axis": """shape = Shape (c) hw = Slice (shape, two, four)
      n = Gather (shape, first) s = Concat <axis = 0> (n, two, six, rest) a = Reshape (c, s)
      b = Transpose <perm = [0, 2, 1, 3]> (a) m = Reshape (b, shape)""",
    "batch with groups": SIZES
    + """ nc = Mul (n, ch) all = Div (nc, six) hw = Mul (h, w)
      s = Concat <axis = 0> (n, two, six, hw) a = Reshape (c, s)
      b = Transpose <perm = [0, 2, 1, 3]> (a) t = Concat <axis = 0> (n, ch, h, w)
      m = Reshape (b, t)""",
}


def between(middle: str, *, more: str = "", reader: str = "y = Conv (m, w2)") -> Model:
    """conv of stride 2 -> `middle` (from c to m) -> conv, every size but the channels free."""
    text = f"""g (float[N,4,H,W] x) => (float[a,b,c,d] y)
      <{NUMBERS}, int64[1] five = {{5}}, int64[1] four = {{4}}{more}>
      {{ c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1) {middle} {reader} }}"""
    weights = {
        "w1": weight(12, 4, 3, 3),
        "w2": weight(7, 12, 1, 1, seed=2),
        "w3": weight(7, 6, 1, 1, seed=3),
        "w4": weight(12, 1, 1, 1, seed=4),
    }
    model = model_from(text, weights)
    used = {name for node in model.proto.graph.node for name in node.input}
    kept = [i for i in model.proto.graph.initializer if i.name in used]
    del model.proto.graph.initializer[:]
    model.proto.graph.initializer.extend(kept)
    return model.derive(verified(model.proto, "m"), ())


def assert_same(before: Model, after: Model) -> None:
    """Equal numbers for several sizes, odd ones among them."""
    assert_same_numbers(before, after)
    rng = np.random.default_rng(5)
    for shape in ((1, 4, 1, 1), (3, 4, 7, 10), (2, 4, 9, 5)):
        feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
        expected, got = run(before, feeds)["y"], run(after, feeds)["y"]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_shuffle_of_any_size_is_absorbed(name: str) -> None:
    model = between(SPELLINGS[name])
    gathered = fuse(model, FUSIONS[:2])
    assert ops(gathered) == ["Conv", "Gather", "Conv"]
    assert_same(model, gathered)
    absorbed = fuse(model, FUSIONS)
    assert ops(absorbed) == ["Conv", "Conv"]
    assert_same(model, absorbed)


HALVES = """e = Gather <axis = 0> (m4, i0) o = Gather <axis = 0> (m4, i1)
  k = Conv (o, w3) l = Conv (e, w3) y = Concat <axis = 1> (k, l)"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Concat <axis = 0> (all, two, hw)", "Concat <axis = 0> (two, n, six, h, w)"),
        ("Concat <axis = 0> (all, two, rest)", "Concat <axis = 0> (two, rest, six, h, w)"),
    ],
)
def test_a_shuffle_that_splits_at_once(first: str, second: str) -> None:
    """reshape(n * c // 2, 2, h * w).permute(1, 0, 2).reshape(2, -1, c // 2, h, w), [0] and [1]"""
    hw = "hw = Mul (h, w)" if "hw" in first else ""
    middle = f"""{SIZES} nc = Mul (n, ch) all = Div (nc, two) {hw} s = {first} a = Reshape (c, s)
      b = Transpose <perm = [1, 0, 2]> (a) t = {second} m4 = Reshape (b, t)"""
    model = between(middle, reader=HALVES)
    gathered = fuse(model, FUSIONS[:2])
    assert sorted(ops(gathered)) == ["Concat", "Conv", "Conv", "Conv", "Gather", "Gather"]
    assert_same(model, gathered)


def test_constants_are_left_to_channel_layout() -> None:
    middle = """a = Reshape (c, s) b = Transpose <perm = [0, 2, 1, 3]> (a) m = Reshape (b, t)"""
    more = ", int64[4] s = {0, 2, 6, -1}, int64[4] t = {0, 12, 3, -1}"
    model = between(middle, more=more)
    assert fuse(model, ["shuffle_to_gather"]).decisions == ()


@pytest.mark.parametrize(
    "middle",
    [
        # other channels than they were: the two factors stay where they are, the map turns
        """a = Reshape (c, s) b = Transpose <perm = [0, 1, 2, 4, 3]> (a)
           t = Concat <axis = 0> (n, twelve, h, w) m = Reshape (b, t)""",
        # samples mixed with groups
        """a = Reshape (c, s) b = Transpose <perm = [1, 0, 2, 3, 4]> (a)
           t = Concat <axis = 0> (n, twelve, h, w) m = Reshape (b, t)""",
        # channels mixed with rows
        """a = Reshape (c, s) b = Transpose <perm = [0, 2, 3, 1, 4]> (a)
           t = Concat <axis = 0> (n, twelve, h, w) m = Reshape (b, t)""",
    ],
)
def test_what_moves_more_than_channels_stays(middle: str) -> None:
    model = between(f"{SIZES} s = Concat <axis = 0> (n, two, six, h, w) {middle}")
    fused = fuse(model, ["shuffle_to_gather"])
    assert not [d for d in fused.decisions if d.outcome == "applied"]
    assert "aren't known to move whole channels" in "".join(skips(fused.decisions))


def test_a_size_that_is_2_by_chance_is_no_batch() -> None:
    """[2, N, 6] of [N, 12] is a shuffle of each sample for N = 2 alone."""
    text = """g (float[N,12,1,1] x) => (float[a,b,c,d] y)
      <int64[3] s = {2, -1, 6}, int64[4] t = {-1, 12, 1, 1}>
      { a = Reshape (x, s) b = Transpose <perm = [0, 2, 1]> (a) m = Reshape (b, t)
        y = Conv (m, w) }"""
    model = model_from(text, {"w": weight(7, 12, 1, 1)})
    fused = fuse(model, FUSIONS)
    assert "Transpose" in ops(fused)
    feeds = feeds_for(model, batch=3)
    np.testing.assert_array_equal(run(fused, feeds)["y"], run(model, feeds)["y"])


def test_a_value_inside_that_others_read_stays() -> None:
    middle = SPELLINGS["from the map"] + " p = Relu (b) q = ReduceMax <axes = [1, 2]> (p)"
    reader = "k = Conv (m, w2) qq = ReduceMean <axes = [1], keepdims = 0> (q) y = Add (k, qq)"
    model = between(middle, reader=reader)
    fused = fuse(model, FUSIONS)
    assert "Transpose" in ops(fused) and "Gather" in ops(fused)
    assert_same(model, fused)
