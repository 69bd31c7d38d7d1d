"""Where the noise comes from: per tensor, in graph order, simulated as written."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny_models import quantized, ranges_of, residual, samples_of, target

from calibrators.ranges import Range
from deploy.analysis.layer_error import layer_errors
from deploy.artifacts.ranges import Ranges
from deploy.backends import reference
from deploy.calibrate import float_tensors
from deploy.metrics import Error
from deploy.quantize import quantize


def test_every_computed_tensor_in_graph_order() -> None:
    network = residual()
    rows = layer_errors(network, quantized(network), samples_of(network, 3))
    assert [(r.tensor, r.operator) for r in rows] == [
        ("c1", "Conv"),
        ("r1", "Relu"),
        ("c2", "Conv"),
        ("s", "Add"),
        ("r2", "Relu"),
        ("p", "GlobalAveragePool"),
        ("f", "Flatten"),
        ("y", "Gemm"),
    ]
    assert all(20 < r.sqnr_db < 70 and 0.99 < r.cosine < 1 for r in rows)


def test_figures_are_those_of_the_two_graphs_run_side_by_side() -> None:
    network = residual()
    after = quantized(network)
    samples = samples_of(network, 3)
    names = [n for n in float_tensors(network) if n != "x"]
    with (
        reference.build_observer(network, names) as a,
        reference.build_observer(after, names, exact=True) as b,
    ):
        pairs = [(a.run(s.feeds), b.run(s.feeds)) for s in samples]
    for row in layer_errors(network, after, samples):
        error = Error()
        for expected, got in pairs:
            error.add(expected[row.tensor], got[row.tensor])
        assert (row.sqnr_db, row.cosine) == (error.sqnr_db, error.cosine)


def test_the_same_graph_has_no_error() -> None:
    network = residual()
    # the simulation runs unfused: the last bits may differ, nothing more
    assert all(r.sqnr_db > 120 for r in layer_errors(network, network, samples_of(network, 2)))


def test_shows_the_tensor_whose_range_is_bad() -> None:
    network = residual()
    ranges = ranges_of(network)
    found = ranges.tensors["r1"]
    bad = dataclasses.replace(found, range=Range(0.0, 0.05 * found.range.high))
    after = quantize(network, Ranges({**ranges.tensors, "r1": bad}, ranges.source), target())
    rows = {r.tensor: r.sqnr_db for r in layer_errors(network, after, samples_of(network, 4))}
    assert rows["r1"] > 25  # before its Q/DQ
    assert rows["c2"] < 10  # behind it


@pytest.mark.parametrize("count", [2, 4, 7])
def test_padding_of_a_fixed_batch_does_not_count(count: int) -> None:
    free, fixed = residual(), residual(4)
    samples = samples_of(free, count)
    ranges = ranges_of(free)
    same = Ranges(ranges.tensors, dataclasses.replace(ranges.source, model_sha256=fixed.sha256))
    a = layer_errors(free, quantize(free, ranges, target()), samples)
    b = layer_errors(fixed, quantize(fixed, same, target()), samples)
    assert [r.sqnr_db for r in a] == pytest.approx([r.sqnr_db for r in b], abs=0.2)
    assert np.isfinite([r.sqnr_db for r in b]).all()
