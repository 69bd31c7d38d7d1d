"""ranges.json: what is written comes back, and what doesn't belong is refused with its reason."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from calibrators.ranges import Range
from deploy.artifacts.ranges import Picture, Ranges, Source, TensorRange, _content_hash
from deploy.errors import CalibrationError

SOURCE = Source("a" * 64, ("1" * 64, "2" * 64), {"calibrator": "minmax"})


def ranges() -> Ranges:
    tensors = {
        "x:0": TensorRange(
            Range(-0.1, 1 / 3),
            Range(-0.3, 5e-324),
            Picture(-0.3, 2.0**-9, (1, 0, 7)),
            2.0**-15,
            "clipped 0.003 % of values: 1.8 dB less noise expected",
        ),
        "é/y": TensorRange(Range(0.0, 1e30), Range(0.0, 2e30), Picture(0.0, 1.0, (3,))),
    }
    return Ranges(tensors, SOURCE)


def content(tmp_path: Path) -> dict[str, Any]:
    ranges().save(tmp_path / "ranges.json")
    found: dict[str, Any] = json.loads((tmp_path / "ranges.json").read_text(encoding="utf-8"))
    return found


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    ranges().save(path)
    assert Ranges.load(path) == ranges()


def test_same_ranges_same_bytes(tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    ranges().save(a)
    swapped = Ranges(dict(reversed(ranges().tensors.items())), SOURCE)
    swapped.save(b)
    assert a.read_bytes() == b.read_bytes()
    Ranges.load(a).save(b)
    assert a.read_bytes() == b.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "b.json"]


class TestWhyNot:
    def test_the_same_source(self) -> None:
        assert ranges().why_not(dataclasses.replace(SOURCE)) is None

    @pytest.mark.parametrize(
        "changes, reason",
        [
            (
                {"model_sha256": "b" * 64},
                "made from model aaaaaaaaaaaa, this one is bbbbbbbbbbbb",
            ),
            (
                {"settings": {"calibrator": "entropy"}},
                "made with calibrator = minmax, this build has calibrator = entropy",
            ),
            (
                {"settings": {"calibrator": "minmax", "bits": 8}},
                "made with bits = nothing, this build has bits = 8",
            ),
            (
                {"settings": {"calibrator": ["mixed", 1]}},
                "this build has calibrator = ['mixed', 1]",
            ),
            ({"sample_sha256": ("1" * 64, "3" * 64)}, "made from other samples (2 differ)"),
            ({"sample_sha256": ("1" * 64,)}, "made from other samples (1 differ)"),
        ],
    )
    def test_another_source(self, changes: dict[str, Any], reason: str) -> None:
        found = ranges().why_not(dataclasses.replace(SOURCE, **changes))
        assert found is not None and reason in found


def write(folder: Path, damaged: dict[str, Any]) -> None:
    """A file whose hash is right although its content isn't."""
    # NaN and Inf have no hash: `save` refuses them
    with contextlib.suppress(ValueError):
        damaged["content_sha256"] = _content_hash(damaged)
    (folder / "r.json").write_text(json.dumps(damaged))


class TestDamaged:
    def refuses(self, path: Path, reason: str) -> None:
        with pytest.raises(CalibrationError, match=re.escape(reason)) as caught:
            Ranges.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self.refuses(tmp_path / "none.json", "No such file or directory; give a ranges.json")

    def test_a_folder(self, tmp_path: Path) -> None:
        self.refuses(tmp_path, "Is a directory")

    @pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe\x00", b"low high"])
    def test_not_json(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "r.json").write_bytes(data)
        self.refuses(tmp_path / "r.json", "not a ranges file")

    @pytest.mark.parametrize("value, version", [([], None), ({}, None), ({"schema_version": 9}, 9)])
    def test_another_version(self, value: object, version: object, tmp_path: Path) -> None:
        (tmp_path / "r.json").write_text(json.dumps(value))
        self.refuses(tmp_path / "r.json", f"schema version {version!r}, this onnx-deploy reads 2")

    @pytest.mark.parametrize("key", ["model_sha256", "sample_sha256", "settings", "tensors"])
    def test_a_part_gone(self, key: str, tmp_path: Path) -> None:
        damaged = content(tmp_path)
        del damaged[key]
        write(tmp_path, damaged)
        self.refuses(tmp_path / "r.json", f"damaged (KeyError('{key}'))")

    @pytest.mark.parametrize("key", ["sample_sha256", "settings", "tensors"])
    def test_a_part_of_another_kind(self, key: str, tmp_path: Path) -> None:
        write(tmp_path, {**content(tmp_path), key: 5})
        self.refuses(tmp_path / "r.json", "damaged (")

    @pytest.mark.parametrize("key", ["low", "high", "seen_low", "seen_high", "histogram"])
    @pytest.mark.parametrize("value", [None, "1.0", float("nan"), float("inf")])
    def test_a_wrong_number(self, key: str, value: object, tmp_path: Path) -> None:
        damaged = content(tmp_path)
        damaged["tensors"]["x:0"][key] = value
        write(tmp_path, damaged)
        self.refuses(tmp_path / "r.json", "damaged (")

    @pytest.mark.parametrize(
        "key, value", [("clipped", -0.1), ("clipped", 1.5), ("clipped", "0"), ("reason", 3)]
    )
    def test_a_wrong_share_or_reason(self, key: str, value: object, tmp_path: Path) -> None:
        damaged = content(tmp_path)
        damaged["tensors"]["x:0"][key] = value
        write(tmp_path, damaged)
        self.refuses(tmp_path / "r.json", f"{key if key == 'clipped' else 'reason'} ")

    def test_edited_by_hand(self, tmp_path: Path) -> None:
        edited = content(tmp_path)
        edited["tensors"]["x:0"]["high"] *= 10
        (tmp_path / "r.json").write_text(json.dumps(edited))
        self.refuses(tmp_path / "r.json", "changed since it was written; calibrate again")

    def test_low_above_high(self, tmp_path: Path) -> None:
        damaged = content(tmp_path)
        damaged["tensors"]["x:0"]["low"] = 7.0
        write(tmp_path, damaged)
        self.refuses(tmp_path / "r.json", "lies above high")
