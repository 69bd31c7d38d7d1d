"""Which thresholds judge an engine: the target's, overridden by the recipe's."""

from __future__ import annotations

from deploy import registry
from deploy.artifacts.model import Model
from deploy.data import SampleSet
from deploy.errors import RecipeError, nearest
from deploy.parity import Limits
from deploy.recipe import OutputGate, Recipe
from deploy.target import Precision, Target
from deploy.task import Task, class_number, class_scores

# found by the outputs' shapes and ends, without a name
_BY_CLASS = ("auto", "classify", "none")


def limits_for(
    target: Target, precision: Precision, recipe: Recipe, model: Model, samples: SampleSet
) -> Limits:
    """The limits for one engine; RecipeError when --max-drop has nothing to be measured on."""
    other = _other_task(recipe, model)
    first = next(iter(samples.first(1)), None)
    labelled = first is not None and first.label is not None
    scores = class_scores(model, recipe.task, labelled, recipe.scores)
    if scores is None and other is None:
        scores = class_number(model, recipe.task)
    if recipe.max_drop is not None and scores is None and other is None:
        outputs = ", ".join(str(spec) for spec in model.outputs)
        raise RecipeError(
            f"--max-drop needs class scores, and no output is sure to have them ({outputs}); use "
            "--min-sqnr-db, --scores NAME if one of them does, or the --task that the model is for"
        )
    given = {"max_drop_pct": recipe.max_drop, "min_sqnr_db": recipe.min_sqnr_db}
    overrides = {key: value for key, value in given.items() if value is not None}
    tolerance = target.tolerance(precision).model_copy(update=overrides)
    own = _own_gates(recipe, model)
    return Limits(tolerance, scores, f"target {target.name}", frozenset(overrides), other, own)


def _own_gates(recipe: Recipe, model: Model) -> dict[str, OutputGate]:
    """The recipe's thresholds per output; RecipeError for an output the model doesn't have."""
    names = [spec.name for spec in model.outputs]
    for name in recipe.outputs:
        if name not in names:
            raise RecipeError(
                f"--outputs {name}: no such output{nearest(name, names)}; the model has: "
                f"{', '.join(names)}"
            )
    return recipe.outputs


def _other_task(recipe: Recipe, model: Model) -> Task | None:
    """The task that isn't about one class per sample."""
    if recipe.task in _BY_CLASS:
        if recipe.task_option:
            key = next(iter(recipe.task_option))
            raise RecipeError(
                f"--task-option {key} with --task {recipe.task}: it has no options; give the "
                f"--task that is meant: {', '.join(_others())}"
            )
        return None
    if recipe.scores is not None:
        raise RecipeError(
            f"--scores {recipe.scores} with --task {recipe.task}: class scores are of --task "
            "classify; give one of the two"
        )
    registry.path("task", recipe.task)
    task: Task = registry.load("task", recipe.task).of(model.outputs, recipe.task_option)
    return task


def _others() -> list[str]:
    return [name for name in registry.names("task") if name not in _BY_CLASS]
