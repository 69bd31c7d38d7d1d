"""A device/ folder as the host packs it, small enough to read: a Conv and a Relu, three samples."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from helpers import model_from, weight

from deploy.artifacts.bundle import write_manifest

MODEL = """
g (float[1,3,8,6] x) => (float[1,5,8,6] y) {
    [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    [relu] y = Relu(c)
}
"""
SAMPLES = 3
SCALES = {"x": 0.03, "c": 0.05, "y": 0.05}


def write_device(folder: Path, **changes: Any) -> Path:
    """Fill `folder` with a whole, valid device/ folder for a Xavier; gives it back.

    changes: what differs in the manifest, tables merged (`nvidia={"use_dla": True}`). With
    quantization "implicit" the cache and the layer list are there too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parity").mkdir(exist_ok=True)
    model = model_from(MODEL, {"w": weight(5, 3, 3, 3), "b": weight(5, seed=1)})
    content = model.serialized
    (folder / "model.onnx").write_bytes(content)
    arrays = _arrays(content)
    for name, table in arrays.items():
        np.savez(folder / "parity" / f"{name}.npz", **table)  # type: ignore[arg-type]
    (folder / "finish.py").write_text("# stands for the script\n")
    if changes.get("quantization") == "implicit":
        lines = [f"{name}: {struct.pack('>f', s).hex()}" for name, s in SCALES.items()]
        cache = "\n".join(["TRT-8502-EntropyCalibration2", *lines, ""])
        (folder / "calibration.cache").write_text(cache)
        (folder / "layer_precisions.txt").write_text("*:fp16,conv:int8,relu:int8")
    for name, data in changes.pop("extra_files", {}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    write_manifest(folder, merged_tables(_content(model.sha256), changes))
    return folder


def _arrays(content: bytes) -> dict[str, dict[str, np.ndarray]]:
    random = np.random.default_rng(5)
    samples = random.standard_normal((SAMPLES, 3, 8, 6)).astype(np.float32)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    rows = [session.run(["y"], {"x": samples[i : i + 1]})[0] for i in range(SAMPLES)]
    exact = np.concatenate(rows)
    # as INT8 would: multiples of the scale
    simulated = (np.rint(exact / SCALES["y"]) * SCALES["y"]).astype(np.float32)
    return {"samples": {"x": samples}, "reference": {"y": exact}, "simulated": {"y": simulated}}


def _content(sha256: str) -> dict[str, Any]:
    return {
        "model": {"name": "m", "sha256": sha256},
        "target": {"name": "xavier", "title": "NVIDIA Jetson AGX Xavier"},
        "precision": "fp32",
        "nvidia": {
            "library": "tensorrt",
            "versions": ["8.5.2"],
            "compute_capability": "7.2",
            "cuda": "11.4",
            "jetpack": "5.1",
            "typing": "weak",
            "dla_cores": 2,
            "use_dla": False,
            "plugins": [],
            "workspace_bytes": 0,
            "shown": "predicted",
        },
        "quantization": "none",
        "rest": "fp32",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 3, 8, 6]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": [1, 5, 8, 6]}],
        "profiles": {},
        "plugins": [],
        "parity": {
            "min_sqnr_db": 20.0,
            "min_cosine": 0.99,
            "scores": None,
            "min_agreement_pct": None,
            "simulated_sqnr_db": {"y": 40.0},
            "rounding_sqnr_db": None,
        },
        "tools": {"onnx-deploy": "0.1.0"},
    }


def merged_tables(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The table with another's values in it, tables within merged too."""
    found = dict(base)
    for key, value in over.items():
        old = found.get(key)
        nested = isinstance(old, dict) and isinstance(value, dict)
        found[key] = merged_tables(old, value) if nested else value
    return found


def device_report(folder: Path) -> dict[str, Any]:
    """What a run left."""
    report: dict[str, Any] = json.loads((folder / "device_report.json").read_text())
    return report
