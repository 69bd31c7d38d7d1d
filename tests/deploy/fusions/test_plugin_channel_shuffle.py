"""plugin_channel_shuffle: three nodes that move channels as one operator."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_skips, model_from, ops
from plugin_graphs import assert_becomes_plugin, shuffled

from deploy.fuse import fuse
from deploy.plugin.ops import attributes_of, plugin_nodes

PLUGIN = "plugin_channel_shuffle"


@pytest.mark.parametrize(("groups", "kind"), [(2, "float"), (3, "float16"), (6, "int32")])
def test_three_nodes_become_one(groups: int, kind: str) -> None:
    made = shuffled("y = Neg(s)", groups=groups, kind=kind)
    fused = assert_becomes_plugin(
        made, PLUGIN, ["ChannelShuffle", "Neg"], reason=f"a shuffle of {groups} groups as one copy"
    )
    (node,) = plugin_nodes(fused.proto)
    assert attributes_of(node) == {"groups": groups}


@pytest.mark.parametrize("groups", [1, 12])
def test_skips_a_shuffle_that_moves_nothing(groups: int) -> None:
    assert_skips(shuffled("y = Neg(s)", groups=groups), PLUGIN, "one group moves nothing")


def test_skips_elements_the_kernel_does_not_move() -> None:
    made = shuffled("y = Neg(s)", kind="double")
    assert_skips(made, PLUGIN, "elements of 8 bytes; the kernel moves 1, 2 or 4")


def test_skips_what_others_read() -> None:
    made = shuffled("y = Neg(s)")
    proto = made.proto
    value = proto.graph.output.add()
    value.CopyFrom(next(v for v in proto.graph.value_info if v.name == "t"))
    fused = fuse(made, [PLUGIN])
    assert ops(fused) == ops(made)
    assert [d.reason for d in fused.decisions] == ["'t' is an output of the model"]


def test_another_transposition_is_none() -> None:
    text = """
    g (float[2,12,4,4] x) => (float[2,12,4,4] y) {
        a = Reshape(x, inner) t = Transpose<perm=[0,1,2,4,3]>(a) y = Reshape(t, whole)
    }
    """
    own = {"inner": np.array([0, 3, 4, 4, 4]), "whole": np.array([0, 12, 4, 4])}
    made = model_from(text, own)
    assert (ops(fuse(made, [PLUGIN])), fuse(made, [PLUGIN]).decisions) == (ops(made), ())
