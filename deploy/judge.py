"""Which thresholds judge an engine: the target's, overridden by the recipe's."""

from __future__ import annotations

from deploy.artifacts.model import Model
from deploy.data import SampleSet
from deploy.errors import RecipeError
from deploy.parity import Limits
from deploy.recipe import Recipe
from deploy.target import Precision, Target
from deploy.task import class_scores


def limits_for(
    target: Target, precision: Precision, recipe: Recipe, model: Model, samples: SampleSet
) -> Limits:
    """The limits for one engine; RecipeError when --max-drop has nothing to be measured on."""
    first = next(iter(samples.first(1)), None)
    labelled = first is not None and first.label is not None
    scores = class_scores(model, recipe.task, labelled, recipe.scores)
    if recipe.max_drop is not None and scores is None:
        outputs = ", ".join(str(spec) for spec in model.outputs)
        raise RecipeError(
            f"--max-drop needs class scores, and no output is sure to have them ({outputs}); use "
            "--min-sqnr-db, or --scores NAME if one of them does"
        )
    given = {"max_drop_pct": recipe.max_drop, "min_sqnr_db": recipe.min_sqnr_db}
    overrides = {key: value for key, value in given.items() if value is not None}
    tolerance = target.tolerance(precision).model_copy(update=overrides)
    return Limits(tolerance, scores, f"target {target.name}", frozenset(overrides))
