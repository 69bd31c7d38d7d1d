"""For each task, seeded outputs of a few samples, their truths, and an engine that errs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from calibrators.samples import Sample
from calibrators.truths import Boxes, LabelMap, PairScore, Text, Truth
from deploy import registry
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import SampleParity
from deploy.task import Task, Term

COUNT = 12
Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class TaskCase:
    """outputs: per sample what float32 computes; wrong: what a bad engine computes.

    labels, truths: per sample; what float32 computes is right by them.
    """

    specs: Sequence[TensorSpec]
    options: Mapping[str, Any]
    outputs: Sequence[Outputs]
    wrong: Sequence[Outputs]
    truths: Sequence[Truth | None]
    labels: Sequence[int | None] = field(default=(None,) * COUNT)
    other: Truth | None = field(default_factory=lambda: Text("another task's"))

    def samples(self, labelled: bool = True) -> list[Sample]:
        return [
            Sample(
                f"s{i}",
                {"x": np.full((1, 3, 20, 30), i, np.float32)},
                self.labels[i] if labelled else None,
                truth=self.truths[i] if labelled else None,
            )
            for i in range(len(self.outputs))
        ]


def spec(name: str, *shape: int | None, kind: str = "f4") -> TensorSpec:
    """An output with a free batch axis."""
    return TensorSpec(name, np.dtype(kind), (None, *shape))


def task(name: str, case: TaskCase) -> Task:
    found: Task = registry.load("task", name).of(case.specs, case.options)
    return found


def terms(
    judge: Task, samples: Sequence[Sample], before: Sequence[Outputs], after: Sequence[Outputs]
) -> list[Term]:
    """Every sample's term."""
    return [
        judge.term(SampleParity(sample.name, 20.0), sample, left, right)
        for sample, left, right in zip(samples, before, after, strict=True)
    ]


def _classify(folder: Path) -> TaskCase:
    rng = np.random.default_rng(1)
    scores = [rng.standard_normal((1, 7)).astype("f4") for _ in range(COUNT)]
    return TaskCase(
        [spec("scores", 7)],
        {"output": "scores"},
        [{"scores": x} for x in scores],
        [{"scores": -x} for x in scores],
        [None] * COUNT,
        [int(x.argmax()) for x in scores],
        None,
    )


def _detect(folder: Path) -> TaskCase:
    rng = np.random.default_rng(2)
    outputs, wrong, truths = [], [], []
    for _ in range(COUNT):
        low, sides = rng.uniform(0, 12, (3, 2)), rng.uniform(4, 8, (3, 2))
        classes = rng.integers(0, 4, (3, 1))
        boxes = np.concatenate([low, low + sides], axis=1)
        table = np.concatenate([boxes, rng.uniform(0.5, 1, (3, 1)), classes], axis=1)
        moved = table.copy()
        moved[:, :4] += 7
        outputs.append({"found": table[None].astype("f4")})
        wrong.append({"found": moved[None].astype("f4")})
        corners = boxes / [30, 20, 30, 20]
        truths.append(Boxes(corners, classes[:, 0], np.zeros(3, bool)))
    options = {"decoder": "ready", "iou": 1}
    return TaskCase([spec("found", 3, 6)], options, outputs, wrong, truths)


def _segment(folder: Path) -> TaskCase:
    rng = np.random.default_rng(3)
    scores = [rng.standard_normal((1, 4, 5, 7)).astype("f4") for _ in range(COUNT)]
    return TaskCase(
        [spec("map", 4, 5, 7)],
        {},
        [{"map": x} for x in scores],
        [{"map": -x} for x in scores],
        [LabelMap(x[0].argmax(axis=0)) for x in scores],
    )


def _text(folder: Path) -> TaskCase:
    (folder / "letters.txt").write_text("a\nb\nc\n")
    rng = np.random.default_rng(4)
    scores = [rng.standard_normal((1, 9, 4)).astype("f4") for _ in range(COUNT)]
    options = {"dictionary": str(folder / "letters.txt")}
    return TaskCase(
        [spec("steps", 9, 4)],
        options,
        [{"steps": x} for x in scores],
        [{"steps": -x} for x in scores],
        [Text(_greedy(x[0])) for x in scores],
        other=PairScore("p", 1.0),
    )


def _greedy(steps: np.ndarray) -> str:
    text, before = "", 0
    for step in steps:
        best = int(step.argmax())
        text += "" if best in (0, before) else " abc"[best]
        before = best
    return text


def _embed(folder: Path) -> TaskCase:
    rng = np.random.default_rng(5)
    vectors = [rng.standard_normal((1, 6)).astype("f4") for _ in range(COUNT)]
    others = [rng.standard_normal((1, 6)).astype("f4") for _ in range(COUNT)]
    unit = [x[0] / np.linalg.norm(x) for x in vectors]
    half = COUNT // 2
    alike = [float(unit[i % half] @ unit[i % half + half]) for i in range(COUNT)]
    return TaskCase(
        [spec("vector", 6)],
        {},
        [{"vector": x} for x in vectors],
        [{"vector": x} for x in others],
        [PairScore(f"p{i % half}", alike[i]) for i in range(COUNT)],
    )


# a new task adds its line here; the contract test fails until it does
CASES: dict[str, Callable[[Path], TaskCase]] = {
    "classify": _classify,
    "detect": _detect,
    "embed": _embed,
    "segment": _segment,
    "text": _text,
}
