"""What is known of a node's treatment of the channel axis, in every spelling."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest
from helpers import model_from, weight

from deploy.artifacts.model import Model
from deploy.surgery.channels import excited, moved_channels, with_channels, works_per_channel
from deploy.surgery.graph import to_graph


def nodes(model: Model) -> dict[str, gs.Node]:
    return {node.outputs[0].name: node for node in to_graph(model).nodes}


def shuffle(shape: str, perm: str, back: str, data: str = "float[N,12,5,3] x") -> gs.Node:
    """The last node of Reshape, Transpose, Reshape."""
    text = f"""g ({data}) => (float[M,C,H,W] y)
      <int64[{shape.count(",") + 1}] s = {{{shape}}}, int64[{back.count(",") + 1}] t = {{{back}}}>
      {{ a = Reshape (x, s) b = Transpose <perm = [{perm}]> (a) y = Reshape (b, t) }}"""
    return nodes(model_from(text))["y"]


INTERLEAVED = [c for pair in zip(range(6), range(6, 12), strict=True) for c in pair]


@pytest.mark.parametrize(
    ("shape", "perm", "back", "data"),
    [
        ("-1, 2, 6, 5, 3", "0, 2, 1, 3, 4", "-1, 12, 5, 3", "float[N,12,5,3] x"),
        ("0, 2, 6, 5, 3", "0, 2, 1, 3, 4", "0, 12, 5, 3", "float[N,12,5,3] x"),
        ("0, 2, 6, -1", "0, 2, 1, 3", "0, 12, 5, 3", "float[N,12,5,3] x"),
        ("0, 2, -1, 5, 3", "0, 2, 1, 3, 4", "0, -1, 5, 3", "float[N,12,5,3] x"),
        ("-1, 2, 6, 15", "0, 2, 1, 3", "-1, 12, 5, 3", "float[N,12,5,3] x"),
        ("1, 2, 6, 5, 3", "0, 2, 1, 3, 4", "1, 12, 5, 3", "float[1,12,5,3] x"),
        ("4, 2, 6, 5, 3", "0, 2, 1, 3, 4", "4, 12, 5, 3", "float[4,12,5,3] x"),
        ("-1, 2, 6, 7", "0, 2, 1, 3", "-1, 12, 7", "float[N,12,7] x"),
        ("-1, 2, 6, 4, 5, 3", "0, 2, 1, 3, 4, 5", "-1, 12, 4, 5, 3", "float[N,12,4,5,3] x"),
    ],
)
def test_a_shuffle_in_every_spelling(shape: str, perm: str, back: str, data: str) -> None:
    data_rank = len(back.split(","))
    if data_rank != 4:
        text = f"g ({data}) => (float[{','.join('abcdef'[:data_rank])}] y)"
        node = nodes(
            model_from(
                text
                + f""" <int64[{shape.count(",") + 1}] s = {{{shape}}},
                int64[{data_rank}] t = {{{back}}}>
                {{ a = Reshape (x, s) b = Transpose <perm = [{perm}]> (a) y = Reshape (b, t) }}"""
            )
        )["y"]
    else:
        node = shuffle(shape, perm, back, data)
    moved = moved_channels(node)
    assert moved is not None
    assert moved[0].tolist() == INTERLEAVED


@pytest.mark.parametrize(
    ("shape", "perm", "back"),
    [
        ("-1, 2, 6, 5, 3", "0, 2, 1, 4, 3", "-1, 12, 5, 3"),  # turns the map as well
        ("-1, 2, 6, 5, 3", "2, 0, 1, 3, 4", "-1, 12, 5, 3"),  # mixes samples
        ("-1, 2, 6, 5, 3", "0, 2, 3, 1, 4", "-1, 12, 5, 3"),  # mixes channels with rows
        ("-1, 2, 6, 5, 3", "0, 2, 1, 3, 4", "-1, 6, 10, 3"),  # other channels at the end
    ],
)
def test_what_only_looks_like_a_shuffle(shape: str, perm: str, back: str) -> None:
    assert moved_channels(shuffle(shape, perm, back)) is None


def test_an_inner_value_read_twice_is_no_shuffle() -> None:
    text = """g (float[N,12,5,3] x) => (float[a,b,c,d] y, float[p,q,r,s,t] z)
      <int64[5] s = {-1, 2, 6, 5, 3}, int64[4] t = {-1, 12, 5, 3}>
      { a = Reshape (x, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) y = Reshape (b, t)
        z = Relu (b) }"""
    assert moved_channels(nodes(model_from(text))["y"]) is None


def test_a_large_map_is_seen_through_without_numbering_it() -> None:
    node = shuffle(
        "-1, 2, 6, 4096, 4096", "0, 2, 1, 3, 4", "-1, 12, 4096, 4096", "float[N,12,4096,4096] x"
    )
    moved = moved_channels(node)
    assert moved is not None and moved[0].tolist() == INTERLEAVED


def test_movers_say_which_channels_they_hold() -> None:
    text = """g (float[N,6,5,3] x, float[N,4,5,3] z) => (float[a,b,c,d] y, float[e,f,g,h] v,
        float[i,j,k,l] w, float[m,n,o,p] u)
      <int64[2] sizes = {2, 4}, int64[3] pick = {5, 0, 0}, int64[1] start = {-1},
       int64[1] end = {-9999}, int64[1] axis = {1}, int64[1] step = {-2}>
      { y = Concat <axis = -3> (x, z)
        v, v2 = Split <axis = 1> (x, sizes)
        w = Gather <axis = 1> (x, pick)
        u = Slice (x, start, end, axis, step) }"""
    found = nodes(model_from(text))
    assert [c.tolist() for c in moved_channels(found["y"]) or []] == [list(range(10))]
    assert [c.tolist() for c in moved_channels(found["v"]) or []] == [[0, 1], [2, 3, 4, 5]]
    assert [c.tolist() for c in moved_channels(found["w"]) or []] == [[5, 0, 0]]
    assert [c.tolist() for c in moved_channels(found["u"]) or []] == [[5, 3, 1]]


def test_movers_on_another_axis_are_none() -> None:
    text = """g (float[N,6,5,3] x) => (float[a,b,c,d] y, float[e,f,g,h] v, float[i,j,k,l] w,
        float[m,n,o,p] u)
      <int64[2] sizes = {2, 3}, int64[2] pick = {1, 0}, int64[1] start = {1}, int64[1] end = {3},
       int64[1] axis = {2}>
      { y = Concat <axis = 2> (x, x) v, v2 = Split <axis = 2> (x, sizes)
        w = Gather <axis = 3> (x, pick) u = Slice (x, start, end, axis) }"""
    found = nodes(model_from(text))
    assert [moved_channels(found[name]) for name in "yvwu"] == [None] * 4


@pytest.mark.parametrize(
    "call",
    [
        "Slice(x, six, end, axis)",
        "Slice(x, six, end, axis, back)",
        "Gather<axis=1>(x, none)",
        "Gather<axis=1>(x, beyond)",
        "Concat<axis=1>(x, empty)",
    ],
)
def test_no_channels_at_all_are_not_moved(call: str) -> None:
    """Nor are those behind the last, which the model fails on when it runs."""
    text = f"g (float[N,8,5,3] x, float[N,0,5,3] empty) => (float[N,C,5,3] y) {{ y = {call} }}"
    values = {"six": [6], "end": [-2], "axis": [1], "back": [1], "none": [], "beyond": [8]}
    constants = {name: np.array(value, np.int64) for name, value in values.items()}
    assert moved_channels(nodes(model_from(text, constants))["y"]) is None


def test_workers_per_channel_and_their_constants() -> None:
    weights = {
        "dw": weight(6, 1, 3, 3),
        "bias": weight(6, seed=1),
        "slope": weight(6, 1, 1, seed=2),
        "wide": weight(1, 6, 1, 3, seed=3),
        "dense": weight(6, 6, 1, 1, seed=4),
        "grouped": weight(6, 3, 1, 1, seed=5),
        "one": np.float32(2.5),
    }
    text = """g (float[N,6,5,3] x) => (float[a,b,c,d] y, float[e,f,g,h] p, float[i,j,k,l] m,
        float[m,n,o,r] w, float[q,s,t,u] d, float[a1,a2,a3,a4] g2, float[b1,b2] f)
      { y = Conv <group = 6, pads = [1, 1, 1, 1]> (x, dw, bias)
        p = PRelu (x, slope) m = Mul (x, one) w = Add (x, wide) d = Conv (x, dense)
        g2 = Conv <group = 2> (x, grouped) f = Flatten (x) }"""
    found = nodes(model_from(text, weights))
    working = {name: works_per_channel(node) for name, node in found.items()}
    assert working == {
        "y": True,
        "p": True,
        "m": True,
        "w": False,  # its constant varies along the width too
        "d": False,
        "g2": False,
        "f": False,  # the map isn't one pixel
    }
    order = np.asarray([5, 0, 1, 2, 4, 3])
    kernel, bias = with_channels(found["y"], order)
    np.testing.assert_array_equal(kernel, weights["dw"][order])
    np.testing.assert_array_equal(bias, weights["bias"][order])
    (slope,) = with_channels(found["p"], order)
    np.testing.assert_array_equal(slope, weights["slope"][order])
    (one,) = with_channels(found["m"], order)
    assert one is found["m"].inputs[1]


def test_an_excitation_is_a_map_times_one_factor_per_channel() -> None:
    text = """g (float[N,6,5,3] x, float[N,6,1,1] s, float[N,1,5,3] t)
        => (float[a,b,c,d] y, float[e,f,g,h] z, float[i,j,k,l] w, float[m,n,o,p] v)
      { y = Mul (x, s) z = Mul (s, x) w = Mul (x, t) v = Mul (x, x) }"""
    found = nodes(model_from(text))
    for name in "yz":
        both = excited(found[name])
        assert both is not None
        assert [t.name for t in both] == ["x", "s"]
    assert excited(found["w"]) is None
    assert excited(found["v"]) is None


@pytest.mark.parametrize(
    ("shape", "back", "data"),
    [
        ("1, 2, 6, 4, 4", "1, 12, 2, 8", "float[1,12,4,4] x"),  # another map
        ("1, 2, 6, 4, 4", "1, 12, 16, 1", "float[1,12,4,4] x"),
        ("2, 2, 6, 4, 4", "4, 12, 2, 4", "float[2,12,4,4] x"),  # another batch
        ("1, 2, 6, 4, 4", "1, 12, 4, 4", "float[N,12,4,4] x"),  # a batch of one only
    ],
)
def test_a_shuffle_ends_in_the_sizes_it_began_with(shape: str, back: str, data: str) -> None:
    assert moved_channels(shuffle(shape, "0, 2, 1, 3, 4", back, data)) is None


def test_a_transpose_without_perm_reverses() -> None:
    text = """g (float[N,12,5,3] x) => (float[a,b,c,d] y)
      <int64[5] s = {-1, 2, 6, 5, 3}, int64[4] t = {-1, 12, 5, 3}>
      { a = Reshape (x, s) b = Transpose (a) y = Reshape (b, t) }"""
    assert moved_channels(nodes(model_from(text))["y"]) is None
