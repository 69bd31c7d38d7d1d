"""Every tensor out of given values: what a node does by itself."""

from __future__ import annotations

import numpy as np
from helpers import run
from tiny_models import residual, samples_of

from deploy.ladder.stepped import stepped, steps
from deploy.ladder.tensors import DECADES, Difference, common, differences, observable, observed


def test_given_its_own_values_a_graph_gives_them_again() -> None:
    model = observable(residual())
    runs = [s.feeds for s in samples_of(model, 3)]
    names = common(model, model)
    held = observed(model, names, runs)
    got = steps(model, names, runs, held)
    assert set(got[0]) == {"c1", "r1", "c2", "s", "r2", "p", "f", "y"}
    assert all(d.sqnr_db > 120 for d in differences(held, got, names, [1] * 3).values())


def test_a_wrong_value_changes_its_readers_and_nothing_behind_them() -> None:
    model = observable(residual())
    runs = [samples_of(model, 1)[0].feeds]
    names = common(model, model)
    held = observed(model, names, runs)
    got = steps(model, names, runs, [{**held[0], "r1": held[0]["r1"] * 2}])
    off = differences(held, got, names, [1])
    assert {n for n, d in off.items() if d.sqnr_db < 100} == {"c2", "s"}


def test_what_is_not_an_anchor_is_computed_as_before() -> None:
    model = observable(residual())
    cut = stepped(model, {"r2"})
    assert [s.name for s in cut.inputs] == ["x", "r2"]
    feeds = {**samples_of(model, 1)[0].feeds}
    right = run(model, feeds)
    assert set(right) == {"y"}
    assert [o.name for o in cut.outputs] == ["r2//step"]


def test_errors_are_counted_by_size() -> None:
    found = Difference()
    x = np.ones((1, 4), np.float32)
    found.add(x, x + np.array([[0.0, 0.5, 20.0, 5e-3]], np.float32))
    row = found.row("t", "Conv")
    assert sum(row.counts) == 4
    assert row.counts[0] == 1  # equal
    assert row.counts[-1] == 1  # 10 and more
    assert row.counts[DECADES.index(-3) + 1] == 1
    assert row.counts[DECADES.index(-1) + 1] == 1
    assert row.max_abs == 20.0
    assert row.max_rel == 20.0


def test_other_shapes_and_nan_are_infinitely_wrong() -> None:
    found = Difference()
    found.add(np.ones((1, 4), np.float32), np.ones((1, 2), np.float32))
    assert not found.same_shape
    assert found.sqnr_db == -200
    nan = Difference()
    nan.add(np.ones(3, np.float32), np.array([1, np.nan, 1], np.float32))
    assert nan.sqnr_db == -200
    assert nan.row("t", "Conv").max_abs == 1e308


def test_common_tensors_have_one_type() -> None:
    model = observable(residual())
    assert common(model, model) == ["c1", "r1", "c2", "s", "r2", "p", "f", "y"]
