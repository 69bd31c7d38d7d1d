"""Networks in OpenVINO on one core, with plugin kernels against as OpenVINO runs them: ratios.

    python benchmarks/openvino_plugins.py

No bound has to hold: it shows why no CPU target lists these fusions. Weights are random and seeded
where the network isn't in ../shared/assets, runs are interleaved, every pair is measured thrice.
The guard that leaves large convolutions to the vendor is off, so that every block is replaced.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from machine import describe

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from networks import network

from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.bench import latency
from deploy.calibrate import calibrate
from deploy.fuse import fuse
from deploy.fusions import plugin_se_pointwise
from deploy.load import load, read
from deploy.plugin.ops import plugin_nodes
from deploy.quantize import quantize
from deploy.simplify import simplify
from deploy.surgery.graph import verified
from deploy.target import EngineSettings, Target

_ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets" / "models"
_SETTINGS = EngineSettings(
    threads=1, streams=1, inference_precision={"fp32": "f32", "bf16": "bf16", "int8": "f32"}
)
_DEPTHWISE, _SE = "plugin_shuffle_depthwise", "plugin_se_pointwise"


def plain(name: str, shape: tuple[int, ...]) -> Model | None:
    """The network as the cpu target fuses it; None when the file isn't there."""
    path = _ASSETS / f"{name}.onnx"
    if path.is_file():
        source = read(path)
        model = load(source, {source.proto.graph.input[0].name: shape})
    elif name.startswith(("mobilenet_v3", "efficientnet")):
        model = load(Model(network(name, batch=1), name))
    else:
        return None
    return fuse(simplify(model), Target.load("cpu").fusions)


def symmetric_int8(model: Model) -> Model:
    """Explicit int8 Q/DQ without zero points, ranges of seeded noise: for its speed alone."""
    from calibrators.samples import Sample

    exact = Model(verified(model.proto, model.name), model.name)
    (spec,) = exact.inputs
    random = np.random.default_rng(0)
    shape = [d or 1 for d in spec.shape]
    samples = [
        Sample(str(i), {spec.name: random.standard_normal(shape).astype(np.float32)})
        for i in range(8)
    ]
    target = Target.load("orin")
    made = quantize(exact, calibrate(exact, samples, "minmax"), target)
    return fuse(made, Target.load("cpu").quantized_fusions[:3])


def measured(model: Model, fusion: str, precision: str) -> str:
    """Medians of three interleaved runs, plain and with plugins, and their ratios."""
    fused = fuse(model, [fusion])
    with (
        ov.build(model, _SETTINGS, precision) as before,
        ov.build(fused, _SETTINGS, precision) as after,
    ):
        random = np.random.default_rng(0)
        feeds = {
            spec.name: random.standard_normal([d or 1 for d in spec.shape]).astype(np.float32)
            for spec in before.inputs
        }
        rounds = []
        for _ in range(3):
            seen = latency({"plain": before, "plugin": after}, {"plain": feeds, "plugin": feeds})
            rounds.append((seen["plain"].median_ms, seen["plugin"].median_ms))
    pairs = ", ".join(f"{a:.3f} / {b:.3f} ms = {b / a:.2f}x" for a, b in rounds)
    return f"{len(plugin_nodes(fused.proto)):2} kernels  plain / plugin: {pairs}"


def main() -> None:
    print(describe())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    plugin_se_pointwise._MOST_OPERATIONS.update({2: float("inf"), 4: float("inf")})
    for name, shape, fusion in (
        ("shufflenetv1_0.5g3_cifar10", (1, 3, 32, 32), _DEPTHWISE),
        ("ppocr_cls_mobilenetv3se", (1, 3, 48, 192), _SE),
        ("mobilenet_v3_small", (1, 3, 224, 224), _SE),
        ("efficientnet_b0", (1, 3, 224, 224), _SE),
    ):
        model = plain(name, shape)
        if model is None:
            print(f"{name}: needs ../shared/assets")
            continue
        for precision in ("fp32", "bf16"):
            print(f"{name} {precision}: {measured(model, fusion, precision)}", flush=True)
        if fusion == _DEPTHWISE:
            print(f"{name} int8: {measured(symmetric_int8(model), fusion, 'int8')}", flush=True)


if __name__ == "__main__":
    main()
