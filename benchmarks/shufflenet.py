"""ShuffleNetV2 x1.0 in OpenVINO on one core, fused against as it was exported: ratios of medians.

    python benchmarks/shufflenet.py [FUSION ...]

Must hold: fused / unfused is at most 0.80 in float32 and at most 0.67 in the default precision.
Weights are random and seeded (they don't change the time). The two take turns, a turn is one cold
call and two warm ones; the goals are for the warm ones, as of an engine that is in use. A compiled
model keeps its own luck with memory, so each is compiled five times, and the median of the five
ratios counts. Without names the cpu target's fusions are used, as a build runs them.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from machine import describe

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from networks import network

from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.fuse import fuse
from deploy.load import load
from deploy.simplify import simplify
from deploy.target import EngineSettings, Target

_ROUNDS = 60
_WARM_UP = 5
_WARM_CALLS = 2
_COMPILATIONS = 5
# OpenVINO's float type, and what must hold; "" is the vendor's own choice
_GOALS = {"f32": 0.80, "": 0.67}


def compiled(model: Model, precision: str) -> ov.OpenVinoEngine:
    settings = EngineSettings(threads=1, inference_precision={"fp32": precision})
    return ov.build(model, settings, "fp32")


def medians(models: dict[str, Model], precision: str) -> tuple[dict[str, float], dict[str, float]]:
    """Milliseconds per image of cold and of warm calls, every model in turn."""
    engines = {name: compiled(model, precision) for name, model in models.items()}
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)}
    calls = {name: engine.prepare(feeds) for name, engine in engines.items()}
    cold: dict[str, list[float]] = {name: [] for name in calls}
    warm: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(_WARM_UP + _ROUNDS):
        for name, call in calls.items():
            for turn in range(1 + _WARM_CALLS):
                start = time.perf_counter()
                call()
                if round_ >= _WARM_UP:
                    found = warm if turn else cold
                    found[name].append((time.perf_counter() - start) * 1e3)
    for engine in engines.values():
        engine.close()
    first, then = ({n: statistics.median(v) for n, v in of.items()} for of in (cold, warm))
    return first, then


def main() -> None:
    print(describe())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    target = Target.load("cpu")
    fusions = sys.argv[1:] or [*target.fusions, *target.engine_fusions]
    unfused = simplify(load(Model(network("shufflenet_v2_x1_0", batch=1), "shufflenet_v2_x1_0")))
    fused = fuse(unfused, fusions)
    print(f"fusions: {', '.join(fusions)}")
    counts = [len(model.proto.graph.node) for model in (unfused, fused)]
    print(
        f"nodes: {counts[0]} -> {counts[1]}; medians of {_ROUNDS} turns, {_COMPILATIONS} "
        "compilations, one core"
    )
    for precision, goal in _GOALS.items():
        found = [
            medians({"unfused": unfused, "fused": fused}, precision) for _ in range(_COMPILATIONS)
        ]
        for kind, runs in zip(("cold", "warm"), zip(*found, strict=True), strict=True):
            ratios = sorted(run["fused"] / run["unfused"] for run in runs)
            times = [statistics.median(run[name] for run in runs) for name in ("unfused", "fused")]
            bound = f", at most {goal:.2f}" if kind == "warm" else ""
            print(
                f"{precision or 'default':<8} {kind} {times[0]:6.3f} -> {times[1]:6.3f} ms  ratio "
                f"{statistics.median(ratios):5.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}{bound})"
            )


if __name__ == "__main__":
    main()
