"""What is said of the samples that judge an engine, before anything long starts."""

from __future__ import annotations

from deploy.data import Data
from deploy.progress import Progress
from deploy.recipe import Recipe


def said_of_judging(data: Data, recipe: Recipe, progress: Progress) -> Data:
    """The data, its description telling how much of what judges was calibrated on."""
    judging = len(data.evaluation)
    if data.shared:
        progress.caution(
            f"{data.shared} of {judging} samples that judge were calibrated on as well, so the "
            "engine looks better than it is on others; give --eval-data of its own"
        )
    drop, by_class = recipe.max_drop, recipe.task in ("auto", "classify")
    # a gate that one sample decides is a coin that is tossed
    if by_class and drop is not None and drop < 100 / judging:
        progress.caution(
            f"--max-drop {drop:g} is finer than one of {judging} samples ({100 / judging:.2g} "
            "points): a single one decides; judge on more"
        )
    return data.telling_shared()
