"""Keras networks, channels last, in OpenVINO on one thread, fused against as exported: CPU time.

    python benchmarks/keras_layout.py

A ConvNeXt of the atto size (40 to 320 channels, 12 blocks, LayerNormalization as the operator and
written out) and a ShuffleNetV2 of the x0.5 size, 224 x 224, random seeded weights, as tf2onnx
writes them: Transposes around every convolution. The two take turns; the ratio of the medians of
the calls' CPU time counts, which another load on the machine changes less than wall time.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe

sys.path.append(str(Path(__file__).parent.parent / "tests" / "deploy"))

from channels_last import ChannelsLast, head

from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.fuse import fuse
from deploy.load import load
from deploy.simplify import simplify
from deploy.target import EngineSettings, Target

_SIZE = 224
_ROUNDS = 40
_PRECISIONS = ("f32", "")


def convnext(b: ChannelsLast) -> str:
    y = b.layer_norm(b.conv("x", 40, kernel=4, stride=4))
    for channels, blocks in ((40, 2), (80, 2), (160, 6), (320, 2)):
        if channels != b.shape[y][-1]:
            y = b.conv(b.layer_norm(y), channels, kernel=2, stride=2)
        for _ in range(blocks):
            z = b.layer_norm(b.conv(y, channels, kernel=7, depthwise=True))
            z = b.dense(b.gelu(b.dense(z, 4 * channels)), channels)
            y = b("Add", y, b("Mul", z, b.normal(channels, scale=0.5)))
    return head(b, y, norm=True)


def shufflenet(b: ChannelsLast) -> str:
    y = b("Relu", b.conv(b("Relu", b.conv("x", 24, kernel=3, stride=2)), 24, kernel=3, stride=2))
    for channels, blocks in ((48, 4), (96, 8), (192, 4)):
        half = channels // 2
        for block in range(blocks):
            stride = 1 if block else 2
            kept, z = b.halves(y) if block else (y, y)
            if not block:
                kept = b.conv(kept, 0, kernel=3, stride=2, depthwise=True)
                kept = b("Relu", b.conv(kept, half))
            z = b.conv(b("Relu", b.conv(z, half)), half, kernel=3, stride=stride, depthwise=True)
            y = b.shuffle(b.concat(kept, b("Relu", b.conv(z, half))), 2)
    return head(b, b("Relu", b.conv(y, 1024)))


def model_of(network: Callable[[ChannelsLast], str], *, written_out: bool = False) -> Model:
    builder = ChannelsLast(1, written_out=written_out)
    builder.shape["x"] = (_SIZE, _SIZE, 3)
    return simplify(load(builder.model(network(builder))))


def medians(models: dict[str, Model], precision: str) -> dict[str, float]:
    """Milliseconds of CPU time per image, every model in turn, behind one call that isn't timed."""
    settings = EngineSettings(threads=1, inference_precision={"fp32": precision})
    engines = {name: ov.build(model, settings, "fp32") for name, model in models.items()}
    feeds = {"x": np.random.default_rng(0).standard_normal((1, _SIZE, _SIZE, 3), np.float32)}
    calls = {name: engine.prepare(feeds) for name, engine in engines.items()}
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            call()
            start = time.process_time()
            call()
            found[name].append((time.process_time() - start) * 1e3)
    for engine in engines.values():
        engine.close()
    return {name: statistics.median(times) for name, times in found.items()}


def main() -> None:
    print(describe())
    networks = {
        "ConvNeXt": model_of(convnext),
        "ConvNeXt written out": model_of(convnext, written_out=True),
        "ShuffleNetV2": model_of(shufflenet),
    }
    for name, unfused in networks.items():
        fused = fuse(unfused, Target.load("cpu").fusions)
        nodes = [[n.op_type for n in m.proto.graph.node] for m in (unfused, fused)]
        counts = [f"{len(ops)} nodes ({ops.count('Transpose')} Transposes)" for ops in nodes]
        print(f"{name}: {' -> '.join(counts)}")
        for precision in _PRECISIONS:
            times = medians({"unfused": unfused, "fused": fused}, precision)
            ratio = times["fused"] / times["unfused"]
            print(
                f"  {precision or 'default':<8} {times['unfused']:6.2f} -> {times['fused']:6.2f} ms"
                f"  ratio {ratio:5.3f}"
            )


if __name__ == "__main__":
    main()
