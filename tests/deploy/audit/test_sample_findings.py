"""Every finding about the samples alone: one set that shows it, one that doesn't, and the words."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.audit import Look, look
from calibrators.samples import Sample
from deploy.artifacts.audit import Finding
from deploy.audit.sample_findings import sample_findings


def picture(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).random((1, 3, 5, 7))
    return np.kron(coarse, np.ones((8, 8))).astype(np.float32)


def seen(x: np.ndarray, name: str, label: int | None = None) -> Look:
    return look(Sample(name, {"x": x}, label))


def varied(count: int) -> list[Look]:
    return [seen(picture(i), f"s{i}") for i in range(count)]


def only(found: list[Finding], kind: str) -> Finding:
    (one,) = [each for each in found if each.kind == kind]
    return one


def test_nothing_to_say_of_varied_samples() -> None:
    assert sample_findings(varied(64), None) == []


@pytest.mark.parametrize(("count", "severity"), [(31, "warn"), (32, "note"), (63, "note")])
def test_too_few(count: int, severity: str) -> None:
    (found,) = sample_findings(varied(count), None)
    assert (found.kind, found.severity) == ("too few samples", severity)
    assert found.observed == f"{count} samples for calibration"


def test_constant_inputs_are_named() -> None:
    blank = [seen(np.full((1, 3, 40, 56), 0.5, np.float32), "blank")]
    found = only(sample_findings(varied(63) + blank, None), "constant inputs")
    assert found.observed == "1 of 64 samples holds one value only"
    assert found.samples == ("blank",)
    assert found.severity == "warn"


def test_little_variety() -> None:
    looks = [seen(20 * picture(99) + picture(i), f"s{i}") for i in range(64)]
    found = only(sample_findings(looks, None), "little variety")
    assert found.severity == "warn"
    assert "two samples differ by 0.00" in found.observed


@pytest.mark.parametrize(("repeated", "severity"), [(6, "note"), (7, "warn")])
def test_repeats_warn_above_a_tenth(repeated: int, severity: str) -> None:
    looks = varied(64 - repeated) + [seen(picture(i), f"r{i}") for i in range(repeated)]
    found = only(sample_findings(looks, None), "repeated samples")
    assert found.severity == severity
    expected = f"{repeated} of 64 samples repeat another in every byte (r0 is s0)"
    assert found.observed == expected


def test_nearly_equal_samples() -> None:
    noise = 0.02 * np.random.default_rng(5).standard_normal((1, 3, 40, 56))
    looks = [*varied(64), seen((picture(7) + noise).astype(np.float32), "close")]
    (found,) = sample_findings(looks, None)
    assert (found.kind, found.severity) == ("nearly equal samples", "note")
    assert "(close and s7)" in found.observed
    assert found.samples == ("close",)


def test_saturated_inputs_stand_out_from_the_others() -> None:
    dark = picture(200)
    dark[:, :, :30] = 0
    plain = [np.maximum(picture(i), 0.01) for i in range(63)]
    looks = [seen(x, f"s{i}") for i, x in enumerate(plain)] + [seen(dark, "dark")]
    (found,) = sample_findings(looks, None)
    assert (found.kind, found.samples) == ("saturated inputs", ("dark",))
    assert "1 of 64 samples has over half of the values at the ends" in found.observed


def test_drawings_on_black_are_not_saturated() -> None:
    """Where most of every sample is background, that is what the engine will see."""
    looks = []
    for i in range(64):
        x = picture(i)
        x[:, :, :30] = 0
        looks.append(seen(x, f"s{i}"))
    assert sample_findings(looks, None) == []


def labelled(labels: list[int]) -> list[Look]:
    return [seen(picture(i), f"s{i}", label) for i, label in enumerate(labels)]


def test_one_class_for_nearly_all() -> None:
    found = only(sample_findings(labelled([3] * 60 + [1, 2, 4, 5]), 10), "class imbalance")
    assert found.severity == "warn"
    assert "class 3 has 60 of 64 samples" in found.observed
    assert "as varied as 1.4 equal classes of 10" in found.observed


def test_a_missing_class_is_noted_where_samples_are_many() -> None:
    labels = [i % 9 for i in range(72)]
    found = only(sample_findings(labelled(labels), 10), "class imbalance")
    assert found.severity == "note"
    assert found.observed.endswith("1 class has none")


@pytest.mark.parametrize("classes", [10, 1000, None])
def test_even_labels_are_fine_also_when_classes_outnumber_samples(classes: int | None) -> None:
    labels = [i % 10 for i in range(70)] if classes != 1000 else [13 * i for i in range(70)]
    assert sample_findings(labelled(labels), classes) == []
