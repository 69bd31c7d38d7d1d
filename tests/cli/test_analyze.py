"""`deploy analyze`: the JSON's form, the terminal's words, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from deploy.analysis import probe
from deploy.analysis.probe import Measured

Deploy = Callable[..., Any]


def test_json_has_the_graph_after_fusion_and_as_it_came(deploy: Deploy, digits: Path) -> None:
    ran = deploy(
        "analyze", digits / "digits.onnx", "--target", "jetson-nano", "--target", "cpu", "--json"
    )
    assert ran.code == 0
    found = ran.json
    for graph in (found, found["original"]):
        assert set(graph["total"]) >= {"flops", "bytes", "intensity", "layers"}
        assert graph["total"]["flops"] == sum(row["flops"] for row in graph["layers"])
        assert graph["total"]["bytes"] == sum(row["bytes"] for row in graph["layers"])
        assert set(graph["targets"]) == {"jetson-nano", "cpu"}
        assert set(graph["targets"]["jetson-nano"]["precisions"]) == {"fp32", "fp16"}
        assert all(set(row["targets"]) == {"jetson-nano", "cpu"} for row in graph["layers"])
    assert found["original"]["total"]["bytes"] > found["total"]["bytes"] > 0
    # hardware has no fusions: those of the first name that is a target
    assert found["fusions"]["target"] == "cpu"
    assert {row["rule"]: row["applied"] for row in found["fusions"]["rules"]}["fold_affine"] == 10
    assert found["probe"] == []


def test_terminal_shows_totals_devices_and_the_longest_layers(deploy: Deploy, digits: Path) -> None:
    ran = deploy("analyze", digits / "digits.onnx", "--target", "xavier", "--int8", "--top", 3)
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0].startswith("digits, int8, per sample; fusions of xavier: fold_affine 10")
    assert any(line.startswith("xavier: NVIDIA Jetson AGX Xavier") for line in lines)
    assert any(line.split()[:3] == ["int8", "22.6", "TFLOP/s"] for line in lines)
    table = lines.index(next(line for line in lines if line.startswith("the 3 of ")))
    assert len(lines[table + 2 :]) == 4
    assert lines[-1].startswith("together ")


def test_default_is_this_machine_and_another_precision_scales(deploy: Deploy, digits: Path) -> None:
    whole = deploy("analyze", digits / "digits.onnx", "--json").json
    half = deploy("analyze", digits / "digits.onnx", "--fp16", "--json").json
    assert list(whole["targets"]) == ["cpu"]
    assert set(whole["targets"]["cpu"]["precisions"]) == {"fp32", "fp16", "bf16", "int8"}
    assert list(half["targets"]["cpu"]["precisions"]) == ["fp16"]
    assert half["total"]["bytes"] == whole["targets"]["cpu"]["precisions"]["fp16"]["bytes"]
    assert half["total"]["flops"] == whole["total"]["flops"]


def test_one_that_does_not_offer_the_precision_says_so(deploy: Deploy, digits: Path) -> None:
    ran = deploy(
        "analyze", digits / "digits.onnx", "--target", "jetson-nano", "--target", "cpu", "--int8"
    )
    assert ran.code == 0
    assert "  int8 is not offered" in ran.out.splitlines()
    assert "take longest on cpu" in ran.out


def test_probe_takes_the_place_of_the_file(
    deploy: Deploy, digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(Measured("Test CPU", n, {"fp32": n * 1e9, "int8": n * 4e9}, 2e9) for n in (1, 6))
    monkeypatch.setattr("deploy.analyze.probe", lambda target: rows)
    assert probe.probe is not rows
    command = ("analyze", digits / "digits.onnx", "--target", "cpu", "--target", "rpi3", "--probe")
    ran = deploy(*command, "--json")
    assert "measured on Test CPU, 1 thread: fp32 1.00 GFLOP/s, int8 4.00 GFLOP/s" in ran.err
    assert "cpu: this machine's CPU, through OpenVINO, measured on Test CPU" in ran.err
    cpu, pi = (ran.json["targets"][name] for name in ("cpu", "rpi3"))
    assert cpu["peak_flops"] == {"fp32": 6e9, "int8": 24e9}
    assert cpu["bandwidth_bytes_per_s"] == 2e9
    assert (pi["measured_on"], pi["bandwidth_bytes_per_s"]) == ("", 3.6e9)
    assert [row["threads"] for row in ran.json["probe"]] == [1, 6]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--target", "xaviar"], "unknown target 'xaviar' (did you mean 'xavier'?)"),
        (["--target", "rpi3", "--int8"], "int8 is not offered by any device that was named: rpi3"),
        (["--target", "v100", "--probe"], "v100 is not it; add --target cpu"),
        (["--fp16", "--int8"], "--fp16 and --int8 exclude each other"),
        (["--top", "0"], "0 is not in the range"),
    ],
)
def test_refused_with_the_reason(deploy: Deploy, digits: Path, flags: list[str], said: str) -> None:
    ran = deploy("analyze", digits / "digits.onnx", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.errors) == 1
    assert said in ran.errors[0]


BODIES = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,4,9,7] x) => (float[1,4,9,7] y) <bool b = {1}> {
    r = Relu(x)
    y = If (b) <
        then_branch = t () => (float[1,4,9,7] u) { s = Exp(r) u = Relu(s) },
        else_branch = e () => (float[1,4,9,7] v) { v = Identity(r) }
    >
}"""


def test_what_is_not_counted_is_no_base_of_a_gain(deploy: Deploy, tmp_path: Path) -> None:
    """Simplification lays the branch open: more work after it than was counted before."""
    onnx.save(onnx.parser.parse_model(BODIES), tmp_path / "if.onnx")
    ran = deploy("analyze", tmp_path / "if.onnx")
    assert ran.code == 0
    (note,) = (line for line in ran.out.splitlines() if line.startswith("note: original: 1 layers"))
    assert "no gain is said" in note and "or with a body" in note and "(If -> y)" in note
    (row,) = (line for line in ran.out.splitlines() if line.split()[:1] == ["fp32"])
    assert "x " not in row.partition("by memory")[0]
