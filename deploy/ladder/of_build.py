"""The ladder of a build that is under way, a stage of its line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deploy.artifacts.ladder import Ladder
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.build import for_compiler
from deploy.data import SampleSet
from deploy.ladder.climb import STAGES, Shipped, Way, ladder
from deploy.ladder.of_bundle import SAMPLES
from deploy.ladder.tensors import Feeding
from deploy.line import Judged, Line

LADDER = "ladder.json"


def build_ladder(
    line: Line,
    graphs: Mapping[str, Model],
    judged: Judged,
    ranges: Ranges | None,
    evaluation: SampleSet,
) -> Ladder:
    """Every graph of the build and its engine on the first few judging samples.

    graphs: by stage, as the pipeline names them; others than the ladder knows are left out.
    """
    built, recipe = judged.built, line.job.recipe
    chosen = {name: graphs[name] for name in STAGES if name in graphs}
    if "quantized" not in graphs:  # a float engine is compiled from the fused graph
        chosen.pop("equalized", None)
    if built.target.engine.nvidia is None:
        lowered = for_compiler(built.graph, built.target, built.precision)
        if lowered is not built.graph:
            chosen["lowered"] = lowered
    samples = evaluation.first(SAMPLES)
    key = {
        "graphs": {name: model.sha256 for name, model in chosen.items()},
        "engine": built.folder.name,
        "data": samples.sha256(),
        "tolerance": judged.tolerance.model_dump(),
    }

    def make(out: Path) -> None:
        with line.open(built) as engine:
            least = judged.tolerance.min_sqnr_db
            way = Way(
                graphs=chosen,
                ranges=ranges,
                shipped=Shipped(engine, built.precision, built.folder),
                feeding=Feeding(recipe.preprocess()),
                limits={} if least is None else {"": least},
                limits_from=f"target {built.target.name}, or the recipe",
                approximate=bool(recipe.approximate),
            )
            ladder(way, samples, samples.about).save(out / LADDER)

    folder, reused = line.stage("ladder", key, make)
    found = Ladder.load(folder / LADDER)
    line.done("ladder", found.verdict(), reused)
    return found
