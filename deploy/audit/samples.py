"""Are these samples fit to calibrate on? Findings in words, and after how many ranges are stable.

One pass over the samples: a look at each, and every tensor's extremes on it; then a few of them
once more under other preprocessing. Judges the samples alone, so the model is the one as it was
loaded, before fusions, with its normalization layers still in it where the exporter left them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np

from calibrators import audit as sets
from calibrators.preprocess import Preprocess
from calibrators.samples import Sample, evenly_spaced
from deploy.analysis.graph_cost import graph_cost
from deploy.artifacts.audit import Audit, Curve, Finding
from deploy.artifacts.model import Model
from deploy.audit.absurd_values import absurd_values
from deploy.audit.hypotheses import Alternatives, alternatives
from deploy.audit.moments import joined, sample_moments
from deploy.audit.plausibility import Image, OffCentre
from deploy.audit.preprocessing_findings import image_input, not_told, preprocessing_findings
from deploy.audit.sample_findings import sample_findings
from deploy.audit.unlike_judged import unlike_judged
from deploy.calibrate import calibrated_tensors, inner
from deploy.errors import CalibrationError
from deploy.floats.widen import in_float32
from deploy.observation.observe import Observer
from deploy.observation.overlap import overlapped
from deploy.observation.probes import Probe
from deploy.observation.seen import Seen
from deploy.recipe import Recipe
from deploy.task import class_scores
from deploy.widen import widen

T = TypeVar("T")

# FLOP that one way to prepare the samples may cost: 49 runs of MobileNetV2
_BUDGET = 30e9
_FEWEST, _MOST = 16, 160
# what the widest-growing tensors may still gain from the second half of the samples
_STILL_GROWING = 0.25


class Samples(Protocol):
    """Samples whose number is known; `deploy.data.SampleSet` and lists are some."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


def audit(
    model: Model,
    samples: Samples,
    recipe: Recipe,
    *,
    judged: Iterable[Sample] = (),
    advance: Callable[[int], None] = lambda count: None,
) -> Audit:
    """Read the samples once and judge them; the same samples in the same order, the same Audit.

    judged: the samples that the engine will be judged on, to be compared with these. model: as
    `load` gave it, also where the recipe folds preprocessing into the engine.
    CalibrationError names a sample that holds NaN or Inf, or says that there is none.
    """
    watch = Watch(model, len(samples), recipe)
    names = calibrated_tensors(watch.model)
    probes = [Probe(name) for name in dict.fromkeys(names.values())]
    with Observer(watch.model, probes, infinite=inner(watch.model, names)) as observer:

        def work(group: list[Sample], size: int) -> None:
            for sample, tensors in zip(group, observer.observe(group, size), strict=True):
                watch.see(sample, tensors)

        overlapped(watch.numbered(watch.as_fed(samples)), watch.model.inputs, work, advance)
    return watch.audit(judged)


@dataclass(frozen=True)
class _Numbered(Sample):
    """A sample with its place: threads finish in any order."""

    place: int = 0


class Watch:
    """Keeps what an audit needs of a pass over the samples, whoever makes it: a look at each
    sample, its extremes per tensor, and the few samples that are tried with other preprocessing.

    `see` may be called from any thread, for samples that went through `numbered`.
    """

    def __init__(self, model: Model, count: int, recipe: Recipe) -> None:
        self.model = in_float32(widen(model))
        # inputs that the model as it was loaded takes in another float type
        pairs = zip(model.inputs, self.model.inputs, strict=True)
        self._widened = {new.name: new.dtype for old, new in pairs if old.dtype != new.dtype}
        self.recipe = recipe
        self.preprocess = recipe.preprocess()
        self.image = image_input(self.model, self.preprocess)
        self._wanted = set(evenly_spaced(range(count), _affordable(self.model, count)))
        self._looks: dict[int, sets.Look] = {}
        self._extremes: dict[int, np.ndarray] = {}
        self._kept: dict[int, Sample] = {}
        self._moments: dict[int, dict[str, np.ndarray]] = {}
        self._lock = threading.Lock()

    def numbered(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The same samples, each knowing its place."""
        for place, sample in enumerate(samples):
            yield _Numbered(sample.name, sample.feeds, sample.label, sample.split, place=place)

    def as_fed(self, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples as the model takes them, in float32; an engine may take raw images."""
        for sample in samples:
            fed = self._prepared(sample)
            wide = {n: fed.feeds[n].astype(dtype) for n, dtype in self._widened.items()}
            yield replace(fed, feeds={**fed.feeds, **wide})

    def see(self, sample: Sample, tensors: Mapping[str, Seen]) -> None:
        """One sample, and what each observed tensor held on it."""
        assert isinstance(sample, _Numbered)
        fed = self._prepared(sample)
        glance = sets.look(fed, self._channel_axis)
        fed_moments = sample_moments(fed.feeds, self._channel_axis)
        extremes = _extremes(tensors)
        with self._lock:
            self._looks[sample.place] = glance
            self._moments[sample.place] = fed_moments
            self._extremes[sample.place] = extremes
            if sample.place in self._wanted:
                self._kept[sample.place] = fed

    def audit(self, judged: Iterable[Sample] = ()) -> Audit:
        """The findings, once all samples were seen; judged: those to compare them with."""
        if not self._looks:
            raise CalibrationError("no samples to audit; check --data and --samples")
        looks, kept = _in_order(self._looks), _in_order(self._kept)
        labelled = sets.classes(looks) is not None
        scores = class_scores(self.model, self.recipe.task, labelled, self.recipe.scores)
        found = None
        findings = sample_findings(looks, _class_count(self.model, scores))
        if self.image is not None:
            found = _alternatives(kept, self.image, self.preprocess)
        if self.image is not None and found is not None:
            wrong = preprocessing_findings(self.model, self.image, scores, found, kept)
            findings = [*wrong, *findings]
        findings = [*self._values(judged), *findings]
        curve, growing = _curve(_in_order(self._extremes))
        ordered = sorted([*findings, *growing], key=lambda each: each.severity == "note")
        normed = labelled or (self.image is not None and OffCentre(self.model, self.image).enough)
        unknown = not_told(found, scores, norms_judged=normed)
        return Audit(len(looks), tuple(ordered), tuple(unknown), curve)

    @property
    def _channel_axis(self) -> int:
        return 1 if self.image is None else self.image.axis

    def _values(self, judged: Iterable[Sample]) -> list[Finding]:
        """What the fed values themselves show, alone and beside those that judge."""
        fed = joined(_in_order(self._moments))
        others = joined(sample_moments(s.feeds, self._channel_axis) for s in self.as_fed(judged))
        unlike = unlike_judged(fed, others, "" if self.image is None else self.image.name)
        return [each for each in (unlike, absurd_values(fed)) if each is not None]

    def _prepared(self, sample: Sample) -> Sample:
        if self.image is None or not self.preprocess.raw:
            return sample
        raw = sample.feeds[self.image.name]
        if raw.dtype != np.uint8:
            return sample
        fed = np.stack([self.preprocess.normalized(each) for each in raw])
        return replace(sample, feeds={**sample.feeds, self.image.name: fed})


def _extremes(tensors: Mapping[str, Seen]) -> np.ndarray:
    """float32[T, 2]: low and high; a tensor without elements doesn't widen anything."""
    pairs = [(s.low[0], s.high[0]) if s.low.size else (0.0, 0.0) for s in tensors.values()]
    return np.array(pairs, np.float32).reshape(-1, 2)


def _in_order(found: Mapping[int, T]) -> list[T]:
    return [found[place] for place in sorted(found)]


def _affordable(model: Model, count: int) -> int:
    """How many samples other preprocessing is tried on: by the cost of a run, not by a clock."""
    runs = int(_BUDGET / max(graph_cost(model).flops, 1))
    return min(count, max(_FEWEST, min(runs, _MOST)))


def _alternatives(
    kept: Sequence[Sample], image: Image, preprocess: Preprocess
) -> Alternatives | None:
    pictures = [sample.feeds[image.name] for sample in kept]
    if len({(x.shape[0], x.shape[image.axis]) for x in pictures}) != 1 or pictures[0].shape[0] != 1:
        return None
    others = tuple(axis for axis in range(4) if axis != image.axis)
    low = np.min([x.min(axis=others) for x in pictures], axis=0)
    high = np.max([x.max(axis=others) for x in pictures], axis=0)
    return alternatives(low.astype(np.float64), high.astype(np.float64), preprocess)


def _class_count(model: Model, scores: str | None) -> int | None:
    """How many scores the output has, where its shape says so."""
    if scores is None:
        return None
    shape = next(spec.shape for spec in model.outputs if spec.name == scores)
    sizes = [size for size in shape[1:] if size != 1]
    return sizes[0] if len(sizes) == 1 else None


def _curve(extremes: Sequence[np.ndarray]) -> tuple[Curve | None, list[Finding]]:
    both = np.stack(extremes)
    if not both.shape[1]:
        return None, []
    grown = sets.growth(both[..., 0], both[..., 1])
    missing = tuple(round(100 * part, 3) for part in grown.missing)
    curve = Curve(grown.after, missing, grown.stable_after, grown.tensors)
    if len(extremes) < 2 or grown.lacked_at_half <= _STILL_GROWING:
        return curve, []
    half = (len(extremes) + 1) // 2
    observed = (
        f"one in 20 tensors had at most {1 - grown.lacked_at_half:.0%} of its final range after "
        f"{half} of {len(extremes)} samples"
    )
    return curve, [
        Finding(
            "ranges still grow",
            "warn",
            observed,
            "more samples would widen ranges further, so what is cut off now will be met later",
            "give more samples, and check those that are far from the others",
        )
    ]
