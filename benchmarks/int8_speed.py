"""INT8 in OpenVINO on one core against the best of its peers: twelve classifiers, batch 1.

    pip install .[bench]            # NNCF, the strongest peer
    python benchmarks/int8_speed.py [--target cpu] [NETWORK ...]

Must hold: no network below 0.97 of the best peer, the figures of GOALS, and a geometric mean of at
least 1.10. Weights and images are random and seeded: these are latencies, not accuracies. Every
network goes through load, simplify, fuse, calibrate; the target's variants are measured and one is
chosen; then everything is compiled anew, three times each, and timed in one interleaved
loop. A compilation's figure is the lowest decile of its rounds in CPU time, which on one thread is
the wall clock of a quiet machine: neighbours can only add to it. The median of the compilations
counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from int8_peers import Call, peer_openers
from machine import describe

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from networks import NETWORKS, network

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.backends import ov
from deploy.build import for_compiler
from deploy.calibrate import calibrate
from deploy.fuse import fuse
from deploy.int8.choose import choose
from deploy.int8.race import entry_of, preference
from deploy.int8.variants import Candidate, candidates
from deploy.load import load
from deploy.placement import NOTHING
from deploy.quantize import quantize
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.target import Target

SAMPLES = 4
SEED = 7
COMPILATIONS = 3
ROUNDS = 40
WARM_UP = 3
SEARCH_S = 30.0
FLOOR, MEAN = 0.97, 1.10
EXACT, APPROXIMATE = "", " ~"
GOALS = {
    "shufflenet_v2_x1_0": 1.6,
    "shufflenet_v2_x0_5": 1.35,
    "mobilenet_v3_small": 1.06,
    "mobilenet_v3_large": 1.06,
    "efficientnet_b0": 1.06,
    "efficientnet_b0" + APPROXIMATE: 1.25,
}


def samples() -> list[np.ndarray]:
    random = np.random.default_rng(SEED)
    return [random.standard_normal((1, 3, 224, 224)).astype(np.float32) for _ in range(SAMPLES)]


def prepared(name: str, target: Target) -> tuple[Model, Ranges]:
    """The fused network and its ranges."""
    fused = fuse(simplify(load(Model(network(name, batch=1), name))), target.fusions)
    found = [Sample(str(i), {"input": x}) for i, x in enumerate(samples())]
    return fused, calibrate(fused, found, "minmax")


def openers(name: str, target: Target) -> tuple[dict[str, Callable[[], Engine]], list[str]]:
    """What compiles each of the product's candidates for a network, the float ones included; their
    names, the one first that is shipped of equally fast ones."""
    fused, ranges = prepared(name, target)
    listed = candidates(target, Recipe(), NOTHING, "int8")
    found: dict[tuple[str, str], tuple[Candidate, Model]] = {}
    for candidate in listed:
        graph = fused
        if candidate.precision == "int8":
            graph = quantize(fused, ranges, candidate.target, exclude=candidate.exclude)
        found.setdefault((graph.sha256, str(_config(candidate))), (candidate, graph))
    entries = [entry_of(c.name, c.description, graph, c.precision) for c, graph in found.values()]
    opened = {candidate.name: opener(candidate, graph) for candidate, graph in found.values()}
    return opened, preference(entries)


def opener(candidate: Candidate, graph: Model) -> Callable[[], Engine]:
    settings = candidate.target.engine.model_copy(update={"threads": 1})
    return lambda: ov.build(
        for_compiler(graph, candidate.target, candidate.precision), settings, candidate.precision
    )


def _config(candidate: Candidate) -> tuple[str, str]:
    return candidate.precision, candidate.target.engine.inference_precision[candidate.precision]


def medians(calls: Mapping[str, list[Call]]) -> dict[str, float]:
    """Milliseconds per name; every call in turn, one to warm the caches and then one timed."""
    times: dict[str, list[list[float]]] = {name: [[] for _ in c] for name, c in calls.items()}
    for round_ in range(WARM_UP + ROUNDS):
        for index in range(COMPILATIONS):
            for name, compiled in calls.items():
                compiled[index]()
                start = time.process_time()
                compiled[index]()
                if round_ >= WARM_UP:
                    times[name][index].append((time.process_time() - start) * 1e3)
    deciles = {name: [np.percentile(t, 10) for t in ts] for name, ts in times.items()}
    return {name: float(np.median(found)) for name, found in deciles.items()}


def measured(name: str, target: Target) -> dict[str, float]:
    """Prints a network's row, or two where an activation can be approximated; the ratios."""
    xs = samples()
    opened = peer_openers(network(name, batch=1), xs)
    calls = {peer: [opener_() for _ in range(COMPILATIONS)] for peer, opener_ in opened.items()}
    peers, chosen = list(calls), {}
    for kind in (EXACT, APPROXIMATE) if name + APPROXIMATE in GOALS else (EXACT,):
        found, preferred = openers(name, approximated(target) if kind else target)
        feeds = {"input": xs[0]}
        race = choose(
            found,
            lambda _, fed=feeds: fed,
            preference=preferred,
            budget_s=SEARCH_S,
            clock=time.process_time,
        )
        chosen[kind] = race.order[0]
        engines = [found[chosen[kind]]() for _ in range(COMPILATIONS)]
        calls[f"ours{kind}"] = [engine.prepare(feeds) for engine in engines]
    ms = medians(calls)
    best = min(peers, key=lambda peer: ms[peer])
    ratios = {name + kind: ms[best] / ms[f"ours{kind}"] for kind in chosen}
    for kind, variant in chosen.items():
        row = " ".join(f"{ms[peer]:8.3f}" for peer in peers)
        goal = GOALS.get(name + kind, FLOOR)
        verdict = "" if ratios[name + kind] >= goal else "  MISSED"
        print(
            f"{name + kind:<20} {row} {ms[f'ours{kind}']:8.3f} {ratios[name + kind]:6.3f} "
            f">= {goal:.2f}{verdict}  {variant}; best peer {best}",
            flush=True,
        )
    return ratios


def approximated(target: Target) -> Target:
    """The target with the activations replaced that a recipe may ask for."""
    names = [name for name in target.quantized_fusions if name != "swish_to_division"]
    return target.model_copy(update={"quantized_fusions": (*names, "approximate_swish")})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--target", default="cpu")
    arguments.add_argument("networks", nargs="*", default=list(NETWORKS))
    given = arguments.parse_args()
    target = Target.load(given.target)
    print(describe())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"seed {SEED}, {SAMPLES} calibration images, ms of one core, batch 1")
    print("network: OV bf16, OV f32, ORT f32, ORT int8, NNCF read, NNCF convert, ours, ratio")
    ratios: dict[str, float] = {}
    for name in given.networks:
        ratios |= measured(name, target)
    exact = [ratio for name, ratio in ratios.items() if not name.endswith(APPROXIMATE)]
    mean = statistics.geometric_mean(exact)
    print(f"geometric mean {mean:.3f} (at least {MEAN:.2f}), smallest {min(exact):.3f}")
    print("~ with approximate_swish, an option")
    missed = [n for n, ratio in ratios.items() if ratio < GOALS.get(n, FLOOR)]
    sys.exit(1 if missed or mean < MEAN else 0)


if __name__ == "__main__":
    main()
