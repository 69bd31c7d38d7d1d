"""Each of the usual suspects is found where it is, and nowhere else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ladder_faults import broken, changed, digits
from tiny_models import DIGITS, FakeEngine, conv, node, normal, quantized, ranges_of, residual

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.diagnose import SUSPECTS, diagnose
from deploy.errors import RecipeError
from deploy.ladder.tensors import observable, observed, typed
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe
from deploy.suspects import engine, inputs, values
from deploy.suspects.evidence import Evidence

RECIPE = Recipe.read(None, {})


def evidence(model: Model, samples: list[Sample] | None = None, **known: Any) -> Evidence:
    """What a sound network shows on seeded samples."""
    chosen = samples or noise(model)
    seen = observable(model)
    held = observed(seen, list(typed(seen)), [s.feeds for s in chosen])
    names = [spec.name for spec in model.outputs]
    outputs = [{name: one[name] for name in names} for one in held]
    return Evidence(model, RECIPE, chosen, held, outputs, **known)


def noise(model: Model, count: int = 4, scale: float = 1.0) -> list[Sample]:
    spec = model.inputs[0]
    shape = [1, *(d or 1 for d in spec.shape[1:])]
    rows = [np.random.default_rng(i).standard_normal(shape) * scale for i in range(count)]
    return [Sample(f"s{i}", {spec.name: x.astype(np.float32)}) for i, x in enumerate(rows)]


class Told(FakeEngine):
    """An engine that computes in some float type."""

    def __init__(self, kind: str) -> None:
        super().__init__(lambda x: {"y": x}, {"y": (None, 3)})
        self.kind = kind

    def properties(self) -> dict[str, str]:
        return {"inference_precision": self.kind}


def test_a_sound_network_has_none() -> None:
    model = residual()
    known = {"ranges": ranges_of(model), "quantized": quantized(model), "precision": "int8"}
    case = evidence(model, noise(model), flags=frozenset({"avx2", "avx512_vnni"}), **known)
    assert [suspect(case) for suspect in SUSPECTS] == [None] * len(SUSPECTS)


def test_layout() -> None:
    wrong = replace(evidence(conv()), recipe=Recipe.read(None, {"layout": "NHWC"}))
    found = inputs.layout(wrong)
    assert found is not None
    assert "takes NCHW; --layout is NHWC" in found.observed
    assert inputs.layout(evidence(conv())) is None


def test_shapes() -> None:
    class Fixed(Told):
        def __init__(self) -> None:
            super().__init__("f32")
            self.inputs = (*[replace(spec, shape=(1, 3, 8, 8)) for spec in conv().inputs],)

    found = inputs.shapes(evidence(conv(), engine=Fixed()))
    assert found is not None
    assert "the engine takes x float32[1,3,8,8], a sample has [1, 3, 5, 7]" in found.observed


@pytest.mark.parametrize("by", [-1, 0, 1])
def test_labels(by: int) -> None:
    samples = noise(residual(), 12)
    case = evidence(residual(), samples)
    given = [int(out["y"].argmax()) for out in case.outputs]
    named = [replace(s, label=g - by) for s, g in zip(samples, given, strict=True)]
    found = inputs.labels(replace(case, samples=named, scores="y"))
    assert (found is None) == (by == 0)
    if found is not None:
        assert f"moved by {by:+d} in 100%" in found.observed


def test_not_finite() -> None:
    model = residual()
    samples = noise(model)
    samples[2].feeds["x"][0, 0, 0, 0] = np.inf
    found = values.not_finite(evidence(model, samples))
    assert found is not None
    assert "'c1' (Conv) is the first" in found.observed


def test_dead() -> None:
    model = broken(residual(), "c1", changed(lambda b: b - 100, 2))
    found = values.dead(evidence(model))
    assert found is not None
    assert found.severity == "warn"
    assert "r1 (Relu)" in found.observed
    assert "c1 (Conv)" not in found.observed


def test_saturated() -> None:
    from tiny_models import model

    made = model(
        [node("Conv", ["x", "w"], ["c"]), node("Sigmoid", ["c"], ["y"])],
        {"x": ["N", 3, 5, 7]},
        {"y": ["N", 4, 5, 7]},
        {"w": normal(4, 3, 1, 1, seed=1)},
    )
    assert values.saturated(evidence(made)) is None
    found = values.saturated(evidence(made, noise(made, scale=500)))
    assert found is not None
    assert "y (" in found.observed


def test_constant_output() -> None:
    model = broken(residual(), "y", changed(np.zeros_like))
    found = values.constant_outputs(evidence(model))
    assert found is not None
    assert "'y' is the same for all 4 samples" in found.observed


@pytest.mark.parametrize(
    ("flags", "bits", "alarm"),
    [
        ({"avx2"}, 8, True),
        ({"avx2"}, 7, False),
        ({"avx2", "avx_vnni"}, 8, False),
        ({"asimd"}, 8, False),
    ],
)
def test_overflow_without_vnni(flags: set[str], bits: int, alarm: bool) -> None:
    model = residual()
    case = evidence(
        model,
        quantized=quantized(model, weight_bits=bits),
        precision="int8",
        flags=frozenset(flags),
    )
    found = engine.vnni(case)
    assert (found is not None) == alarm
    if found is not None:
        assert "--target intel-avx2" in found.advice


@pytest.mark.parametrize(
    ("kind", "precision", "alarm"),
    [("bf16", "fp32", True), ("f32", "fp32", False), ("bf16", "bf16", False), ("", "fp32", False)],
)
def test_shorter_floats(kind: str, precision: str, alarm: bool) -> None:
    found = engine.float_type(evidence(residual(), engine=Told(kind), precision=precision))
    assert (found is not None) == alarm


def test_ranges_of_other_data() -> None:
    model = residual()
    known = ranges_of(model)
    assert engine.ranges(evidence(model, ranges=known)) is None
    found = engine.ranges(evidence(model, noise(model, scale=20), ranges=known))
    assert found is not None
    assert "cut off: " in found.observed
    idle = engine.ranges(evidence(model, noise(model, scale=0.001), ranges=known))
    assert idle is not None
    assert "hardly used" in idle.observed


def test_flags_of_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t: fpu avx2 avx512_vnni\n")
    assert engine.cpu_flags(path) == {"fpu", "avx2", "avx512_vnni"}
    assert engine.cpu_flags(tmp_path / "none") == frozenset()


def test_a_model_on_its_own_samples_is_healthy() -> None:
    recipe = Recipe.read(None, {"data": str(DIGITS / "test.npz")})
    found = diagnose(DIGITS / "digits.onnx", recipe)
    assert found.healthy, found.findings
    assert found.samples == 64
    assert "labels" in found.looked_for


def test_a_model_fed_wrongly_is_not(tmp_path: Path) -> None:
    with np.load(DIGITS / "test.npz") as file:
        rows = {name: file[name] for name in file.files}
    rows["labels"] = rows["labels"] + 1
    np.savez(tmp_path / "off.npz", **rows)
    # ten classes, and the ninth moved out of them: the last label names a class too many
    recipe = Recipe.read(None, {"data": str(tmp_path / "off.npz")})
    found = diagnose(DIGITS / "digits.onnx", recipe)
    assert not found.healthy
    assert "labels off by one" in {each.kind for each in found.findings}


def test_a_dead_layer_of_a_real_network(tmp_path: Path) -> None:
    model = broken(
        digits().graphs["fused"],
        "unit2.expand.bn/BatchNormalization_out",
        changed(lambda b: b - 1e3, 2),
    )
    model.save(tmp_path / "m.onnx")
    recipe = Recipe.read(None, {"data": str(DIGITS / "test.npz")})
    found = diagnose(tmp_path / "m.onnx", recipe)
    assert "dead tensors" in {each.kind for each in found.findings}


def test_without_samples_nothing_is_said() -> None:
    with pytest.raises(RecipeError, match="no --data"):
        diagnose(DIGITS / "digits.onnx", Recipe.read(None, {}))


def test_a_bundle_is_looked_at_on_the_data_given(tmp_path: Path) -> None:
    """What it was judged on when it was built is no more there."""
    pytest.importorskip("openvino")
    recorded = shutil.copy(DIGITS / "test.npz", tmp_path / "recorded.npz")
    built = {"precision": "fp32", "eval_data": str(recorded), "eval_samples": 8}
    deploy_model(Job(DIGITS / "digits.onnx", Recipe.read(None, built), tmp_path / "bundle"))
    Path(recorded).unlink()
    given = str(DIGITS / "calib.npz")
    for flag in ("data", "eval_data"):
        found = diagnose(tmp_path / "bundle", Recipe.read(None, {flag: given}))
        assert found.healthy, found.findings
        assert (found.samples, found.data.startswith(f"{given}: 64 of ")) == (64, True)
