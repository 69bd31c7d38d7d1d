"""The diagnosis as a whole: the gravest first, what is rewritten, what INT8 would be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import MODELS, model_from, weight
from tiny_models import DIGITS, residual

from deploy import registry
from deploy.doctor.diagnosis import doctor
from deploy.errors import ModelError, RecipeError
from deploy.target import Target

NVIDIA = [n for n in registry.names("target") if Target.load(n).engine.nvidia is not None]
REAL = sorted(MODELS.glob("*.onnx"))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "m.onnx"
    residual().save(path)
    return path


def test_go(saved: Path) -> None:
    found = doctor(saved, Target.load("xavier"), shapes={})
    assert found.go
    assert [finding.rule for finding in found.findings] == ["shapes"]
    assert found.forecast is not None
    assert (found.forecast.int8, found.forecast.other, found.forecast.reasons) == (3, 0, {})
    assert set(found.forecast.ms) == {"fp32", "fp16", "int8"}
    assert found.forecast.ms["int8"] < found.forecast.ms["fp32"]
    assert found.segments is None


def test_no_go_comes_first(tmp_path: Path) -> None:
    text = """g (double[N,6] x) => (double[a] y) { h = Relu(x) y = Unique(h) }"""
    path = tmp_path / "m.onnx"
    model_from(text).save(path)
    found = doctor(path, Target.load("orin"), shapes={})
    assert not found.go
    levels = [finding.level for finding in found.findings]
    assert levels == sorted(levels, key=("stop", "warning", "note").index)
    assert {"stop", "warning", "note"} == set(levels)


def test_what_load_refuses_is_no_go(tmp_path: Path) -> None:
    text = "g (float[2,6] x) => (float[2,6] y) { y = Relu(x) }"
    model = model_from(text)
    model.proto.graph.node[0].domain = "org.example"
    path = tmp_path / "m.onnx"
    model.save(path)
    found = doctor(path, Target.load("orin"), shapes={})
    assert not found.go
    assert [finding.rule for finding in found.findings] == ["load"]
    assert "of domain 'org.example', which nothing here can run" in found.findings[0].text


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        doctor(tmp_path / "none.onnx", Target.load("orin"), shapes={})


def test_a_precision_that_the_target_lacks(saved: Path) -> None:
    with pytest.raises(RecipeError, match="bf16 is not offered by target 't4'"):
        doctor(saved, Target.load("t4"), shapes={}, precision="bf16")


def test_what_the_fusions_would_do() -> None:
    found = doctor(DIGITS / "digits.onnx", Target.load("orin"), shapes={})
    rows = {row.rule: row.count for row in found.rewrites}
    assert rows == {"fold_affine": 10, "channel_layout": 1}
    assert all(row.bytes_saved >= 0 for row in found.rewrites)


def test_the_forecast_says_why_layers_stay_float(tmp_path: Path) -> None:
    text = "g (float[1,2,4,6] x, float[1,2,6,4] z) => (float[a,b,c,d] y) { y = MatMul(x, z) }"
    path = tmp_path / "m.onnx"
    model_from(text).save(path)
    found = doctor(path, Target.load("orin"), shapes={}).forecast
    assert found is not None
    assert "nothing to quantize" in found.why_none
    both = """g (float[1,2,4,6] x) => (float[a,b,c,d] y) {
        h = MatMul(x, w) t = Transpose<perm=[0,1,3,2]>(x) y = MatMul(h, t)
    }"""
    model_from(both, {"w": weight(6, 6)}).save(path)
    found = doctor(path, Target.load("orin"), shapes={}).forecast
    assert found is not None
    assert (found.int8, found.other) == (1, 1)
    assert "both inputs are computed at run time" in next(iter(found.reasons.values()))


def test_free_sizes_have_no_times_and_no_segments(tmp_path: Path) -> None:
    text = "g (float[1,3,h,w] x) => (float[a,b,c,d] y) { y = Conv(x, w) }"
    path = tmp_path / "m.onnx"
    model_from(text, {"w": weight(4, 3, 3, 3)}).save(path)
    found = doctor(path, Target.load("xavier-dla"), shapes={})
    assert not found.go
    assert found.segments is None
    assert found.forecast is not None and found.forecast.ms == {}
    fixed = doctor(path, Target.load("xavier-dla"), shapes={"x": (1, 3, 16, 12)})
    assert fixed.go
    assert fixed.segments is not None and fixed.segments.on_dla == 1
    assert fixed.forecast is not None and fixed.forecast.ms["int8"] > 0


def test_json_is_plain(saved: Path) -> None:
    found = doctor(saved, Target.load("xavier-dla"), shapes={}).as_json()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["go"] is True
    assert again["proven"]["rung"] == "api"
    assert again["dla"]["loadables"] == 2
    assert list(again["dla"]["on_gpu"]) == ["pool"]
    assert again["int8"]["int8"] == 3


@pytest.mark.skipif(not REAL, reason="../shared/assets/models is missing")
@pytest.mark.parametrize("name", NVIDIA)
def test_real_networks(name: str) -> None:
    """Verdicts on what people deploy; classifiers go everywhere, free sizes not to a DLA."""
    target = Target.load(name)
    for path in (MODELS / "resnet20_cifar10.onnx", MODELS / "ppocr_cls_mobilenetv3se.onnx"):
        found = doctor(path, target, shapes={})
        free = "ppocr" in path.stem
        assert found.go == (not (free and target.engine.device == "DLA"))
        if target.default_precision == "int8":
            assert found.forecast is not None
            assert found.forecast.other == 0
        if target.engine.device == "DLA" and not free:
            assert found.segments is not None
            assert (found.segments.loadables, found.segments.transitions) == (3, 4)
