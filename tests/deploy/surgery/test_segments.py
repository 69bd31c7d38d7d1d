"""A graph in pieces: each computes its target from what the ones before it kept."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import feeds_for, model_from, run, weight
from networks import network

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import ModelError
from deploy.surgery.segments import segments

TEXT = """g (float[N,3,4,5] x, bool flag) => (float[N,3,4,5] y) {
    a = Conv(x, w)
    r = Relu(a)
    b = Conv(r, w)
    s = Add(b, r)
    c = If(flag) <then_branch = t () => (float[N,3,4,5] p) { p = Neg(r) },
                  else_branch = e () => (float[N,3,4,5] q) { q = Conv(b, w) }>
    d = Add(c, s)
    y = Sigmoid(d)
}"""


def model() -> Model:
    return model_from(TEXT, {"w": weight(3, 3, 1, 1)})


def walked(whole: Model, targets: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every target, computed piece by piece; what is freed is gone."""
    state, found = dict(feeds), {}
    for part in segments(whole, targets):
        got = reference.build_piece(whole.derive(part.proto, ()))(
            {name: state[name] for name in part.feeds}
        )
        assert list(got) == [part.target, *(k for k in part.keeps if k != part.target)]
        found[part.target] = got[part.target]
        for name in part.frees:
            state.pop(name)
        state.update((name, got[name]) for name in part.keeps)
    assert not set(state) - set(feeds), "something was kept that nobody needs"
    return found


@pytest.mark.parametrize("flag", [True, False])
def test_pieces_compute_what_the_whole_computes(flag: bool) -> None:
    whole = model()
    feeds = feeds_for(whole) | {"flag": np.asarray(flag)}
    targets = ["a", "b", "c", "d"]
    proto = onnx.ModelProto()
    proto.CopyFrom(whole.proto)
    shape = ["N", 3, 4, 5]
    proto.graph.output.extend(
        onnx.helper.make_tensor_value_info(t, onnx.TensorProto.FLOAT, shape) for t in targets
    )
    expected = run(whole.derive(proto, ()), feeds)
    for name, value in walked(whole, targets, feeds).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_the_order_is_the_graphs_and_the_rest_is_left_out() -> None:
    found = segments(model(), ["d", "a"])
    assert [part.target for part in found] == ["a", "d"]
    ops = [[node.op_type for node in part.proto.graph.node] for part in found]
    assert ops == [["Conv"], ["Relu", "Conv", "Add", "If", "Add"]]
    assert found[0].feeds == ("x",)
    assert found[0].keeps == ("a",)
    assert found[0].frees == ("x",)
    assert set(found[1].feeds) == {"a", "flag"}
    assert found[1].keeps == ()


def test_what_a_body_reads_is_passed_on() -> None:
    first, second = segments(model(), ["b", "c"])
    assert set(first.keeps) == {"b", "r"}
    assert set(second.feeds) == {"b", "r", "flag"}
    assert {w.name for w in second.proto.graph.initializer} == {"w"}


def test_a_target_asked_for_twice_is_one_piece() -> None:
    assert len(segments(model(), ["a", "a"])) == 1


def test_a_target_that_nobody_makes_is_named() -> None:
    with pytest.raises(ModelError, match="no node makes 'x'"):
        segments(model(), ["a", "x"])


def test_a_network_in_pieces() -> None:
    whole = Model(network("shufflenet_v2_x0_5", image=(32, 32), width=0.25, classes=5), "s")
    targets = [node.output[0] for node in whole.proto.graph.node if node.op_type == "Conv"]
    last = whole.proto.graph.output[0].name
    feeds = feeds_for(whole)
    found = walked(whole, [*targets, last], feeds)
    np.testing.assert_array_equal(found[last], run(whole, feeds)[last])
