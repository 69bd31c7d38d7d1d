"""What every equalization has to prove: the same function, on the samples it was measured on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from helpers import feeds_for, run

from calibrators.samples import Sample
from deploy.artifacts.model import Decision, Model
from deploy.equalize import equalize
from deploy.surgery.graph import verified

# of the largest value: factors and constants cost float32 round-off and nothing else
RELATIVE = 1e-5


class Enough(list[Sample]):
    """A few samples that stand for as many as no headroom is left for."""

    def __len__(self) -> int:
        return 128


def samples_for(model: Model, count: int = 3) -> list[Sample]:
    """Seeded samples, each a run of its own."""
    feeds = [feeds_for(model, batch=1, seed=seed) for seed in range(count)]
    return Enough(Sample(f"s{i}", feed) for i, feed in enumerate(feeds))


def largest_error(before: Model, after: Model, samples: Sequence[Sample]) -> float:
    """Of any output on any sample, against the largest value of that output."""
    worst = 0.0
    for sample in samples:
        expected, got = run(before, sample.feeds), run(after, sample.feeds)
        assert list(got) == list(expected)
        for name, value in expected.items():
            assert got[name].dtype == value.dtype
            assert got[name].shape == value.shape
            wide = value.astype(np.float64)
            scale = np.abs(wide).max(initial=0) or 1.0
            worst = max(worst, float(np.abs(got[name] - wide).max(initial=0) / scale))
    return worst


def assert_equal(
    model: Model,
    equalizations: Sequence[str],
    *,
    symmetric: bool = True,
    samples: Sequence[Sample] | None = None,
    tolerance: float = RELATIVE,
) -> Model:
    """The equalized model: verified, the input untouched, the same numbers within round-off."""
    model = model.derive(verified(model.proto, model.name), ())
    samples = samples_for(model) if samples is None else samples
    bytes_before = model.proto.SerializeToString(deterministic=True)
    after = equalize(model, samples, equalizations, symmetric=symmetric)
    assert model.proto.SerializeToString(deterministic=True) == bytes_before
    assert [str(s) for s in after.inputs] == [str(s) for s in model.inputs]
    assert [str(s) for s in after.outputs] == [str(s) for s in model.outputs]
    assert largest_error(model, after, samples) <= tolerance
    return after


def applied(model: Model) -> list[Decision]:
    return [d for d in model.decisions if d.outcome == "applied"]
