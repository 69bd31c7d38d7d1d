"""A graph walked layer by layer: each target mended before what reads it runs."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from, run, weight

from deploy.artifacts.model import Model
from deploy.errors import BuildError, CalibrationError
from deploy.observation import walk as module
from deploy.observation.walk import Reached, Walk, channel_mean

TEXT = """g (float[N,3,L,5] x) => (float[N,4,L,5] y) {
    a = Conv(x, w1) r = Relu(a) b = Conv(r, w2) s = Add(b, r) y = Conv(s, w2)
}"""


def model() -> Model:
    return model_from(TEXT, {"w1": weight(4, 3, 1, 1), "w2": weight(4, 4, 1, 1, seed=1)})


def feeds(*lengths: int) -> list[dict[str, np.ndarray]]:
    return [{"x": weight(1, 3, n, 5, seed=i)} for i, n in enumerate(lengths)]


def test_every_target_is_reached_with_what_was_added_before() -> None:
    added = {"a": np.arange(4.0), "b": -np.ones(4), "y": np.zeros(4)}
    means: dict[str, np.ndarray] = {}

    def mend(seen: Reached) -> np.ndarray:
        means[seen.target] = seen.mean
        return added[seen.target]

    samples = feeds(4, 4, 4)
    Walk(model(), dict.fromkeys(added, 1), samples).run(mend)
    assert list(means) == ["a", "b", "y"]
    biased = model_from(
        """g (float[N,3,L,5] x) => (float[N,4,L,5] y) {
            a = Conv(x, w1, c1) r = Relu(a) b = Conv(r, w2, c2) s = Add(b, r) y = Conv(s, w2)
        }""",
        {
            "w1": weight(4, 3, 1, 1), "w2": weight(4, 4, 1, 1, seed=1),
            "c1": np.arange(4, dtype=np.float32), "c2": -np.ones(4, np.float32),
        },
    )  # fmt: skip
    expected = np.mean([channel_mean(run(biased, feed)["y"], 1) for feed in samples], axis=0)
    np.testing.assert_allclose(means["y"], expected, rtol=1e-5, atol=1e-6)


def test_runs_of_other_lengths_count_the_same() -> None:
    samples = feeds(2, 30)
    found: list[Reached] = []
    Walk(model(), {"a": 1}, samples).run(lambda seen: found.append(seen) or np.zeros(4))  # type: ignore[func-returns-value]
    kernel = weight(4, 3, 1, 1).reshape(4, 3)
    values = [np.einsum("oc,nchw->nohw", kernel, feed["x"]) for feed in samples]
    expected = np.mean([v.mean(axis=(0, 2, 3)) for v in values], axis=0)
    np.testing.assert_allclose(found[0].mean, expected, rtol=1e-5, atol=1e-6)
    largest, least = max(v.max() for v in values), min(v.min() for v in values)
    assert found[0].span == pytest.approx(largest - least, rel=1e-5)


def test_only_as_many_runs_as_fit_judged_by_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEWEST", 2)
    # between layers at most x, a and r of the longest: (3 + 4 + 4) * 40 * 5 floats
    held = (3 + 4 + 4) * 40 * 5 * 4
    samples = feeds(*[8] * 9, 40)
    for fits, expected in ((4, 4), (100, 10), (1, 2)):
        monkeypatch.setattr(module, "_MOST_BYTES", held * fits + held // 2)
        targets = {"a": 1, "b": 1, "y": 1}
        assert len(Walk(model(), targets, samples).feeds) == expected


def test_runs_that_fit_are_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FEWEST", 4)
    monkeypatch.setattr(module, "_MOST_BYTES", 1)
    samples = feeds(*[8] * 12)
    walk = Walk(model(), {"a": 1}, samples)
    assert [id(feed) for feed in walk.feeds] == [id(feed) for feed in samples[::3]]


def test_the_same_with_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[np.ndarray] = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(module.reference, "cores", lambda cores=cores: cores)
        means: list[np.ndarray] = []
        walk = Walk(model(), {"a": 1, "b": 1, "y": 1}, feeds(3, 4, 5, 6, 7))
        walk.run(lambda seen, means=means: means.append(seen.mean) or np.ones(4))  # type: ignore[misc]
        found.append(np.stack(means))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_it_leaves_the_feeds_as_they_were() -> None:
    samples = feeds(3, 3)
    before = [feed["x"].copy() for feed in samples]
    Walk(model(), {"a": 1, "y": 1}, samples).run(lambda seen: np.ones(4))
    assert [list(feed) for feed in samples] == [["x"], ["x"]]
    np.testing.assert_array_equal([feed["x"] for feed in samples], before)


def test_no_runs_are_told() -> None:
    with pytest.raises(CalibrationError, match="no samples to run; check --data"):
        Walk(model(), {"a": 1}, [])


def test_what_the_runtime_refuses_is_told_with_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = model_from(
        "g (float[N,3] x) => (float[N,3] y) { a = Relu(x) b = onnx_deploy.Odd(a) y = Neg(b) }"
    )
    for name in ("b", "y"):
        value = strange.proto.graph.value_info.add()
        value.CopyFrom(strange.proto.graph.output[0])
        value.name = name
    with pytest.raises(CalibrationError, match=r"up to 'y': m: .*can't run it"):
        Walk(strange, {"y": 1}, [{"x": weight(1, 3)}])

    def stops(feeds: object) -> dict[str, np.ndarray]:
        raise BuildError("m: ONNX Runtime stopped: too much")

    monkeypatch.setattr(module.reference, "build_piece", lambda piece: stops)
    with pytest.raises(CalibrationError, match="up to 'a': m: ONNX Runtime stopped"):
        Walk(model(), {"a": 1}, feeds(3))


@pytest.mark.parametrize(("axis", "shape"), [(1, (4,)), (-1, (6,)), (0, (2,))])
def test_a_mean_along_any_axis(axis: int, shape: tuple[int, ...]) -> None:
    x = weight(2, 4, 5, 6)
    others = tuple(i for i in range(4) if i != axis % 4)
    found = channel_mean(x, axis)
    assert found.dtype == np.float64
    assert found.shape == shape
    np.testing.assert_allclose(found, x.mean(axis=others, dtype=np.float64), rtol=1e-12)
