"""Deep networks lose much to INT8 anyway: a fault is found in them all the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from helpers import MODELS
from ladder_faults import CIFAR, Build, Edit, broken, coarser, go_on, pair_changed, real, way_of

from deploy.artifacts.ladder import Ladder
from deploy.correct import correct
from deploy.ladder.climb import ladder
from deploy.nvidia.device import judged_as
from deploy.target import Target

NAME = "shufflenetv1_0.5g3_cifar10"
NORMALIZED = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.243, 0.261)}
LAYER = "/stage3/stage3.1/gconv2/Conv"

pytestmark = pytest.mark.skipif(
    not (MODELS / f"{NAME}.onnx").is_file(), reason=f"{NAME} is not beside the repository"
)


@pytest.fixture(scope="module")
def sound() -> Build:
    return real(NAME, {**CIFAR, **NORMALIZED})


def judged(build: Build) -> Ladder:
    return ladder(way_of(build), build.samples)


def one(found: Ladder, name: str) -> Any:
    return next(rung for rung in found.rungs if rung.name == name)


@pytest.mark.parametrize("target", ["cpu", "xavier"])
def test_the_bound_is_near_what_a_sound_one_reaches(sound: Build, target: str) -> None:
    """Noise of one step's width in place of rounding foretold -2.6 dB for xavier."""
    form, _ = judged_as(Target.load(target), "int8")
    found = judged(sound if target == "cpu" else go_on(sound, "fused", target=form))
    assert found.passed, found.verdict()
    rung = one(found, "uncorrected")
    assert rung.own_db - rung.allowed_db < 7
    assert rung.allowed_db > 12


@pytest.mark.parametrize(
    "edit",
    [coarser(4), pair_changed(lambda x: x * 4, 1, 0)],
    ids=["steps four times as wide", "values four times as large"],
)
def test_one_shifted_scale(sound: Build, edit: Edit) -> None:
    """The wider steps of one layer don't show in the outputs at all: 25 dB with and without."""
    wrong = broken(sound.graphs["uncorrected"], f"{LAYER}_output_0", edit)
    samples = sound.calibration[:8]
    after = correct(wrong, sound.graphs["equalized"], samples, ["bias_correction"])
    graphs = {**sound.graphs, "uncorrected": wrong, "quantized": after}
    found = judged(replace(sound, graphs=graphs))
    assert [rung.stage for rung in found.broken] == ["quantize"], found.verdict()
    assert [culprit.node for culprit in found.broken[0].culprits] == [LAYER]
    assert LAYER in found.verdict()
