"""What INT8 accuracy is judged on: models, their data and task figures, and what must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import task_data
import tasks
from real_models import MODELS

from deploy.metrics import Error

Outputs = Sequence[Mapping[str, np.ndarray]]
# of a softmax, below which its logarithm is the runtime's own round-off
_SMALLEST = 1e-12
_WORDS: dict[str, tuple[None, None]] = {"input_ids": (None, None), "attention_mask": (None, None)}


@dataclass(frozen=True)
class Goal:
    """SQNR in dB and top-1 agreement with float32 in % that a form has to reach."""

    sqnr_db: float
    agreement: float = 0.0


@dataclass(frozen=True)
class Judge:
    """One model. output: the one judged; softmax: it is one, and judged by its logits.

    more: a second dataset to judge on. figure: the task's, of all outputs, where it isn't top-1;
    sign: 1 if more is better. goals: by form and effort.
    """

    name: str
    recipe: Mapping[str, Any]
    output: str
    softmax: bool = False
    more: str = ""
    figure: Callable[[Sequence[np.ndarray]], float] | None = None
    unit: str = "top-1 %"
    sign: int = 1
    goals: Mapping[tuple[str, str], Goal] = field(default_factory=dict)

    def error(self, exact: Outputs, found: Outputs) -> Error:
        """How far the output is from float32's, over all samples."""
        error = Error()
        for x, y in zip(exact, found, strict=True):
            error.add(self._scores(x[self.output]), self._scores(y[self.output]))
        return error

    def agreement(self, exact: Outputs, found: Outputs) -> float:
        """% of rows whose largest score is the same class; NaN where the output has no scores."""
        if self.figure is not None and not self.softmax:
            return float("nan")
        pairs = zip(exact, found, strict=True)
        same = [x[self.output].argmax(-1) == y[self.output].argmax(-1) for x, y in pairs]
        return 100 * float(np.concatenate([s.reshape(-1) for s in same]).mean())

    def task(self, found: Outputs, labels: Sequence[int | None]) -> float:
        """The task's own figure."""
        outputs = [out[self.output][0] for out in found]
        if self.figure is not None:
            return self.figure(outputs)
        pairs = zip(outputs, labels, strict=True)
        return 100 * float(np.mean([x.argmax() == label for x, label in pairs]))

    def _scores(self, x: np.ndarray) -> np.ndarray:
        """The logits up to the constant that a softmax forgets."""
        if not self.softmax:
            return x
        logits = np.log(np.maximum(x.astype(np.float64), _SMALLEST))
        return np.asarray(logits - logits.mean(-1, keepdims=True))


def judges() -> list[Judge]:
    """All models, the four classifiers first."""
    return [*_classifiers(), *_tasks()]


def _goals(*figures: float) -> dict[tuple[str, str], Goal]:
    """asymmetric dB and %, symmetric dB and %, then dB of best effort for both (0: none)."""
    low, top, low_symmetric, top_symmetric, best, best_symmetric = figures
    found = {
        ("asymmetric", "default"): Goal(low, top),
        ("symmetric", "default"): Goal(low_symmetric, top_symmetric),
        ("asymmetric", "best"): Goal(best),
        ("symmetric", "best"): Goal(best_symmetric),
    }
    return {key: goal for key, goal in found.items() if goal.sqnr_db}


def _classifiers() -> list[Judge]:
    figures = {
        "mobilenetv2_1.0_imagenet": (21.5, 95, 20.5, 94, 24, 23),
        "resnet20_cifar10": (30.5, 99.25, 27, 98.75, 0, 0),
        "shufflenetv1_0.5g3_cifar10": (25.5, 98.5, 21.5, 98, 30.5, 0),
        "dscnn_kws": (35.5, 98.3, 25, 96, 39, 36),
    }
    more = {"mobilenetv2_1.0_imagenet": "imagenet_val600"}
    return [
        Judge(name, _found(MODELS[name]), "", more=_path(more.get(name, "")), goals=_goals(*goals))
        for name, goals in figures.items()
    ]


def _found(recipe: Mapping[str, Any]) -> dict[str, Any]:
    paths = {key: _path(str(recipe[key])) for key in ("data", "eval_data") if key in recipe}
    return {**recipe, **paths}


def _path(name: str) -> str:
    return str(task_data.ASSETS / "data" / name) if name else ""


def _tasks() -> list[Judge]:
    lines = {"data": "python:task_data:turned_lines", "shape": {"x": (None, 3, 48, 192)}}
    read = {"data": "python:task_data:lines", "shape": {"x": (None, 3, 48, 480)}}
    photographs = {"data": "python:task_data:photographs", "task": "none"}
    words = {"data": "python:task_data:sentences", "shape": _WORDS, "task": "none"}
    return [
        Judge("ppocr_cls_mobilenetv3se", lines, "", softmax=True),
        Judge(
            "ppocrv4_en_rec", read, "", softmax=True, figure=_read_wrongly, unit="CER %", sign=-1
        ),
        Judge("fastestdet_shufflenetv2_coco", photographs, "", figure=_detected, unit="AP50 %"),
        Judge(
            "minilm_l6_trim_fp16stored",
            words,
            "sentence_embedding",
            figure=_alike,
            unit="Spearman %",
        ),
    ]


def _read_wrongly(outputs: Sequence[np.ndarray]) -> float:
    return tasks.character_error_rate(outputs, task_data.transcripts(), task_data.alphabet())


@cache
def _objects() -> list[task_data.Truth]:
    return task_data.objects()


def _detected(outputs: Sequence[np.ndarray]) -> float:
    return tasks.average_precision(outputs, _objects())


def _alike(outputs: Sequence[np.ndarray]) -> float:
    """The embeddings have length 1, so their products are cosines."""
    both = np.stack(outputs).astype(np.float64)
    return 100 * tasks.spearman((both[::2] * both[1::2]).sum(axis=1), task_data.similarities())
