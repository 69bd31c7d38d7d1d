"""What a task promises, and which output of a classifier holds its class scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import onnx

from calibrators.samples import Sample
from deploy.artifacts.model import Model, TensorSpec
from deploy.artifacts.parity import Predictions, SampleParity, TaskParity
from deploy.errors import RecipeError, nearest

Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Term:
    """What one sample adds to a task's figures.

    found: the sample with what both predicted. agrees: whether that is the same. values: the
    task's own, plain data that travels between machines.
    """

    found: SampleParity
    agrees: bool
    values: Any


@dataclass(frozen=True)
class TaskResult:
    """A task's figures over all samples: between the two, and against labels where there are."""

    predictions: Predictions
    scored: TaskParity | None


class Task(Protocol):
    """A way to judge predictions; `deploy/tasks/<name>.py` holds one, a class of that name.

    A frozen dataclass: it is part of what a finished parity stage is kept under, and travels to
    workers.
    """

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        """The task for a model's outputs; RecipeError where the options don't fit them."""
        ...

    def term(
        self, found: SampleParity, sample: Sample, reference: Outputs, engine: Outputs
    ) -> Term:
        """One sample, alone; CalibrationError where its truth is no truth of this task."""
        ...

    def result(self, terms: Sequence[Term]) -> TaskResult:
        """All of them, in the order of the samples."""
        ...


# ops behind the last layer that don't change what the numbers are
_PASSES = ("Softmax", "LogSoftmax", "Identity", "Reshape", "Flatten", "Squeeze", "Add", "Cast")
_CERTAIN = ("Gemm", "MatMul", "Softmax", "LogSoftmax")
# a pooled map may be scores (SqueezeNet) or features: believed only where nothing better is
_MAYBE = ("Conv", "GlobalAveragePool", "AveragePool", "ReduceMean")


def class_scores(model: Model, task: str, labelled: bool, named: str | None = None) -> str | None:
    """The name of the output that holds one score per class, or None.

    task: "auto" takes the output that ends like a classifier (a fully connected layer or Softmax,
    else a pooled convolution) or, with labels, the only one of the right shape; "classify" insists
    on one; others have none. named: the output to take. RecipeError where several could be meant.
    """
    names = [spec.name for spec in model.outputs]
    if named is not None and named not in names:
        raise RecipeError(
            f"--scores {named!r}{nearest(named, names)}: not an output; there are: "
            f"{', '.join(names)}"
        )
    meant = next((spec for spec in model.outputs if spec.name == named), None)
    if meant is not None and meant.dtype.kind != "f" and not _one_integer(meant, model):
        raise RecipeError(
            f"--scores {named}: {meant} holds neither a score per class nor one class's number; "
            "name another output, or the --task that the model is for"
        )
    if named is not None or task not in ("auto", "classify"):
        return named
    shaped = [spec.name for spec in model.outputs if _one_score_per_class(spec)]
    ends = {name: _last_layer(model.proto.graph, name) for name in shaped}
    certain = [name for name in shaped if ends[name] in _CERTAIN]
    maybe = [name for name in shaped if ends[name] in _MAYBE]
    wanted = task == "classify" or labelled
    found = certain or maybe or (shaped if wanted else [])
    if len(found) > 1 and wanted:
        raise RecipeError(
            f"{', '.join(found)}: {len(found)} outputs could hold the class scores; say which: "
            f"--scores {found[0]}, or --task none"
        )
    return found[0] if len(found) == 1 else None


def class_number(model: Model, task: str) -> str | None:
    """The name of the output that is the class itself: the only one that ends in an ArgMax of
    scores, one integer per sample."""
    if task not in ("auto", "classify"):
        return None
    found = [
        spec.name
        for spec in model.outputs
        if _one_integer(spec, model) and _last_layer(model.proto.graph, spec.name) == "ArgMax"
    ]
    return found[0] if len(found) == 1 else None


def _one_integer(spec: TensorSpec, model: Model) -> bool:
    """An integer per sample: no sizes but the batch's, ones aside."""
    batches = [given.shape[0] for given in model.inputs if given.shape]
    alone = bool(spec.shape) and all(size == 1 for size in spec.shape[1:])
    return spec.dtype.kind in "iu" and alone and spec.shape[0] in batches


def _one_score_per_class(spec: TensorSpec) -> bool:
    """A float output whose sizes, the batch left out, are one number of classes and ones."""
    sizes = [size for size in spec.shape[1:] if size != 1]
    return spec.dtype.kind == "f" and len(spec.shape) > 1 and len(sizes) == 1


def _last_layer(graph: onnx.GraphProto, output: str) -> str:
    """The operator an output comes from, seen through what only passes numbers on."""
    producers = {name: node for node in graph.node for name in node.output}
    name = output
    while name in producers:
        node = producers[name]
        if node.op_type in (*_CERTAIN, *_MAYBE) or node.op_type not in _PASSES:
            return str(node.op_type)
        name = next((i for i in node.input if i in producers), "")
    return ""
