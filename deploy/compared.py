"""What two engines made of one sample: the terms of every figure, before they are summed.

Terms are made wherever the engines run, and summed in the order of the samples, so that a report
is the same to the last bit however many machines made them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.parity import SampleParity
from deploy.batches import batches, feeds_of, fixed_batch, groups, rows
from deploy.metrics import Error
from deploy.task import Outputs, Task, Term

# samples whose feeds and outputs are kept as evidence: so many first ones, so many worst ones
KEPT = 8


@dataclass(frozen=True)
class Evidence:
    """A sample with what both engines computed."""

    sample: Sample
    reference: Outputs
    engine: Outputs


@dataclass(frozen=True)
class Compared:
    """One sample. errors: per output, the sums over this sample alone.

    term: what it adds to the task's figures, where there is a task. evidence: only where it may be
    wanted.
    """

    found: SampleParity
    errors: Mapping[str, Error]
    labelled: bool
    term: Term | None
    evidence: Evidence | None

    @property
    def badness(self) -> float:
        """Larger is worse."""
        return -self.found.sqnr_db


def group_size(reference: Engine, engine: Engine) -> int:
    """How many samples are run together."""
    return max(fixed_batch(reference.inputs), fixed_batch(engine.inputs))


def compared(
    reference: Engine, engine: Engine, samples: Iterable[Sample], task: Task | None
) -> Iterator[Compared]:
    """Every sample through both engines, in order, and what the task says of each."""
    for group in groups(samples, group_size(reference, engine)):
        expected, got = _run(reference, group), _run(engine, group)
        for sample, left, right in zip(group, expected, got, strict=True):
            yield _compare(Evidence(sample, left, right), task)


def lean(all_of_them: Iterable[Compared], start: int) -> list[Compared]:
    """The same without the evidence nobody will want: not of the first samples, nor of the worst
    among these. start: the index of the first one in the whole set."""
    found: list[Compared] = []
    worst: list[tuple[float, int, Evidence | None]] = []
    for index, one in enumerate(all_of_them):
        push(worst, (one.badness, index, one.evidence))
        found.append(one if start + index < KEPT else replace(one, evidence=None))
    for _, index, evidence in worst:
        found[index] = replace(found[index], evidence=evidence)
    return found


def push(heap: list, item: object) -> None:  # type: ignore[type-arg]
    """Keep the `KEPT` items with the largest key."""
    if len(heap) < KEPT:
        heapq.heappush(heap, item)
    else:
        heapq.heappushpop(heap, item)


def add(total: Error, one: Error) -> None:
    """One sample's sums to those of the samples before it."""
    total.signal += one.signal
    total.candidate += one.candidate
    total.product += one.product
    total.noise += one.noise
    total.max_abs = max(total.max_abs, one.max_abs)
    total.reference_max = max(total.reference_max, one.reference_max)
    total.count += one.count


def _compare(evidence: Evidence, task: Task | None) -> Compared:
    errors = {}
    for name, value in evidence.reference.items():
        errors[name] = Error()
        errors[name].add(value, evidence.engine[name])
    sample = evidence.sample
    found = SampleParity(sample.name, min(error.sqnr_db for error in errors.values()))
    labelled = sample.label is not None or sample.truth is not None
    if task is None:
        return Compared(found, errors, labelled, None, evidence)
    term = task.term(found, sample, evidence.reference, evidence.engine)
    return Compared(term.found, errors, labelled, term, evidence)


def _run(engine: Engine, samples: list[Sample]) -> list[dict[str, np.ndarray]]:
    """Every sample's outputs, run in the batch size the engine fixes."""
    results = []
    for group, size in batches(samples, engine.inputs):
        feeds = feeds_of(group, size)
        # an input that nothing reads may be gone from the engine
        outputs = engine.run({spec.name: feeds[spec.name] for spec in engine.inputs})
        for index in range(len(group)):
            results.append({name: rows(x, index, size) for name, x in outputs.items()})
    return results
