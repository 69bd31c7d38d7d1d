"""What tasks have in common: options from the recipe, the output meant, and a drop's error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from calibrators.samples import Sample
from calibrators.truths import WORDS, Truth
from deploy.artifacts.model import TensorSpec
from deploy.errors import CalibrationError, RecipeError, nearest
from deploy.validation import explain

T = TypeVar("T")
O = TypeVar("O", bound="Options")  # noqa: E741
K = TypeVar("K", bound=Truth)

# the drop is computed again so many times, each time without a part of the samples
_GROUPS = 20


class Options(BaseModel):
    """The options of one task; from flags they come as text."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def checked(table: type[O], options: Mapping[str, Any], task: str) -> O:
    """The options as their table has them; RecipeError in one line."""
    try:
        return table.model_validate(dict(options))
    except ValidationError as error:
        raise RecipeError(f"--task-option of task {task!r}: {explain(error, table)}") from None


def output_named(
    outputs: Sequence[TensorSpec],
    named: str | None,
    fits: Callable[[TensorSpec], bool],
    what: str,
    option: str = "output",
) -> str:
    """The output that is named, or the only one that fits. what: it holds, in words."""
    names = [spec.name for spec in outputs]
    if named is not None:
        if named not in names:
            raise RecipeError(
                f"--task-option {option}={named}{nearest(named, names)}: not an output; there "
                f"are: {', '.join(names)}"
            )
        return named
    fitting = [spec.name for spec in outputs if fits(spec)]
    if len(fitting) == 1:
        return fitting[0]
    shapes = ", ".join(str(spec) for spec in outputs)
    raise RecipeError(
        f"{len(fitting)} outputs could hold {what} ({shapes}); say which: --task-option "
        f"{option}={(fitting or names)[0]}"
    )


def truth_of(sample: Sample, kind: type[K], task: str) -> K | None:
    """The sample's truth, or None; CalibrationError where it is another task's."""
    if sample.truth is None or isinstance(sample.truth, kind):
        return sample.truth
    raise CalibrationError(
        f"sample {sample.name} carries {WORDS[type(sample.truth)]}, task {task!r} compares with "
        f"{WORDS[kind]}; give another --task or --data"
    )


def jackknifed(terms: Sequence[T], drop: Callable[[Sequence[T]], float]) -> float:
    """The standard error of a drop, in points, by the delete-a-group jackknife (Kott 2001).

    Sample i belongs to group i modulo the number of groups, so it needs no random numbers.
    """
    groups = min(_GROUPS, len(terms))
    if groups < 2:
        return 0.0
    without = [
        drop([one for i, one in enumerate(terms) if i % groups != left]) for left in range(groups)
    ]
    mean = math.fsum(without) / groups
    return math.sqrt((groups - 1) / groups * math.fsum((x - mean) ** 2 for x in without))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), of any x without overflow."""
    return np.asarray(np.where(x >= 0, 1.0, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))))
