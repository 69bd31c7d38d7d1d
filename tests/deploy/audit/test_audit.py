"""The audit of calibration samples: on tiny models, and on the shared ones where they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibrators.samples import Sample
from deploy.artifacts.audit import Audit, Curve, Finding
from deploy.artifacts.model import Model
from deploy.audit.samples import Watch, audit
from deploy.calibrate import calibrated_tensors
from deploy.data import open_data
from deploy.errors import CalibrationError
from deploy.load import load, read
from deploy.observation.observe import Observer
from deploy.observation.probes import Probe
from deploy.recipe import Recipe
from tests.deploy.tiny_models import ROOT, conv, model, node

ASSETS = ROOT.parent / "shared" / "assets"
PLAIN = Recipe.read(None, {})


def samples(count: int, scale: float = 1.0) -> list[Sample]:
    random = np.random.default_rng(5)
    return [
        Sample(f"s{i}", {"x": (scale * random.standard_normal((1, 3, 5, 7))).astype(np.float32)})
        for i in range(count)
    ]


def growing(count: int) -> list[Sample]:
    """Each sample reaches further than the one before it."""
    return [Sample(s.name, {"x": s.feeds["x"] * (i + 1)}) for i, s in enumerate(samples(count))]


class TestTiny:
    def test_ordinary_samples(self) -> None:
        found = audit(conv(), samples(200), PLAIN)
        assert found.findings == ()
        assert found.in_short().startswith("200 samples, no warnings, ranges stable after ")
        assert found.curve is not None
        assert found.curve.after == (1, 2, 4, 8, 16, 32, 64, 128, 200)
        assert found.curve.missing_pct[-1] == 0
        assert list(found.curve.missing_pct) == sorted(found.curve.missing_pct, reverse=True)
        assert found.curve.tensors == 2

    def test_ranges_that_still_grow(self) -> None:
        found = audit(conv(), growing(64), PLAIN)
        (warning,) = found.warnings
        assert warning.kind == "ranges still grow"
        assert "of its final range after 32 of 64 samples" in warning.observed
        assert "give more samples" in warning.line()

    def test_the_same_whatever_thread_is_first(self) -> None:
        first = audit(conv(), growing(40), PLAIN)
        assert all(audit(conv(), growing(40), PLAIN) == first for _ in range(3))

    def test_a_fixed_batch_counts_every_sample(self) -> None:
        assert audit(conv(4), growing(41), PLAIN) == audit(conv(1), growing(41), PLAIN)

    def test_another_pass_may_do_the_watching(self) -> None:
        tiny, given = conv(), growing(40)
        watch = Watch(tiny, len(given), PLAIN)
        names = list(dict.fromkeys(calibrated_tensors(tiny).values()))
        with Observer(tiny, [Probe(name, None, 64) for name in names]) as observer:
            for sample in watch.numbered(given):
                watch.see(sample, observer.observe([sample], 1)[0])
        assert watch.audit() == audit(tiny, given, PLAIN)

    def test_nan_names_tensor_and_sample(self) -> None:
        given = samples(3)
        given[1].feeds["x"][0, 0, 0, 0] = np.nan
        with pytest.raises(CalibrationError, match=r"holds NaN or Inf on sample s1"):
            audit(conv(), given, PLAIN)

    def test_no_samples(self) -> None:
        with pytest.raises(CalibrationError, match="no samples to audit; check --data"):
            audit(conv(), [], PLAIN)

    def test_token_ids(self) -> None:
        ids = model(
            [node("Cast", ["ids"], ["f"], to=1), node("Relu", ["f"], ["y"])],
            {"ids": (7, ["N", 8])},
            {"y": ["N", 8]},
        )
        given = [Sample(f"s{i}", {"ids": np.full((1, 8), i)}) for i in range(64)]
        found = audit(ids, given, PLAIN)
        assert [each.kind for each in found.findings] == ["ranges still grow"]
        assert "no single float input takes pictures" in found.not_told[0]

    def test_raw_images_are_judged_as_the_model_takes_them(self) -> None:
        random = np.random.default_rng(8)
        raw = [
            Sample(f"s{i}", {"x": random.integers(0, 256, (1, 5, 7, 3)).astype(np.uint8)})
            for i in range(40)
        ]
        recipe = Recipe.read(None, {"mean": (0.4, 0.5, 0.6), "fold_input": True})
        pre = recipe.preprocess()
        ready = [Sample(s.name, {"x": pre.normalized(s.feeds["x"][0])[None]}) for s in raw]
        assert audit(conv(), raw, recipe).curve == audit(conv(), ready, recipe).curve


def test_a_tiny_classifier_is_told_to_swap_its_colours() -> None:
    """It knows red from green pictures, and is fed blue ones in place of the red."""
    pooled = model(
        [
            node("GlobalAveragePool", ["x"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", "gain"], ["y"]),
        ],
        {"x": ["N", 3, 8, 16]},
        {"y": ["N", 3]},
        {"gain": np.diag([60, 60, 1]).astype(np.float32)},
    )
    random = np.random.default_rng(6)
    given = []
    for i in range(80):
        x = 0.5 * random.random((1, 3, 8, 16)).astype(np.float32)
        x[:, 2 - i % 2] += 0.5
        given.append(Sample(f"s{i}", {"x": x}))
    assert [f.advice for f in audit(pooled, given, PLAIN).warnings] == [
        "check how it was trained, then try --color BGR, or prepare ready data so"
    ]
    right = [Sample(s.name, {"x": s.feeds["x"][:, ::-1].copy()}) for s in given]
    assert audit(pooled, right, PLAIN).warnings == ()


def test_saved_and_loaded(tmp_path: Path) -> None:
    finding = Finding("a kind", "warn", "seen", "because", "do", ("s1",))
    whole = Audit(3, (finding,), ("not told",), Curve((1, 2, 3), (50.0, 1.5, 0.0), 2, 7))
    whole.save(tmp_path / "audit.json")
    assert Audit.load(tmp_path / "audit.json") == whole
    first = (tmp_path / "audit.json").read_bytes()
    whole.save(tmp_path / "audit.json")
    assert (tmp_path / "audit.json").read_bytes() == first
    Audit(1, (), (), None).save(tmp_path / "audit.json")
    assert Audit.load(tmp_path / "audit.json").curve is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "damaged"), ("{}", "damaged"), ('{"schema_version": 9}', "version 9")],
)
def test_a_damaged_file_is_named(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "audit.json").write_text(text)
    with pytest.raises(CalibrationError, match=reason):
        Audit.load(tmp_path / "audit.json")
    with pytest.raises(CalibrationError, match="build again"):
        Audit.load(tmp_path / "nothing.json")


IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.243, 0.261)}
NPZ = {"data": "cifar10/calib_500.npz", "data_key": {"input": "x", "labels": "y"}}
UNIT = {"scale": 1 / 255}
RIGHT: dict[str, dict[str, Any]] = {
    "mobilenetv2_1.0_imagenet": {"data": "imagenet_sample", "crop": (224, 224), **IMAGENET},
    "resnet20_cifar10": {**NPZ, **UNIT, **IMAGENET},
    "shufflenetv1_0.5g3_cifar10": {**NPZ, **UNIT, **CIFAR},
    "fastestdet_shufflenetv2_coco": {
        "data": "coco_tiny/train2017",
        "resize": (352, 352),
        "color": "BGR",
        "task": "none",
    },
    "dscnn_kws": {"data": "kws01/calib_200.npz", "data_key": {"input": "x", "labels": "y"}},
}
NO_NORM = {"mean": None, "std": None}
COLOR = r"with colour order RGB (labels|scores)"
WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("mobilenetv2_1.0_imagenet", {"color": "BGR"}, COLOR),
    ("mobilenetv2_1.0_imagenet", NO_NORM, "with the mean and std of ImageNet"),
    ("resnet20_cifar10", {"color": "BGR"}, COLOR),
    ("resnet20_cifar10", NO_NORM, "with the mean and std of ImageNet"),
    ("resnet20_cifar10", {"scale": 1.0}, "with the mean and std of ImageNet"),
    ("resnet20_cifar10", {"scale": 1 / 255**2}, "with the mean and std of ImageNet"),
    ("resnet20_cifar10", {**NO_NORM, "color": "BGR"}, "with colour order RGB and the mean and std"),
    ("shufflenetv1_0.5g3_cifar10", {"color": "BGR"}, COLOR),
    ("shufflenetv1_0.5g3_cifar10", NO_NORM, "with the mean and std of ImageNet"),
    ("fastestdet_shufflenetv2_coco", {"scale": 1.0}, "with values of 0..1 without mean and std"),
    ("fastestdet_shufflenetv2_coco", {"scale": 1 / 255**2}, "with values of 0..1 without mean"),
]


def judged(name: str, count: int, *, labels: bool = True, **changed: Any) -> list[Finding]:
    path = ASSETS / "models" / f"{name}.onnx"
    if not path.is_file():
        pytest.skip("shared/assets is not beside the repository")
    keys = {k: v for k, v in {**RIGHT[name], **changed}.items() if v is not None}
    keys["data"] = str(ASSETS / "data" / keys["data"])
    recipe = Recipe.read(None, {"samples": count, **keys})
    loaded: Model = load(read(path), recipe.shape)
    given = open_data(recipe, loaded).calibration
    assert given is not None
    chosen = [s if labels else Sample(s.name, s.feeds) for s in given]
    found = audit(loaded, chosen, recipe)
    return [each for each in found.warnings if each.kind == "likely wrong preprocessing"]


@pytest.mark.parametrize("name", RIGHT)
def test_right_preprocessing_is_left_in_peace(name: str) -> None:
    """Without labels, which would speak against any change."""
    assert judged(name, 60, labels=False) == []


@pytest.mark.parametrize(("name", "changed", "expected"), WRONG)
def test_wrong_preprocessing_is_named(name: str, changed: dict[str, Any], expected: str) -> None:
    (found,) = judged(name, 160 if "cifar10" in name else 60, **changed)
    assert re.match(expected, found.observed), found.observed
    assert re.search(r"then try --", found.advice)


@pytest.mark.parametrize("changed", [{"color": "BGR"}, NO_NORM])
def test_labels_are_not_needed(changed: dict[str, Any]) -> None:
    (found,) = judged("resnet20_cifar10", 160, labels=False, **changed)
    assert "labels" not in found.observed
    assert "scores stay with a slightly moved picture" in found.observed
