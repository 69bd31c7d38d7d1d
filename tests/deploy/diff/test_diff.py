"""Two bundles compared: every kind of difference is found, noise is not, and the order is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from diffed import bundle, compared, content, said
from report_content import latency, ranges_of, tensor

from deploy.artifacts.bundle import MANIFEST
from deploy.diff.bundles import diff
from deploy.errors import BundleError


def measured(**medians: float) -> dict[str, Any]:
    found = content()
    found["measured"]["latency"] = {name: latency(ms) for name, ms in medians.items()}
    return found


class TestNothing:
    def test_the_same_build_twice(self, tmp_path: Path) -> None:
        found = compared(tmp_path, content(), content())
        assert said(found) == {"nothing": "Nothing that counts differs."}
        assert found["inputs"]["changed"] == [] and found["inputs"]["comparable"]

    def test_what_noise_explains_is_no_difference(self, tmp_path: Path) -> None:
        other = measured(fp32=2.5, bf16=1.6, int8=1.27)  # 2.00x before, 1.97x after
        other["parity"]["task"]["engine_pct"] -= 1.0  # of 200 samples, error 1.87 each
        other["parity"]["outputs"][0]["sqnr_db"] -= 0.4
        other["sizes"]["engine"] += 1000
        other["measured"]["created"] = "2026-11-21T00:00:00+00:00"
        found = compared(tmp_path, content(), other)
        assert list(said(found)) == ["nothing"]
        assert not found["results"]["accuracy"]["beyond_noise"]
        assert found["results"]["accuracy"]["error"] == pytest.approx(1.87 * 2**0.5)


class TestInputs:
    def test_each_kind_is_named(self, tmp_path: Path) -> None:
        other = content()
        other["recipe"] = {**other["recipe"], "calibrator": "entropy", "max_drop": 0.5}
        other["tools"] = {"openvino": "2027.1.0"}
        other["target"] = {**other["target"], "engine": {"precision": "bf16"}}
        found = compared(tmp_path, content(), other)
        rows = {
            (r["what"], r["name"]): (r["before"], r["after"]) for r in found["inputs"]["changed"]
        }
        assert rows == {
            ("recipe", "calibrator"): ("", "entropy"),
            ("recipe", "max_drop"): ("", "0.5"),
            ("target", "engine"): ("", "precision = bf16"),
            ("tools", "openvino"): ("2026.4.1", "2027.1.0"),
        }
        assert said(found)["tools"] == "Other tools: openvino: 2026.4.1 → 2027.1.0."
        assert said(found)["recipe"] == (
            "Another recipe: calibrator: none → entropy; max_drop: none → 0.5."
        )

    def test_a_path_is_no_difference_where_the_samples_are_the_same(self, tmp_path: Path) -> None:
        one, two = content(), content()
        one["recipe"] |= {"data": "here.npz"}
        two["recipe"] |= {"data": "there.npz"}
        assert list(said(compared(tmp_path, one, two))) == ["nothing"]

    def test_other_calibration_samples(self, tmp_path: Path) -> None:
        other = content()
        other["data"]["calibration"] |= {"uri": "more.npz", "samples": 64}
        hashes = {"calibration_sha256": "cc", "evaluation_sha256": "bb"}
        found = compared(tmp_path, content(), other, data=hashes)
        assert said(found) == {
            "data": "Other data: calibration: calib.npz, 128 samples (128 of 300) → more.npz, "
            "64 samples (128 of 300)."
        }
        assert found["inputs"]["comparable"]

    def test_judged_on_other_samples_nothing_is_compared(self, tmp_path: Path) -> None:
        other = content()
        other["parity"]["outputs"][0]["sqnr_db"] = 5.0
        other["parity"]["task"] |= {"engine_pct": 20.0}
        hashes = {"calibration_sha256": "aa", "evaluation_sha256": "cc"}
        kinds = said(compared(tmp_path, content(), other, data=hashes))
        assert kinds["samples"].startswith("Judged on different samples")
        assert "accuracy" not in kinds and "sqnr" not in kinds

    def test_two_models_are_two_engines(self, tmp_path: Path) -> None:
        other = measured(fp32=20.0, int8=10.0)
        other["model"] |= {"sha256": "77" * 32, "name": "larger"}
        found = compared(tmp_path, content(), other)
        assert found["first"][0]["kind"] == "model"
        assert said(found)["latency"] == "Latency: 0.950 ms and 10.0 ms."
        assert {row["looks"] for row in found["first"]} == {""}
        assert found["results"]["latency"]["ratios"] is None

    def test_another_device_comes_before_its_results(self, tmp_path: Path) -> None:
        other = content()
        other["summary"] |= {"target": "xavier"}
        other["target"] = {"host": False, "name": "xavier", "anything": 1}
        other["sizes"]["engine"] *= 2
        found = compared(tmp_path, content(), other)
        assert said(found)["target"] == "For another device: cpu, then xavier."
        assert list(said(found)) == ["target", "size"]


class TestDecisions:
    def test_layers_of_another_type(self, tmp_path: Path) -> None:
        other = content()
        other["graph_map"]["nodes"][0] |= {"type": "bf16", "reason": "kept in float: noisy"}
        other["graph_map"]["nodes"][2] |= {"type": "moves", "name": "turned"}
        found = compared(tmp_path, content(), other)
        assert said(found) == {"types": "1 layer went from INT8 to bf16: conv_0."}
        assert found["decisions"]["types"] == [
            {
                "layer": "conv_0",
                "operator": "Conv",
                "before": "int8",
                "after": "bf16",
                "reason": "kept in float: noisy",
            }
        ]

    def test_without_a_map_the_placement_tells(self, tmp_path: Path) -> None:
        one, two = content(), content()
        row = {"layer": "a", "operator": "Conv", "int8": True, "reason": "taken"}
        for found, int8 in ((one, True), (two, False)):
            del found["graph_map"]
            found["precision_layers"] = [{**row, "int8": int8}]
        assert said(compared(tmp_path, one, two))["types"] == (
            "1 layer went from INT8 to float: a."
        )

    def test_rules_that_fired_more_often(self, tmp_path: Path) -> None:
        other = content()
        other["decisions"] = [d for d in other["decisions"] if d["subject"] != "bn_0"]
        (row,) = compared(tmp_path, content(), other)["decisions"]["rules"]
        assert (row["rule"], row["applied"], row["skipped"]) == ("fold_affine", [1, 0], [1, 1])
        assert (row["only_before"], row["only_after"]) == (["bn_0"], [])

    def test_ranges_that_moved(self, tmp_path: Path) -> None:
        one = ranges_of(a=tensor(-1, 3), b=tensor(-1, 3), c=tensor(0, 1))
        two = ranges_of(a=tensor(-1, 2), b=tensor(-1, 3.01), d=tensor(0, 1))
        found = compared(tmp_path, content(), content(), (one, two))
        assert [row["tensor"] for row in found["decisions"]["ranges"]] == ["a"]
        assert said(found)["ranges"] == (
            "1 range moved, that of a farthest, by 25.0 % of its width."
        )


class TestResults:
    def test_worse_in_every_way(self, tmp_path: Path) -> None:
        other = measured(fp32=1.9, bf16=1.21, int8=1.2)
        other["summary"]["passed"] = other["parity"]["passed"] = False
        other["parity"]["gates"][0] |= {"passed": False, "observed": 7.0}
        other["parity"]["task"] |= {"engine_pct": 60.0}
        other["parity"]["outputs"][0]["sqnr_db"] = 7.0
        other["layer_errors"][1]["sqnr_db"] = 9.0
        other["sizes"]["engine"] *= 2
        found = compared(tmp_path, content(), other)
        told = {
            "verdict": "The first passed and the second failed its gates.",
            "gates": "Missed now: SQNR of 'y' (dB).",
            "accuracy": "Accuracy went from 81.50 % to 60.00 %, more than chance explains (± 2.64 "
            "points).",
            "latency": "The second engine has 0.79x the speed of the first: 0.950 ms and 1.20 ms; "
            "2.00x and 1.58x the speed of fp32 in the same run, noise 6 %.",
            "sqnr": "SQNR of y went from 15.2 dB to 7.0 dB; along the graph it differs from conv_1 "
            "on.",
            "size": "Size: 4.60 MB and 9.20 MB (2.00x).",
        }
        assert list(said(found).items()) == list(told.items())
        assert {row["looks"] for row in found["first"]} == {"bad"}

    def test_better_is_said_too(self, tmp_path: Path) -> None:
        other = measured(fp32=1.9, bf16=1.21, int8=0.6)
        assert compared(tmp_path, content(), other)["first"][0]["looks"] == "good"

    def test_a_whole_run_that_drifted_is_no_difference(self, tmp_path: Path) -> None:
        """All candidates 1.8 times as slow: the machine was busy."""
        other = measured(fp32=3.42, bf16=2.18, int8=1.71)
        assert list(said(compared(tmp_path, content(), other))) == ["nothing"]

    @pytest.mark.parametrize("int8", [0.92, 0.95])
    def test_where_the_clock_says_otherwise_more_is_asked(
        self, int8: float, tmp_path: Path
    ) -> None:
        """fp32 itself drifted: int8 is slower by the ratio, and not by the clock."""
        found = compared(tmp_path, content(), measured(fp32=1.6, int8=int8))
        assert found["results"]["latency"]["times"] < 0.88
        assert found["results"]["latency"]["noise"] == 0.25
        assert list(said(found)) == ["nothing"]

    def test_other_machines_dont_compare(self, tmp_path: Path) -> None:
        other = measured(fp32=0.1, int8=0.01)
        other["measured"]["machine"] = "Linux aarch64"
        found = compared(tmp_path, content(), other)
        assert said(found)["latency"].startswith("Timed on different machines")

    def test_one_without_latency(self, tmp_path: Path) -> None:
        other = content()
        other["measured"]["latency"] = {}
        assert compared(tmp_path, content(), other)["results"]["latency"] is None


class TestRefused:
    def test_no_bundle(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        (tmp_path / "two").mkdir()
        with pytest.raises(BundleError, match=r"two: no manifest\.json, so not a bundle"):
            diff(one, tmp_path / "two")

    def test_another_schema_of_the_report(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        two = bundle(tmp_path / "two", {**content(), "schema_version": 99})
        with pytest.raises(BundleError, match=r"report.json: schema version 99, this onnx-deploy"):
            diff(one, two)

    def test_another_schema_of_the_manifest(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        manifest = json.loads((one / MANIFEST).read_text(encoding="utf-8"))
        (one / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 2}))
        with pytest.raises(BundleError, match="schema version 2, this onnx-deploy reads 1"):
            diff(one, one)

    def test_a_report_that_was_changed(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        (one / "report.json").write_text("{}")
        with pytest.raises(BundleError, match=r"report.json: not as it was built"):
            diff(one, one)

    def test_a_manifest_without_a_report(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        (one / "report.json").rename(tmp_path / "elsewhere.json")
        with pytest.raises(BundleError, match=r"report.json: not as it was built"):
            diff(one, one)

    @pytest.mark.parametrize("damage", [{"parity": None}, {"measured": {}}, {"decisions": [1]}])
    def test_a_report_of_another_form(self, damage: dict[str, Any], tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        two = bundle(tmp_path / "two", {**content(), **damage})
        with pytest.raises(BundleError, match=r"isn't what this onnx-deploy writes"):
            diff(one, two)

    def test_what_isnt_json(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", {**content(), "sizes": float("nan")})
        with pytest.raises(BundleError, match=r"report.json: unreadable \(NaN is not JSON\)"):
            diff(one, one)

    def test_a_link_out_of_the_bundle(self, tmp_path: Path) -> None:
        one = bundle(tmp_path / "one", content())
        (one / "report.json").rename(tmp_path / "elsewhere.json")
        (one / "report.json").symlink_to(tmp_path / "elsewhere.json")
        with pytest.raises(BundleError, match=r"report.json: not as it was built"):
            diff(one, one)
