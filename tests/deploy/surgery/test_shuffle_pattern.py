"""The shuffle in front of a depthwise convolution, recognized for a kernel."""

from __future__ import annotations

import pytest
from helpers import MODELS, model_from, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.simplify import simplify
from deploy.surgery.graph import to_graph
from deploy.surgery.shuffle_pattern import ShuffleDepthwise, shuffle_depthwise


def found(model: Model) -> list[ShuffleDepthwise]:
    patterns = (shuffle_depthwise(node) for node in to_graph(model).nodes)
    return [pattern for pattern in patterns if pattern is not None]


def shuffled(groups: int, tail: str = "y = Conv <group = 12> (m, w)", out: str = "y") -> Model:
    text = f"""g (float[N,12,5,3] x) => (float[N,12,H,W] {out})
      <int64[5] s = {{-1, {groups}, {12 // groups}, 5, 3}}, int64[4] t = {{-1, 12, 5, 3}}>
      {{ a = Reshape (x, s) b = Transpose <perm = [0, 2, 1, 3, 4]> (a) m = Reshape (b, t)
         {tail} }}"""
    return model_from(text, {"w": weight(12, 1, 3, 3), "d": weight(12, 12, 1, 1)})


@pytest.mark.parametrize("groups", [2, 3, 4, 6])
def test_groups_are_read_off_the_order(groups: int) -> None:
    (pattern,) = found(shuffled(groups))
    assert pattern.groups == groups
    assert pattern.x.name == "x"
    assert [node.op for node in pattern.inside] == ["Reshape", "Transpose", "Reshape", "Conv"]
    assert pattern.fits_one_kernel


def test_another_reader_of_the_shuffled_map_is_known() -> None:
    model = shuffled(3, "c = Conv <group = 12, pads = [1, 1, 1, 1]> (m, w) y = Add (c, m)")
    (pattern,) = found(model)
    assert not pattern.fits_one_kernel


@pytest.mark.parametrize(
    "tail",
    [
        "y = Conv (m, d)",  # dense: the shuffle can be absorbed instead
        "y = Relu (m)",
        "r = Relu (m) y = Conv <group = 12> (r, w)",
    ],
)
def test_what_is_something_else(tail: str) -> None:
    assert found(shuffled(3, tail)) == []


@pytest.mark.parametrize(
    ("order", "groups"),
    [
        ([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11], 3),
        ([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 11, 7], None),  # no shuffle
        ([0, 6, 1, 7], None),  # of some channels
    ],
)
def test_a_gather_of_interleaved_channels(order: list[int], groups: int | None) -> None:
    """What `shuffle_to_gather` leaves where the sizes of the map are free."""
    count = len(order)
    text = f"""g (float[N,12,H,W] x) => (float[N,{count},A,B] y)
      <int64[{count}] order = {{{", ".join(map(str, order))}}}>
      {{ m = Gather <axis = 1> (x, order) y = Conv <group = {count}> (m, w) }}"""
    model = model_from(text, {"w": weight(count, 1, 3, 3)})
    assert [pattern.groups for pattern in found(model)] == ([groups] if groups else [])


def test_shufflenetv1_keeps_only_such_patterns() -> None:
    """All that the grouped convolutions force: every shuffle left has a depthwise behind it."""
    path = MODELS / "shufflenetv1_0.5g3_cifar10.onnx"
    if not path.is_file():
        pytest.skip("shared/assets is not beside the repository")
    fused = fuse(simplify(load(read(path))), ["fold_affine", "channel_layout"])
    patterns = found(fused)
    transposes = [n for n in fused.proto.graph.node if n.op_type == "Transpose"]
    assert len(patterns) == len(transposes) == 16
    assert {pattern.groups for pattern in patterns} == {3}
    assert all(pattern.fits_one_kernel for pattern in patterns)
