"""Whether the samples look prepared the way the model was trained: mean, std, scale, colours.

The usual other ways are tried on a few samples (`hypotheses`), and judged by what the model itself
makes of them (`plausibility`). Nothing is said without clear evidence: a measure has to rise by an
amount that matters and by three standard errors, and none of the others may speak against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibrators.preprocess import Preprocess
from calibrators.samples import Sample, evenly_spaced
from deploy.artifacts.audit import Finding
from deploy.artifacts.model import Model
from deploy.audit.hypotheses import Alternatives, Hypothesis
from deploy.audit.plausibility import Image, OffCentre, Scored, scored

# samples that the inner layers are looked at with: their channels hold many values each
_INNER = 6
_FEWEST = 8
# off_centre of what is fed, over that of another way. On the shared models: right 0.91 at most over
# what would change the task, -1..1 for ImageNet's mean and std 1.3, none for these 1.9 and more.
# Lines of text, unlike what a network saw in training, reach 1.47 prepared right: hence _OFF_ALONE
_OFF = 1.25
_OFF_ALONE = 1.9
_STEADIER = 0.05
_MORE_RIGHT = 0.05
_CERTAIN = 3.0
# within this of the best centred way another one is as likely
_AS_GOOD = 1.1
# another way to swap as well has to be this much better than without, to be named
_SIMPLER = 0.03


@dataclass(frozen=True)
class Way:
    """A hypothesis with what was measured of it; what couldn't be measured is None."""

    one: Hypothesis
    off_centre: float | None
    scored: Scored | None


def image_input(model: Model, preprocess: Preprocess) -> Image | None:
    """The one float input of rank 4 that takes pictures, and its channel axis."""
    axis = 1 if preprocess.layout == "NCHW" else 3
    images = [
        Image(spec.name, axis)
        for spec in model.inputs
        if spec.dtype == np.float32 and len(spec.shape) == 4 and spec.shape[axis] in (1, 3, None)
    ]
    return images[0] if len(images) == 1 else None


def preprocessing_findings(
    model: Model,
    image: Image,
    scores: str | None,
    found: Alternatives,
    samples: Sequence[Sample],
) -> list[Finding]:
    """A warning that names the likely right way, or nothing. scores: the output with the class
    scores; samples: a few dozen, their picture prepared as now."""
    if len(samples) < _FEWEST:
        return []
    off = _off_centre(model, image, found, samples)
    labelled = scores is not None and all(each.label is not None for each in samples)
    ways = _worth_trying(found, off, labelled)
    measured: list[Scored | None] = [None] * len(ways)
    if scores is not None:
        measured = [*scored(model, image, scores, ways, samples)]
    own, *others = (
        Way(one, off.get(_key(one)), result) for one, result in zip(ways, measured, strict=True)
    )
    informative = _labels_inform([own, *others], [each.label for each in samples])
    clear = [other for other in others if clear_evidence(own, other, informative)]
    if not clear:
        return []
    best = _named(clear, informative)
    finding = _finding(own, best, informative, len(samples))
    also = _as_good(found, off, best)
    return [replace(finding, advice=f"{finding.advice} ({also})") if also else finding]


def not_told(
    found: Alternatives | None, scores: str | None, *, norms_judged: bool = True
) -> list[str]:
    """What stays unknown, in words. norms_judged: whether anything told one norm from another."""
    if found is None:
        return ["Preprocessing was not examined: no single float input takes pictures."]
    said = []
    if scores is None and found.swapped:
        said.append(
            "The order of colours can't be told without class scores: the inner layers look nearly "
            "the same either way."
        )
    if not found.known:
        said.append(
            "Scale, mean and std were not examined: the values fit none of the usual ways to "
            "prepare pictures."
        )
    elif not norms_judged:
        said.append(
            "Scale, mean and std can't be told without labels: the model has too few convolutions."
        )
    else:
        said.append(
            "Means and stds that differ by little (such as ImageNet's and CIFAR-10's) can't be "
            "told apart, nor can resizing and cropping."
        )
    return said


def _key(one: Hypothesis) -> str:
    """What the order of colours doesn't change."""
    return repr((one.factor.tolist(), one.shift.tolist()) if one.normed else "as it is")


def _off_centre(
    model: Model, image: Image, found: Alternatives, samples: Sequence[Sample]
) -> dict[str, float]:
    inner = OffCentre(model, image)
    ways = [found.own, *found.norms]
    if not inner.enough or not found.norms:
        return {}
    chosen = [samples[i] for i in evenly_spaced(range(len(samples)), _INNER)]
    return {_key(one): v for one, v in zip(ways, inner.of(ways, chosen), strict=True)}


def _worth_trying(
    found: Alternatives, off: Mapping[str, float], labelled: bool
) -> list[Hypothesis]:
    """What is fed now, first; the colours swapped; and the norm with the best centred layers, or
    all norms when only labels can tell, with either order."""
    ways = [found.own]
    norms = list(found.norms) if off or labelled else []
    if off:
        best = min(norms, key=lambda one: off[_key(one)])
        norms = [best] if off[_key(found.own)] >= _OFF * off[_key(best)] else []
    keys = {_key(one) for one in norms}
    ways += norms
    return ways + [one for one in found.swapped if not one.normed or _key(one) in keys]


def _labels_inform(ways: Sequence[Way], labels: Sequence[int | None]) -> bool:
    """Whether labels are there and number the classes as the model does: some way gets them right
    far more often than naming the most frequent one would."""
    if any(way.scored is None for way in ways) or any(label is None for label in labels):
        return False
    frequent = max(labels.count(label) for label in set(labels)) / len(labels)
    best = max(float(way.scored.right.mean()) for way in ways if way.scored is not None)
    return best >= min(3 * frequent, (1 + frequent) / 2) and best >= 0.2


def clear_evidence(own: Way, other: Way, informative: bool) -> bool:
    """Whether `other` is better than what is fed now beyond doubt. informative: labels count."""
    off = None
    if own.off_centre is not None and other.off_centre is not None and other.one.normed:
        off = own.off_centre / max(other.off_centre, 1e-9)
    if own.scored is None or other.scored is None:
        return off is not None and off >= _OFF_ALONE and not other.one.swaps
    steadier = _gain(other.scored.steadiness, own.scored.steadiness)
    righter = _gain(other.scored.right, own.scored.right)
    if informative:
        if righter[0] <= 0:
            return False
        if righter[0] >= _MORE_RIGHT and righter[1] >= _CERTAIN:
            return True
    certain = steadier[0] >= _STEADIER and steadier[1] >= _CERTAIN
    if not other.one.normed:
        return certain
    # another scale may make scores merely surer, so the inner layers have to speak for it, too
    if off is None:
        return False
    return off >= _OFF and (certain or (steadier[0] >= 0.02 and steadier[1] >= 2.0))


def _as_good(found: Alternatives, off: Mapping[str, float], best: Way) -> str:
    """Other norms that centre the layers about as well, in words."""
    if not best.one.normed or best.off_centre is None:
        return ""
    titles = [
        one.title
        for one in found.norms
        if _key(one) != _key(best.one) and off[_key(one)] <= _AS_GOOD * best.off_centre
    ]
    return f"about as likely: {' or '.join(titles)}" if titles else ""


def _gain(other: np.ndarray, own: np.ndarray) -> tuple[float, float]:
    """The mean difference per sample, and that in standard errors."""
    difference = other.astype(np.float64) - own.astype(np.float64)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / len(difference) ** 0.5
    return mean, mean / max(error, 1e-6)


def _named(clear: Sequence[Way], informative: bool) -> Way:
    """The best of them; one that changes more than another has to be better by some."""

    def merit(way: Way) -> float:
        if way.scored is None:
            return -(way.off_centre or 0.0)
        steady = float(way.scored.steadiness.mean())
        return steady + (float(way.scored.right.mean()) if informative else 0.0)

    by_changes = sorted(clear, key=lambda way: way.one.normed + way.one.swaps)
    best = by_changes[0]
    for way in by_changes[1:]:
        if merit(way) > merit(best) + (_SIMPLER if way.scored is not None else 0.0):
            best = way
    return best


def _finding(own: Way, best: Way, informative: bool, count: int) -> Finding:
    told = []
    if best.one.normed and own.off_centre is not None and best.off_centre is not None:
        told.append(
            f"inner layers are off centre by {own.off_centre:.2f} -> {best.off_centre:.2f} of a "
            "standard deviation"
        )
    if own.scored is not None and best.scored is not None:
        if informative:
            told.append(f"labels agree {_share(own.scored.right)} -> {_share(best.scored.right)}")
        told.append(
            "scores stay with a slightly moved picture "
            f"{own.scored.steadiness.mean():.2f} -> {best.scored.steadiness.mean():.2f}"
        )
        told.append(
            "the mean top-1 probability goes from "
            f"{own.scored.confidence.mean():.2f} to {best.scored.confidence.mean():.2f}"
        )
    return Finding(
        "likely wrong preprocessing",
        "warn",
        f"with {best.one.title} {', '.join(told)} (of {count} samples)",
        "the model sees other values than in training: ranges, and every result, are off",
        f"check how it was trained, then try {best.one.flags}, or prepare ready data so",
    )


def _share(right: np.ndarray) -> str:
    return f"{100 * float(right.mean()):.0f} %"
