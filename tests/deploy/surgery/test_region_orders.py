"""What turning nodes costs, counted as they are chosen."""

from __future__ import annotations

import pytest
from helpers import assert_same_numbers, model_from, ops

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.surgery import region_orders


def fan(count: int) -> Model:
    """A turned value, read by many nodes that each are turned back."""
    ends = range(count)
    body = "".join(
        f"a{i} = Sigmoid (v) r{i} = Transpose <perm = [0, 3, 1, 2]> (a{i}) " for i in ends
    )
    out = ", ".join(f"float[1,3,5,7] r{i}" for i in ends)
    text = f"g (float[1,3,5,7] x) => ({out}) {{ v = Transpose <perm = [0, 2, 3, 1]> (x) {body} }}"
    return model_from(text)


def looks(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the nodes of such a graph are looked at."""
    seen = 0
    known = region_orders.permutation

    def counted(node: object) -> object:
        nonlocal seen
        seen += 1
        return known(node)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(region_orders, "permutation", counted)
        fuse(fan(count), ["sink_transpose"])
    return seen


def test_many_readers_of_one_value_take_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks(120, monkeypatch) <= 4.2 * looks(30, monkeypatch)


def test_all_readers_of_one_value_turn() -> None:
    model = fan(40)
    fused = fuse(model, ["sink_transpose"])
    assert ops(fused) == ["Sigmoid"] * 40
    assert_same_numbers(model, fused, rtol=0)
