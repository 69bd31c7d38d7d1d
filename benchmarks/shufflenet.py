"""ShuffleNetV2 x1.0 in OpenVINO on one core, fused against as it was exported: ratios of medians.

    python benchmarks/shufflenet.py [FUSION ...]

Must hold: fused / unfused is at most 0.80 in float32 and at most 0.67 in the default precision.
Weights are random and seeded (they don't change the time), runs are interleaved. Without names the
cpu target's fusions are used.
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

_ROUNDS = 100
_WARM_UP = 10
# OpenVINO's float type, and what must hold; "" is the vendor's own choice
_GOALS = {"f32": 0.80, "": 0.67}


def compiled(model: Model, precision: str) -> ov.OpenVinoEngine:
    settings = EngineSettings(threads=1, inference_precision={"fp32": precision})
    return ov.build(model, settings, "fp32")


def medians(models: dict[str, Model], precision: str) -> dict[str, float]:
    """Milliseconds per image, every model in turn."""
    engines = {name: compiled(model, precision) for name, model in models.items()}
    feeds = {"input": np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)}
    calls = {name: engine.prepare(feeds) for name, engine in engines.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(_WARM_UP + _ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_ >= _WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e3)
    for engine in engines.values():
        engine.close()
    return {name: statistics.median(seen) for name, seen in times.items()}


def main() -> None:
    print(describe())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    fusions = sys.argv[1:] or list(Target.load("cpu").fusions)
    unfused = simplify(load(Model(network("shufflenet_v2_x1_0", batch=1), "shufflenet_v2_x1_0")))
    fused = fuse(unfused, fusions)
    print(f"fusions: {', '.join(fusions)}")
    counts = [len(model.proto.graph.node) for model in (unfused, fused)]
    print(f"nodes: {counts[0]} -> {counts[1]}; medians of {_ROUNDS} interleaved runs, one core")
    for precision, goal in _GOALS.items():
        found = medians({"unfused": unfused, "fused": fused}, precision)
        ratio = found["fused"] / found["unfused"]
        print(
            f"{precision or 'default':<8} {found['unfused']:6.3f} -> {found['fused']:6.3f} ms  "
            f"ratio {ratio:5.3f} (at most {goal:.2f})"
        )


if __name__ == "__main__":
    main()
