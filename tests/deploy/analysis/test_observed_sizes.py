"""with_observed_sizes: what inference misses is counted, what depends on the data isn't made up."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import MODELS, model_from

from deploy.analysis import observed_sizes
from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.observed_sizes import with_observed_sizes
from deploy.artifacts.model import Model
from deploy.simplify import simplify

# a padding as PyTorch exports it: a chain that inference doesn't follow
PADDED = model_from(
    """
    g (float[N,3,8,6] x) => (float[a,b,c,d] y) {
        z = ConstantOfShape<value: tensor = int64[1] {0}>(four)
        k = Concat<axis=0>(amounts, z)  r = Reshape(k, pairs)
        s = Slice(r, last, first, zero, back)  t = Transpose<perm=[1,0]>(s)
        l = Reshape(t, flat)  p = Pad(x, l)  y = Relu(p)
    }
    """,
    {
        "four": np.array([4]),
        "amounts": np.array([0, 0, 1, 1]),
        "pairs": np.array([-1, 2]),
        "last": np.array([-1]),
        "first": np.array([-(2**63) + 1]),
        "zero": np.array([0]),
        "back": np.array([-1]),
        "flat": np.array([-1]),
    },
)
SMALL = model_from("g (float[N,3,4] x) => (float[N,3,4] y) { y = Relu(x) }")


def cost(model: Model, op: str) -> tuple[int, int]:
    (found,) = (layer for layer in layer_costs(model).costs if layer.op == op)
    return found.flops, found.bytes


def test_a_padding_known_only_by_running_is_counted() -> None:
    assert "Relu -> y" in layer_costs(PADDED).unknown
    observed = with_observed_sizes(PADDED)
    assert layer_costs(observed).unknown == ()
    # amounts (0, 0, 1, 1, 0, 0, 0, 0) as pairs from the last axis on: one row before, one behind
    size = 3 * (8 + 2) * 6
    assert cost(observed, "Relu") == (size, 2 * 4 * size)
    assert cost(observed, "Relu") == cost(simplify(PADDED), "Relu")


def test_the_nodes_and_weights_stay() -> None:
    observed = with_observed_sizes(PADDED)
    before, after = PADDED.proto.graph, observed.proto.graph
    assert list(before.node) == list(after.node)
    assert list(before.initializer) == list(after.initializer)
    assert [str(spec) for spec in observed.inputs] == [str(spec) for spec in PADDED.inputs]


def test_nothing_runs_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(observed_sizes.reference, "build_observer")
    assert with_observed_sizes(SMALL) is SMALL


def test_a_size_that_depends_on_the_data_stays_unknown() -> None:
    body = "p = Greater(x, zero) n = NonZero(p) y = Identity(n)"
    text = f"g (float[3,40] x) => (int64[2,M] y) {{ {body} }}"
    model = model_from(text, {"zero": np.float32(0)})
    assert layer_costs(with_observed_sizes(model)).unknown == ("NonZero -> n",)


def test_a_made_up_size_is_not_taken_for_a_real_one() -> None:
    text = "g (float[N,H,8] x) => (float[N,H,8] y) { y = Relu(x) }"
    free = model_from(text)
    assert with_observed_sizes(free) is free


def test_what_cannot_run_stays_as_it_is() -> None:
    # noise asks for one element where there are twelve
    text = "g (float[3,4] x, int64[2] s) => (float[A,B] y) { y = Reshape(x, s) }"
    model = model_from(text)
    assert with_observed_sizes(model) is model


def test_sequences_stay_as_they_are() -> None:
    text = "g (seq(float[N,3]) x) => (float[A,B] y) { y = ConcatFromSequence<axis=0>(x) }"
    model = model_from(text)
    assert with_observed_sizes(model) is model


@pytest.mark.skipif(not MODELS.is_dir(), reason="the shared models aren't here")
def test_resnet20_has_no_unknown_layer_left() -> None:
    from deploy.load import load

    loaded = load(Model.load(MODELS / "resnet20_cifar10.onnx"))
    assert len(layer_costs(loaded).unknown) == 5
    observed = layer_costs(with_observed_sizes(loaded))
    assert observed.unknown == ()
    simplified = {c.name: c for c in layer_costs(simplify(loaded)).costs}
    both = [c for c in observed.costs if c.name in simplified]
    assert len(both) == 51
    assert all(c == simplified[c.name] for c in both)
