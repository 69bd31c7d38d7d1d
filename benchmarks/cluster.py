"""Calibration of MobileNetV2 over local Dask workers against one process: time and equal bytes.

    python benchmarks/cluster.py [ASSETS]

ASSETS (default: ../shared/assets) holds `models/` and `data/`. 256 images of the calibration split,
a recipe's default calibrator. The candidates take turns in one process; the workers are started
once before, and how long that took is printed. Nothing is random. One process uses all cores by
threads already: on one machine workers can only cost, and what is shown is how much; what they are
for is more machines.

Must hold: the same hash of ranges.json in every row.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from machine import describe

from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.calibrate import calibrate
from deploy.cluster.calibrate import calibrate_on
from deploy.cluster.workers import Workers
from deploy.data import SampleSet, open_samples
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.target import Target

_ROUNDS = 5
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop": (224, 224)}


def opened(assets: Path) -> tuple[Model, SampleSet, str]:
    """The fused network, its calibration samples, and the default calibrator."""
    source = read(assets / "models" / "mobilenetv2_1.0_imagenet.onnx")
    model = fuse(simplify(load(source)), Target.load("cpu").fusions)
    recipe = Recipe.model_validate({"samples": 256, **_IMAGENET})
    return (
        model,
        open_samples(str(assets / "data" / "imagenet_sample"), recipe, model),
        recipe.calibrator,
    )


def digest(ranges: Ranges) -> str:
    """The start of the hash of ranges.json."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ranges.json"
        ranges.save(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def main() -> None:
    default = Path(__file__).parent.parent.parent / "shared" / "assets"
    assets = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    if not (assets / "models").is_dir():
        sys.exit(f"{assets}: no models/ there; give the folder of assets")
    print(describe() + f", distributed {version('distributed')}")
    model, samples, name = opened(assets)
    # every candidate is told what the samples hash to, as in a build
    print(f"{len(samples)} samples, {name}, {len(samples.hashes)} hashes known")
    compared: dict[str, Callable[[], Ranges]] = {
        "one process": lambda: calibrate(model, samples, name, batch_size=8)
    }
    with ExitStack() as stack:
        for uri in ("local:1", "local:2"):
            start = time.perf_counter()
            workers = stack.enter_context(Workers.parse(uri))
            print(f"{uri} started in {time.perf_counter() - start:.2f} s")
            compared[uri] = lambda workers=workers: calibrate_on(  # type: ignore[misc]
                workers, model, samples, name, batch_size=8
            )
        times, hashes = measured(compared)
    base = times["one process"]
    print("                median s  fastest s  to one process, by round  sha256 of ranges.json")
    for row, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
        middle, least = statistics.median(seconds), min(seconds)
        print(f"{row:<14} {middle:9.2f}  {least:9.2f}  {ratio:24.2f}  {', '.join(hashes[row])}")
    if len(set().union(*hashes.values())) != 1:
        sys.exit("the ranges differ")


def measured(
    compared: dict[str, Callable[[], Ranges]],
) -> tuple[dict[str, list[float]], dict[str, set[str]]]:
    """Seconds per round, and the hashes that were seen; the first round warms up."""
    names = list(compared)
    times: dict[str, list[float]] = {name: [] for name in names}
    hashes: dict[str, set[str]] = {name: set() for name in names}
    for turn in range(_ROUNDS + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            ranges = compared[name]()
            if turn:
                times[name].append(time.perf_counter() - start)
            hashes[name].add(digest(ranges))
    return times, hashes


if __name__ == "__main__":
    main()
