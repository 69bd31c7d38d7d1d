"""INT8 accuracy against float32 and the peers' INT8: what the recipe gives, unchanged for all.

    pip install .[bench]            # NNCF, the strongest peer
    python benchmarks/int8_accuracy.py [--calibrator NAME] [--equalizations A,B] [MODEL ...]

Calibrated on `calib`, judged on `test` of ../shared/assets. SQNR is of the outputs against float32
(of logits, where the model ends in a softmax), agreement that of the largest score. Forms:
asymmetric is the target cpu's; symmetric is TensorRT's, int8 around zero with its placement, run in
ONNX Runtime. Efforts: fast neither equalizes nor corrects; best leaves the layers that sensitivity
finds noisiest in float. Must hold: the goals of the classifiers; a task's figure no worse than NNCF
default's. Nothing is random: samples are spread evenly, the order is fixed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accuracy_models import Judge, Outputs, judges
from accuracy_peers import Run, nncf, onnxruntime, simulation
from machine import describe
from task_data import ASSETS

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.calibrate import calibrate
from deploy.correct import CORRECT_ON, correct
from deploy.data import open_data
from deploy.equalize import equalize
from deploy.fuse import fuse
from deploy.int8.fallback import noisiest
from deploy.load import load, read
from deploy.placement import NOTHING
from deploy.quantize import quantize
from deploy.recipe import Recipe
from deploy.sensitivity.alone import sensitivity
from deploy.simplify import simplify
from deploy.target import Target

_SENSITIVITY_ON = 32


@dataclass(frozen=True)
class Case:
    """A model ready to be quantized: as loaded and fused, its samples, and float32's outputs."""

    judge: Judge
    loaded: Model
    fused: Model
    calibration: list[Sample]
    feeds: list[dict[str, np.ndarray]]
    labels: list[int | None]
    exact: Outputs


@dataclass(frozen=True)
class Row:
    """One line of the table: which INT8, run by what, and its figures."""

    who: str
    runtime: str
    sqnr_db: float
    cosine: float
    agreement: float
    task: float
    seconds: float


def prepared(judge: Judge, target: Target) -> Case:
    """The model through load, simplify and fuse, with its samples in memory."""
    recipe = Recipe.read(None, {"target": "cpu", "precision": "int8", **judge.recipe})
    loaded = load(read(ASSETS / "models" / f"{judge.name}.onnx"), recipe.shape)
    data = open_data(recipe, loaded)
    judged = list(data.evaluation)
    if judge.more:
        other = Recipe.read(None, {**judge.recipe, "eval_data": judge.more})
        judged += open_data(other, loaded).evaluation
    feeds = [sample.feeds for sample in judged]
    assert data.calibration is not None
    fused = fuse(simplify(loaded), target.fusions)
    judge = replace(judge, output=judge.output or loaded.outputs[0].name)
    exact = _outputs(simulation(loaded.serialized), feeds)
    labels = [sample.label for sample in judged]
    return Case(judge, loaded, fused, list(data.calibration), feeds, labels, exact)


def symmetric(target: Target) -> Target:
    """The target in TensorRT's form."""
    form = target.quantization.model_copy(
        update={"activation_dtype": "int8", "activation_symmetric": True}
    )
    centerings = ["activation_centering", "padded_centering"]
    names = tuple(dict.fromkeys([*target.equalizations, *centerings]))
    changed = {"quantization": form, "placement": "tensorrt", "quantized_fusions": ()}
    return target.model_copy(update={**changed, "equalizations": names})


def int8(case: Case, target: Target, calibrator: str, effort: str) -> Model:
    """The Q/DQ graph of that effort."""
    names = target.equalizations if effort != "fast" else ()
    around_zero = target.quantization.activation_symmetric
    equal = equalize(case.fused, case.calibration, names, symmetric=around_zero)
    ranges = calibrate(equal, case.calibration, calibrator)
    exclude = NOTHING
    if effort == "best":
        few = _spread(case.calibration, _SENSITIVITY_ON)
        exclude = noisiest(sensitivity(equal, ranges, target, few).layers)
    quantized = quantize(equal, ranges, target, exclude=exclude)
    if effort == "fast":
        return quantized
    return correct(quantized, equal, _spread(case.calibration, CORRECT_ON), target.corrections)


def ours(case: Case, target: Target, calibrator: str) -> Iterator[Row]:
    """Our rows: every effort, asymmetric in both runtimes, symmetric in one."""
    for form, own in (("asymmetric", target), ("symmetric", symmetric(target))):
        for effort in ("fast", "default", "best"):
            start = time.monotonic()
            made = int8(case, own, calibrator, effort)
            took = time.monotonic() - start
            who = f"ours {form} {effort}"
            yield row(case, who, "simulation", simulation(made.serialized), took)
            if form == "asymmetric":
                with ov.build(made, own.engine, "int8") as engine:
                    yield row(case, who, "OpenVINO", lambda f: dict(engine.run(f)), took)


def peers(case: Case) -> Iterator[Row]:
    """The peers' rows, on the model as it is before our rewrites."""
    feeds = [sample.feeds for sample in case.calibration]
    kinds = {"NNCF default": ""}
    if "minilm" in case.judge.name:
        kinds["NNCF transformer"] = "transformer"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for who, kind in kinds.items():
            start = time.monotonic()
            run = nncf(case.loaded, feeds, folder, kind)
            if run is not None:
                yield row(case, who, "OpenVINO", run, time.monotonic() - start)
        for form in ("asymmetric", "symmetric"):
            start = time.monotonic()
            run = onnxruntime(case.loaded, feeds, folder, symmetric=form == "symmetric")
            yield row(case, f"ORT {form}", "simulation", run, time.monotonic() - start)


def row(case: Case, who: str, runtime: str, run: Run, seconds: float) -> Row:
    """The figures of one INT8 model."""
    found = _outputs(run, case.feeds)
    error = case.judge.error(case.exact, found)
    agreement = case.judge.agreement(case.exact, found)
    task = case.judge.task(found, case.labels)
    return Row(who, runtime, error.sqnr_db, error.cosine, agreement, task, seconds)


def verdicts(judge: Judge, rows: Sequence[Row]) -> Iterator[tuple[bool, str]]:
    """Every line of Must hold about this model."""
    found = {(r.who, r.runtime): r for r in rows}
    for (form, effort), goal in judge.goals.items():
        for runtime in ("simulation", "OpenVINO"):
            r = found.get((f"ours {form} {effort}", runtime))
            if r is not None:
                passed = r.sqnr_db >= goal.sqnr_db and r.agreement >= goal.agreement
                text = f"{form} {effort} {runtime}: {r.sqnr_db:.2f} dB {r.agreement:.2f} %"
                yield passed, f"{text}, at least {goal.sqnr_db:g} dB {goal.agreement:g} %"
    peer, own = (
        found.get((who, "OpenVINO")) for who in ("NNCF default", "ours asymmetric default")
    )
    if not judge.goals and peer is not None and own is not None:
        passed = judge.sign * own.task >= judge.sign * peer.task
        yield passed, f"{judge.unit} {own.task:.2f}, NNCF default {peer.task:.2f}"


def measured(judge: Judge, target: Target, calibrator: str) -> list[bool]:
    """Prints a model's table; whether each line of Must hold is met."""
    case = prepared(judge, target)
    judge = case.judge
    exact = judge.task(case.exact, case.labels)
    print(
        f"{judge.name}: {len(case.calibration)} samples to calibrate, {len(case.feeds)} to judge; "
        f"float32 {judge.unit} {exact:.2f}",
        flush=True,
    )
    rows = []
    for made in (r for part in (ours(case, target, calibrator), peers(case)) for r in part):
        rows.append(made)
        agreement = "" if np.isnan(made.agreement) else f"agreement {made.agreement:6.2f} %  "
        print(
            f"  {made.who:<24} {made.runtime:<10} {made.sqnr_db:6.2f} dB  cosine {made.cosine:.5f}"
            f"  {agreement}{judge.unit} {made.task:6.2f}  {made.seconds:5.1f} s",
            flush=True,
        )
    lines = list(verdicts(judge, rows))
    for passed, text in lines:
        print(f"  {'pass' if passed else 'MISSED'}: {text}", flush=True)
    return [passed for passed, _ in lines]


def _outputs(run: Run, feeds: Sequence[dict[str, np.ndarray]]) -> Outputs:
    return [run(feed) for feed in feeds]


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    count = min(count, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("models", nargs="*", help="parts of model names; default: all")
    parser.add_argument("--calibrator", default=Recipe().calibrator)
    parser.add_argument("--equalizations", help="in place of the target's, with commas between")
    given = parser.parse_args()
    target = Target.load("cpu")
    if given.equalizations:
        names = tuple(given.equalizations.split(","))
        target = target.model_copy(update={"equalizations": names})
    if not (ASSETS / "models").is_dir():
        sys.exit(f"{ASSETS}: no models/ there; set ASSETS to the folder of assets")
    print(describe())
    print(f"calibrator {given.calibrator}, {', '.join(target.equalizations)}; no seed: no chance")
    chosen = [j for j in judges() if not given.models or any(m in j.name for m in given.models)]
    met = [passed for judge in chosen for passed in measured(judge, target, given.calibrator)]
    print(f"{sum(met)} of {len(met)} lines hold")
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
