"""Every real model of a folder of assets, built for this machine, float and INT8 in one table.

    python benchmarks/real_models.py [ASSETS]

ASSETS (default: ../shared/assets) holds `models/` and `data/`. Accuracy is judged on `test`,
calibrated on `calib`, the same recipe for all; latencies are medians of interleaved runs within
one row. Nothing is random but the data's seeded selection.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe

from deploy.errors import DeployError, ParityError
from deploy.pipeline import Job, deploy_model
from deploy.recipe import Recipe

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_CIFAR = {"data": "cifar10/calib_500.npz", "eval_data": "cifar10/test_400.npz", "scale": 1 / 255}
_CIFAR_KEYS = {"data_key": {"input": "x", "labels": "y"}}
_OURS = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.243, 0.261)}
_WORDS = {"input_ids": (None, 128), "attention_mask": (None, 128)}

# model -> recipe; those without data are built in float, on seeded noise
MODELS: dict[str, dict[str, Any]] = {
    "mobilenetv2_1.0_imagenet": {"data": "imagenet_sample", "crop": (224, 224), **_IMAGENET},
    "resnet20_cifar10": {**_CIFAR, **_CIFAR_KEYS, **_IMAGENET},
    "shufflenetv1_0.5g3_cifar10": {**_CIFAR, **_CIFAR_KEYS, **_OURS},
    "dscnn_kws": {
        "data": "kws01/calib_200.npz",
        "eval_data": "kws01/test_300.npz",
        "data_key": {"input": "x", "labels": "y"},
    },
    "fastestdet_shufflenetv2_coco": {
        "data": "coco_tiny/train2017",
        "resize": (352, 352),
        "color": "BGR",
        "task": "none",
    },
    "ppocr_cls_mobilenetv3se": {"shape": {"x": (None, 3, 48, 192)}},
    "ppocrv4_en_rec": {"shape": {"x": (None, 3, 48, 480)}},
    "minilm_l6_trim_fp16stored": {"shape": _WORDS, "task": "none"},
}


def build(assets: Path, name: str, work: Path) -> str:
    """One row of the table."""
    keys = dict(MODELS[name])
    for key in ("data", "eval_data"):
        if key in keys:
            keys[key] = str(assets / "data" / keys[key])
    precision = "int8" if "data" in keys else "fp32"
    recipe = Recipe.read(None, {"target": "cpu", "precision": precision, "samples": 300, **keys})
    try:
        bundle = deploy_model(Job(assets / "models" / f"{name}.onnx", recipe, work / name))
    except ParityError as error:
        return f"{name:<29} gate missed: {error}"
    results = bundle.manifest["results"]
    latency = " ".join(f"{n} {r['median_ms']:7.3f}" for n, r in sorted(results["latency"].items()))
    task = results["accuracy"]
    accuracy = f"{task['reference_pct']:5.1f} -> {task['engine_pct']:5.1f}" if task else " " * 14
    return f"{name:<29} {precision}  {accuracy}  {results['sqnr_db']:5.1f} dB  ms: {latency}"


def main() -> None:
    default = Path(__file__).parent.parent.parent / "shared" / "assets"
    assets = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    if not (assets / "models").is_dir():
        sys.exit(f"{assets}: no models/ there; give the folder of assets")
    print(describe())
    print("top-1 % float32 -> engine, SQNR against float32, median latency (fp32, bf16, int8)")
    with tempfile.TemporaryDirectory() as work:
        for name in MODELS:
            try:
                print(build(assets, name, Path(work)), flush=True)
            except DeployError as error:
                print(f"{name:<29} {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
