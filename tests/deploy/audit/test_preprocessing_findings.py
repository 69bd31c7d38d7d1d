"""When another preprocessing is called likely, and when nothing is said."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.preprocess import Preprocess
from calibrators.samples import Sample
from deploy.audit.hypotheses import Hypothesis, alternatives
from deploy.audit.plausibility import Image, OffCentre, Scored, scored
from deploy.audit.preprocessing_findings import (
    Way,
    clear_evidence,
    image_input,
    not_told,
    preprocessing_findings,
)
from tests.deploy.tiny_models import model, node, normal

COUNT = 100
SWAP = Hypothesis("swap", "--color BGR", np.ones(3), np.zeros(3), swaps=True)
NORM = Hypothesis("norm", "--mean 0.5", np.ones(3), np.zeros(3), normed=True)
OWN = Hypothesis("as it is", "", np.ones(3), np.zeros(3))


def way(
    one: Hypothesis,
    steadiness: float,
    *,
    off: float | None = None,
    right: int = 0,
) -> Way:
    """Steadiness with a spread of 0.1 around that mean; the first `right` samples are right."""
    spread = np.linspace(-0.1, 0.1, COUNT)
    spread = spread if one is OWN else spread[::-1]
    found = Scored(steadiness + spread, np.full(COUNT, 0.5), np.arange(COUNT) < right)
    return Way(one, off, found)


@pytest.mark.parametrize(("gain", "expected"), [(0.04, False), (0.06, True)])
def test_another_order_has_to_be_steadier_by_some(gain: float, expected: bool) -> None:
    assert clear_evidence(way(OWN, 0.5), way(SWAP, 0.5 + gain), False) is expected


def test_a_gain_within_noise_is_no_evidence() -> None:
    """0.06 on average, but 0 +- 1 per sample: 0.6 standard errors."""
    noisy = np.where(np.arange(COUNT) % 2 == 0, 1.0, -1.0) + 0.06
    flat = np.zeros(COUNT)
    own = Way(OWN, None, Scored(flat, flat, flat > 0))
    other = Way(SWAP, None, Scored(noisy, flat, flat > 0))
    assert not clear_evidence(own, other, False)


@pytest.mark.parametrize(("right", "expected"), [(50, False), (54, False), (62, True)])
def test_labels_decide_where_they_tell_something(right: int, expected: bool) -> None:
    """Steadiness speaks for it, or not: without more right labels nothing is said; and 12 of 100
    more, none fewer, is 3.7 standard errors."""
    own = way(OWN, 0.5, right=50)
    assert clear_evidence(own, way(SWAP, 0.5, right=right), True) is expected
    assert clear_evidence(own, way(SWAP, 0.9, right=50), True) is False


@pytest.mark.parametrize(
    ("off", "steadier", "expected"),
    [
        (1.2, 0.3, False),
        (1.3, 0.3, True),
        (1.3, 0.03, True),
        (1.3, 0.01, False),
        (3.0, -0.1, False),
    ],
)
def test_another_norm_needs_centred_layers_and_steadier_scores(
    off: float, steadier: float, expected: bool
) -> None:
    own, other = way(OWN, 0.5, off=off), way(NORM, 0.5 + steadier, off=1.0)
    assert clear_evidence(own, other, False) is expected


def test_steadier_scores_alone_are_no_evidence_of_another_norm() -> None:
    """Where inner layers tell nothing, 255 times the pixels make any linear layer surer."""
    assert not clear_evidence(way(OWN, 0.3), way(NORM, 0.9), False)
    assert clear_evidence(way(OWN, 0.3, right=30), way(NORM, 0.9, right=90), True)


@pytest.mark.parametrize(("off", "expected"), [(1.6, False), (2.0, True)])
def test_inner_layers_alone_have_to_be_far_off(off: float, expected: bool) -> None:
    assert clear_evidence(Way(OWN, off, None), Way(NORM, 1.0, None), False) is expected


def test_without_scores_the_order_is_not_judged() -> None:
    both = Hypothesis("both", "", np.ones(3), np.zeros(3), swaps=True, normed=True)
    assert not clear_evidence(Way(OWN, 9.0, None), Way(SWAP, 9.0, None), False)
    assert not clear_evidence(Way(OWN, 9.0, None), Way(both, 1.0, None), False)


def three_convs(*, norm: bool = False) -> object:
    """Three 1x1 convolutions, the first followed by a normalization or not."""
    weights = {f"w{i}": normal(4, 3 if i == 0 else 4, 1, 1, seed=i) for i in range(4)}
    weights |= {"scale": np.ones(4, np.float32), "bias": np.zeros(4, np.float32)}
    weights |= {"mean": normal(4, seed=8), "var": np.array([1, 4, 9, 16], np.float32)}
    nodes = [node("Conv", ["x", "w0"], ["c0"], name="c0")]
    if norm:
        nodes.append(
            node("BatchNormalization", ["c0", "scale", "bias", "mean", "var"], ["n0"], name="n0")
        )
    nodes.append(node("Relu", ["n0" if norm else "c0"], ["r0"]))
    for i in (1, 2, 3):
        nodes.append(
            node("Conv", [f"r{i - 1}", f"w{i}"], [f"c{i}" if i < 3 else "y"], name=f"c{i}")
        )
        if i < 3:
            nodes.append(node("Relu", [f"c{i}"], [f"r{i}"]))
    return model(nodes, {"x": ["N", 3, 5, 7]}, {"y": ["N", 4, 5, 7]}, weights)


@pytest.mark.parametrize("norm", [False, True])
def test_off_centre_against_numpy(norm: bool) -> None:
    tiny = three_convs(norm=norm)
    random = np.random.default_rng(2)
    xs = [random.random((1, 3, 5, 7)).astype(np.float32) + 0.3 for _ in range(4)]
    measure = OffCentre(tiny, Image("x", 1))  # type: ignore[arg-type]
    assert list(measure.layers) == ["c0", "c1", "c2"]
    assert measure.enough
    (found,) = measure.of([OWN], [Sample("s", {"x": x}) for x in xs])
    weights = [normal(4, 3 if i == 0 else 4, 1, 1, seed=i)[:, :, 0, 0] for i in range(3)]
    value = np.concatenate([x.reshape(3, -1) for x in xs], axis=1).astype(np.float64)
    known, spread = normal(4, seed=8).astype(np.float64), np.array([1.0, 2, 3, 4])
    expected = []
    for i, w in enumerate(weights):
        out = w @ value
        off = np.abs(out.mean(1)) / out.std(1)
        if norm and i == 0:
            off = np.abs(out.mean(1) - known) / spread + np.abs(np.log(out.std(1) / spread))
        expected.append(np.median(np.minimum(off, 50)))
        if norm and i == 0:
            out = (out - known[:, None]) / np.sqrt(spread[:, None] ** 2 + 1e-5)
        value = np.maximum(out, 0)
    assert found == pytest.approx(np.mean(expected), rel=1e-3)


def test_steadiness_counts_agreement_above_chance() -> None:
    """Scores are the channels' means: certain of one class for all is worth nothing."""
    pooled = model(
        [node("GlobalAveragePool", ["x"], ["y"])], {"x": ["N", 3, 8, 16]}, {"y": ["N", 3, 1, 1]}
    )
    random = np.random.default_rng(6)
    samples = []
    for i in range(9):
        x = random.random((1, 3, 8, 16)).astype(np.float32)
        x[:, i % 3] += 9
        samples.append(Sample(f"s{i}", {"x": x}, i % 3))
    same = Hypothesis("same", "", np.array([1.0, 1, 1]), np.array([99.0, 0, 0]), normed=True)
    spread, alike = scored(pooled, Image("x", 1), "y", [OWN, same], samples)
    assert spread.steadiness.mean() == pytest.approx(1 - 2 / 8, abs=1e-3)
    assert spread.right.all()
    assert alike.confidence.min() > 0.999
    assert alike.steadiness == pytest.approx(np.zeros(9), abs=1e-6)
    assert alike.right.mean() == pytest.approx(1 / 3)


def test_image_input_by_layout_and_channels() -> None:
    nchw = model([node("Relu", ["x"], ["y"])], {"x": ["N", 3, 8, 16]}, {"y": ["N", 3, 8, 16]})
    assert image_input(nchw, Preprocess()) == Image("x", 1)
    assert image_input(nchw, Preprocess(layout="NHWC")) is None
    wide = model([node("Relu", ["x"], ["y"])], {"x": ["N", 8, 16]}, {"y": ["N", 8, 16]})
    assert image_input(wide, Preprocess()) is None


def test_what_cannot_be_told_is_said() -> None:
    found = alternatives(np.zeros(3), np.ones(3), Preprocess())
    assert "class scores" in not_told(found, None)[0]
    assert not any("class scores" in each for each in not_told(found, "y"))
    assert "no single float input takes pictures" in not_told(None, "y")[0]
    (few,) = not_told(found, "y", norms_judged=False)
    assert "can't be told without labels" in few
    unknown = alternatives(np.full(3, -900.0), np.ones(3), Preprocess())
    assert "fit none of the usual ways" in not_told(unknown, "y")[0]


def test_norms_that_centre_the_layers_as_well_are_named_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of -1..1 at 1.0, ImageNet at 1.05 and the others far off, both first are said."""
    found = alternatives(np.zeros(3), np.ones(3), Preprocess())
    assert found is not None
    figures = {"as it is": 3.0, "values of -1..1, mean and std 0.5": 1.0}
    figures["the mean and std of ImageNet"] = 1.05

    def of(self: OffCentre, ways: list[Hypothesis], samples: object) -> list[float]:
        return [figures.get(one.title, 9.0) for one in ways]

    monkeypatch.setattr(OffCentre, "of", of)
    given = [Sample(f"s{i}", {"x": np.zeros((1, 3, 5, 7), np.float32)}) for i in range(8)]
    tiny = three_convs()
    (warning,) = preprocessing_findings(tiny, Image("x", 1), None, found, given)  # type: ignore[arg-type]
    assert warning.observed.startswith("with values of -1..1, mean and std 0.5 inner layers are")
    assert warning.advice.endswith("(about as likely: the mean and std of ImageNet)")
    figures["the mean and std of ImageNet"] = 1.2
    (alone,) = preprocessing_findings(tiny, Image("x", 1), None, found, given)  # type: ignore[arg-type]
    assert "about as likely" not in alone.advice
