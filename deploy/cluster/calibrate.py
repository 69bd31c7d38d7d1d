"""Calibration over workers: the statistics of every part, merged to the ranges of all samples."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass

from deploy import registry
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.artifacts.statistics import Statistics, merged
from deploy.calibrate import statistics_of
from deploy.cluster.fitness import Needs
from deploy.cluster.parts import Part, Plan, results
from deploy.cluster.workers import Workers
from deploy.data import SampleSet


def calibrate_on(
    workers: Workers,
    model: Model,
    samples: SampleSet,
    calibrator: str,
    *,
    batch_size: int = 1,
    parts: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Ranges:
    """What `calibrate` gives in one process, to the same bytes; errors are the same, too.

    parts: tasks to make of it, 0 for as many as pay; never changes the result.
    """
    registry.path("calibrator", calibrator)  # a wrong name is said before anything is sent
    shared = pickle.dumps(Model(model.proto, model.name))
    plan = Plan(Needs(), parts, advance=advance)
    work = _Observe(calibrator, batch_size)
    return merged(list(results(workers, work, shared, samples, plan))).ranges()


@dataclass(frozen=True)
class _Observe:
    calibrator: str
    batch_size: int

    def __call__(self, shared: bytes, part: Part) -> Statistics:
        return statistics_of(
            pickle.loads(shared), part, self.calibrator, batch_size=self.batch_size
        )
