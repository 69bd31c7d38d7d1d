"""Parity over workers: every sample is compared there, and the figures are put together here."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from calibrators.preprocess import Preprocess
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.parity import ParityReport
from deploy.build import load_engine
from deploy.cluster.fitness import Needs
from deploy.cluster.parts import Part, Plan, results
from deploy.cluster.workers import Workers
from deploy.compared import Compared, compared, group_size, lean
from deploy.data import SampleSet
from deploy.fold_input import exact_engine
from deploy.parity import Limits, judged
from deploy.target import Precision, Target
from deploy.task import Task


@dataclass(frozen=True)
class Pair:
    """What is compared, as it travels: the untouched model, and an engine's folder."""

    source: Model
    fed_like: Model
    preprocess: Preprocess
    files: dict[str, bytes]
    target: Target
    precision: Precision

    @classmethod
    def of(
        cls,
        exact: tuple[Model, Model, Preprocess],
        folder: Path,
        target: Target,
        precision: Precision,
    ) -> Pair:
        """exact: what `exact_engine` takes. folder: what `build` wrote."""
        source, fed_like, preprocess = exact
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        # without what they were made by, and what they have cached
        source, fed_like = (Model(m.proto, m.name) for m in (source, fed_like))
        return cls(source, fed_like, preprocess, files, target, precision)

    @contextmanager
    def opened(self) -> Iterator[tuple[Engine, Engine]]:
        """The exact engine and the one that is judged, ready to run."""
        with tempfile.TemporaryDirectory(prefix="onnx-deploy-") as scratch:
            for name, content in self.files.items():
                path = Path(scratch) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            with (
                exact_engine(self.source, self.fed_like, self.preprocess) as exact,
                load_engine(Path(scratch), self.target, self.precision) as engine,
            ):
                yield exact, engine


def parity_on(
    workers: Workers,
    pair: Pair,
    samples: SampleSet,
    limits: Limits,
    *,
    evidence: Path | None = None,
    parts: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> ParityReport:
    """What `parity` gives in one process, to the same bytes, evidence included.

    parts: tasks to make of it, 0 for as many as pay; never changes the result.
    """
    needs = Needs(pair.target.backend, all_cores=True)
    shared = pickle.dumps(pair)
    # asked of a worker: the vendor's library may be missing here
    (align,) = workers.map(_group_size, shared, [None], needs)
    plan = Plan(needs, parts, align, advance)
    found = results(workers, _Compare(limits.task), shared, samples, plan)
    everyone = (one for part in found for one in part)
    return judged(everyone, limits, samples.about, evidence)


def _group_size(shared: bytes, shard: None) -> int:
    with pickle.loads(shared).opened() as (exact, engine):
        return group_size(exact, engine)


@dataclass(frozen=True)
class _Compare:
    task: Task | None

    def __call__(self, shared: bytes, part: Part) -> list[Compared]:
        with pickle.loads(shared).opened() as (exact, engine):
            return lean(compared(exact, engine, part, self.task), part.start)
