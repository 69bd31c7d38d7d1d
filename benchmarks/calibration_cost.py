"""Calibration of MobileNetV2 against plain inference over the same samples, and against NNCF.

    python benchmarks/calibration_cost.py [ASSETS]

ASSETS (default: ../shared/assets) holds `models/` and `data/`. Every candidate opens the same 64
images of the calibration split itself; all take turns in one process, and medians are shown. Plain
inference is a loop over the samples through one ONNX Runtime session with default options. NNCF
(extra `bench`) is `nncf.quantize` with default settings, the reading of the model included.
Memory: the peak of a process of its own, over 64 and over 1,024 samples (the 500 images, repeated).
Nothing is random; the order of the candidates turns by one each round.

Must hold: entropy within 1.5 of plain inference and below NNCF; memory within 10 % of each other
and at most 600 MB.
"""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from machine import describe

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.calibrate import calibrate
from deploy.data import SampleSet, open_samples
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.simplify import simplify
from deploy.target import Target

_ROUNDS = 7
_SAMPLES = 64
_CALIBRATORS = ("minmax", "entropy", "auto")
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop": (224, 224)}


def opened(assets: Path, samples: int) -> tuple[Model, SampleSet]:
    """The fused network and its calibration samples."""
    source = read(assets / "models" / "mobilenetv2_1.0_imagenet.onnx")
    model = fuse(simplify(load(source)), Target.load("cpu").fusions)
    recipe = Recipe.model_validate({"samples": samples, **_IMAGENET})
    return model, open_samples(str(assets / "data" / "imagenet_sample"), recipe, model)


def plain(model: Model, samples: SampleSet) -> None:
    """What nobody could do without: read each sample and run the network on it."""
    import onnxruntime as ort

    session = ort.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
    for sample in samples:
        session.run(None, sample.feeds)


def nncf_default(model: Path, samples: SampleSet) -> None:
    """NNCF's default INT8 of the same file."""
    import nncf
    import openvino as ov

    network = ov.Core().read_model(model)
    network.reshape({network.inputs[0]: [1, 3, 224, 224]})
    data = nncf.Dataset(list(samples), lambda sample: next(iter(sample.feeds.values())))
    nncf.quantize(network, data, subset_size=len(samples))


def candidates(assets: Path) -> dict[str, Callable[[], object]]:
    """What is compared, by name."""
    model, samples = opened(assets, _SAMPLES)
    found: dict[str, Callable[[], object]] = {"plain inference": lambda: plain(model, samples)}
    for name in _CALIBRATORS:
        # a fresh Model, so that nothing it has cached is had for free
        found[name] = lambda name=name: calibrate(  # type: ignore[misc]
            Model(model.proto, model.name), samples, name, batch_size=8
        )
    try:
        file = assets / "models" / "mobilenetv2_1.0_imagenet.onnx"
        found[f"NNCF {version('nncf')}"] = lambda: nncf_default(file, samples)
    except PackageNotFoundError:
        print("NNCF is not installed and left out; pip install 'onnx-deploy[bench]'")
    return found


def times(assets: Path) -> None:
    """The table of times."""
    compared = candidates(assets)
    names = list(compared)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(_ROUNDS + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = time.perf_counter()
            compared[name]()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    base = seconds["plain inference"]
    print(f"\n{_SAMPLES} samples, {_ROUNDS} rounds    median s   fastest s   to plain, by round")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], base, strict=True))
        middle, least = statistics.median(seconds[name]), min(seconds[name])
        print(f"{name:<24} {middle:9.3f}  {least:9.3f}  {ratio:9.2f}")


def memory(assets: Path) -> None:
    """The table of peaks."""
    print("\npeak memory     64 samples  1,024 samples  ratio")
    for name in _CALIBRATORS:
        peaks = []
        for count in (64, 1024):
            command = [sys.executable, __file__, str(assets), str(count), name]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            peaks.append(float(done.stdout))
        print(f"{name:<12} {peaks[0]:8.0f} MB  {peaks[1]:10.0f} MB  {peaks[1] / peaks[0]:5.3f}")


def peak_mb(assets: Path, count: int, calibrator: str) -> float:
    """MB at the peak of this process after one calibration."""
    model, samples = opened(assets, 500)

    def repeated() -> Iterator[Sample]:
        yield from itertools.islice(itertools.chain.from_iterable(itertools.repeat(samples)), count)

    calibrate(model, repeated(), calibrator, batch_size=8)
    # ru_maxrss would begin with what the process that started this one held
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) * 1024 / 1e6


def main() -> None:
    default = Path(__file__).parent.parent.parent / "shared" / "assets"
    assets = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    if not (assets / "models").is_dir():
        sys.exit(f"{assets}: no models/ there; give the folder of assets")
    if len(sys.argv) == 4:
        print(peak_mb(assets, int(sys.argv[2]), sys.argv[3]))
        return
    print(describe())
    times(assets)
    memory(assets)


if __name__ == "__main__":
    main()
