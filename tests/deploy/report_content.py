"""Content of reports as `report_content` would describe it, and what a reader sees of a page."""

from __future__ import annotations

import re
from typing import Any

from calibrators.ranges import Range
from deploy.artifacts.ranges import Picture, Ranges, Source, TensorRange

EVIL = "</script><img src=x onerror=alert(1)>$model"


def latency(median: float) -> dict[str, float]:
    return {"median_ms": median, "p90_ms": median * 1.1, "p99_ms": median * 1.3, "rounds": 200}


def sample(name: str, classes: bool = True) -> dict[str, Any]:
    found = {"reference_class": 3, "engine_class": 4, "label": 3} if classes else {}
    empty = {"reference_class": None, "engine_class": None, "label": None}
    return {"name": name, "sqnr_db": 9.5, **empty, **found}


def decision(stage: str, rule: str, outcome: str, subject: str, reason: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "rule": rule,
        "outcome": outcome,
        "subject": subject,
        "reason": reason,
        "bytes_saved": 2048 if stage == "fuse" and outcome == "applied" else 0,
    }


def stage(name: str, operators: dict[str, int]) -> dict[str, Any]:
    return {
        "stage": name,
        "nodes": sum(operators.values()),
        "operators": operators,
        "parameters": 3487886,
        "weight_bytes": 13951544,
        "flops": 607933440,
        "bytes": 119435736,
    }


def analysed(names: dict[str, float], ms: float = 0.012) -> dict[str, Any]:
    """A graph of layers on target cpu: name -> FLOPs, each moving 1,000 bytes."""
    at = {"bound": "memory", "ms": ms / 3, "precision": "int8", "bytes": 1000}
    found = {"ms": ms, "bytes": 1000 * len(names), "bound": "memory", "memory_share": 1.0}
    found |= {"compute_bound": 0, "memory_bound": len(names), "fits_on_chip": 3}
    device = {
        "title": "this machine's CPU",
        "peak_flops": {"fp32": 278e9, "fp16": 550e9, "bf16": 550e9, "int8": 1.1e12},
        "bandwidth_bytes_per_s": 39e9,
        "layers_at": "int8",
        "precisions": {"int8": found},
    }
    return {
        "total": {"flops": sum(names.values()), "bytes": 1000 * len(names), "unknown": []},
        "targets": {"cpu": device},
        "layers": [
            {"name": name, "op": "Conv", "flops": flops, "intensity": 1.0, "targets": {"cpu": at}}
            for name, flops in names.items()
        ],
    }


def int8_content() -> dict[str, Any]:
    """A quantized classifier that passed, as report_content() would describe it."""
    return {
        "schema_version": 1,
        "summary": {
            "passed": True,
            "verdict": "15.2 dB on 200 samples",
            "model": "tiny",
            "target": "cpu",
            "target_title": "this machine's CPU",
            "precision": "int8",
            "accuracy": {
                "samples": 200,
                "reference_pct": 82.5,
                "engine_pct": 81.5,
                "drop": 1.0,
                "drop_error": 1.87,
            },
            "sqnr_db": 15.2,
            "evidence": ["Judged on 200 samples: all of them."],
            "cautions": [],
        },
        "model": {
            "name": "tiny",
            "sha256": "8d0d" * 16,
            "opset": 17,
            "inputs": ["x float32[N,3,8,8]"],
            "outputs": ["y float32[N,10]"],
        },
        "target": {"host": True},
        "recipe": {"target": "cpu", "max_drop": None, "mean": [0.5, 0.25], "shape": {}},
        "data": {
            "calibration": {"uri": "calib.npz", "samples": 128, "about": "128 of 300"},
            "evaluation": {"uri": "test.npz", "samples": 200, "about": "200 of 200"},
        },
        "sizes": {"model": 13992273, "engine": 4599293, "what": "engine folder"},
        "device": None,
        "graph": [
            stage("loaded", {"Conv": 2, "BatchNormalization": 2}),
            stage("quantized", {"Conv": 2, "QuantizeLinear": 3}),
        ],
        "decisions": [
            decision("fuse", "fold_affine", "applied", "bn_0", "folded into Conv"),
            decision("fuse", "fold_affine", "skipped", "bn_1", "'c' is also read by 'Add_3'"),
            decision("quantize", "activation", "applied", "conv_0", "uint8, scale 0.1"),
        ],
        "parity": {
            "passed": True,
            "samples": 200,
            "about": "200 of 200",
            "outputs": [
                {
                    "name": "y",
                    "sqnr_db": 15.2,
                    "cosine": 0.9848,
                    "max_abs": 3.867,
                    "reference_max": 33.0,
                    "top1_agreement_pct": 91.5,
                    "top5_agreement_pct": 99.5,
                }
            ],
            "task": {
                "samples": 200,
                "reference_pct": 82.5,
                "engine_pct": 81.5,
                "drop": 1.0,
                "drop_error": 1.87,
            },
            "gates": [
                {
                    "name": "SQNR of 'y' (dB)",
                    "limit": 8.0,
                    "observed": 15.203183969646027,
                    "passed": True,
                    "origin": "target cpu",
                }
            ],
            "worst": [sample("worst.jpg")],
            "disagreements": [sample("other.jpg")],
        },
        "layer_errors": [
            {"tensor": "conv_0", "operator": "Conv", "sqnr_db": 42.6, "cosine": 0.99},
            {"tensor": "conv_1", "operator": "Conv", "sqnr_db": 14.1, "cosine": 0.98},
            {"tensor": "same", "operator": "Relu", "sqnr_db": 200.0, "cosine": 1.0},
        ],
        "layers": [
            {
                "name": "conv_0",
                "kind": "Convolution",
                "precision": "u8",
                "kernel": "brgconv",
                "fused_from": ["conv_0", "relu_0"],
            },
            {"name": "s", "kind": "Sum", "precision": "f32", "kernel": "jit", "fused_from": []},
        ],
        "roofline": {
            "loaded": analysed({"conv_0": 3e4, "bn_0": 1e3, "move": 0}, 0.03),
            "fused": analysed({"conv_0": 3e4, "move": 0}, 0.02),
            "built": analysed({"conv_0": 3e4, "move": 0}),
        },
        "engine": {"device": "CPU"},
        "choice": None,
        "precision_layers": [],
        "weights": [],
        "measured": {
            "tried": None,
            "created": "2026-11-20T07:14:03+00:00",
            "machine": "Linux x86_64, AMD EPYC",
            "latency": {"fp32": latency(1.9), "bf16": latency(1.21), "int8": latency(0.95)},
        },
        "tools": {"openvino": "2026.4.1"},
        "command": ["deploy", "build", "my model.onnx", "--int8"],
    }


def float_content() -> dict[str, Any]:
    """A float32 build without labels, classes, gates, quantization or a vendor that tells."""
    content = int8_content()
    content["summary"] |= {"precision": "fp32", "accuracy": None, "sqnr_db": 200.0}
    del content["measured"]["latency"]["int8"], content["measured"]["latency"]["bf16"]
    content["data"]["calibration"] = None
    content["graph"] = content["graph"][:1]
    content["decisions"] = []
    content["layer_errors"] = content["layers"] = content["command"] = []
    content["parity"] |= {"task": None, "gates": [], "disagreements": []}
    content["parity"]["worst"] = [sample("worst.jpg", classes=False)]
    content["parity"]["outputs"][0] |= {"top1_agreement_pct": None, "top5_agreement_pct": None}
    return content


def tensor(low: float, high: float, clipped: float = 0.0, reason: str = "") -> TensorRange:
    """Seen from -1 to 3: ten values in each of four bars."""
    picture = Picture(-1.0, 1.0, (10, 10, 10, 10))
    return TensorRange(Range(low, high), Range(-1.0, 3.0), picture, clipped, reason)


def ranges_of(**tensors: TensorRange) -> Ranges:
    return Ranges(tensors, Source("49a5" * 16, ("aa", "bb"), {"calibrator": "minmax"}))


def hostile_choice() -> dict[str, Any]:
    """Every name and reason of the choice of precision is meant to break out of the page."""
    noise = {"layer": EVIL, "op": EVIL, "tensor": EVIL, "samples": 32}
    return {
        "choice": {
            "sensitivity": [{**noise, "noise_db": -30.0, "accumulated_db": -29.0}],
            "kept_float": {EVIL: EVIL},
            "measured_here": True,
        },
        "precision_layers": [
            {
                **dict.fromkeys(("layer", "operator", "input", "weight", "output"), EVIL),
                "int8": int8,
                "reason": EVIL,
                "weight_sqnr_db": None,
            }
            for int8 in (True, False)
        ],
    }


def hostile_tried() -> dict[str, Any]:
    row = {
        **dict.fromkeys(("name", "description", "outcome"), EVIL),
        "int8_layers": 1,
        "float_layers": 0,
        "predicted_ms": None,
        "final": True,
        "rounds": 9,
        "sqnr_db": 20.0,
        "drop_pct": 0.5,
    }
    tried = [{**row, "median_ms": 1.0}, {**row, "median_ms": 2.0, "sqnr_db": 30.0}]
    return {"chosen": EVIL, "reason": EVIL, "tried": tried}


def stored(weight: str, reason: str, kind: str = "int8", after: int = 250) -> dict[str, Any]:
    return {"weight": weight, "stored": kind, "reason": reason, "before": 1000, "after": after}


def text_of(page: str) -> str:
    """What a reader sees: no scripts, no style, no tags, plain spaces and characters."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    bare = re.sub(r"<[^>]*>", " ", bare).replace("\N{NO-BREAK SPACE}", " ")
    for entity, character in (("&#x27;", "'"), ("&quot;", '"'), ("&lt;", "<"), ("&gt;", ">")):
        bare = bare.replace(entity, character)
    return " ".join(bare.replace("&amp;", "&").split())
