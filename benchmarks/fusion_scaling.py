"""How long fuse() takes on graphs of 250, 1,000 and 4,000 nodes, with the cpu target's fusions.

    python benchmarks/fusion_scaling.py [FUSION ...]

Must hold: 1,000 nodes under 2 s, and growth close to linear. The graph repeats ShuffleNetV2's unit
with BatchNorm, a swish and a pair of Transposes in it, so that rules of every kind fire in each.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from machine import describe

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from networks import Builder, Style

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.target import Target

_SIZES = (250, 1000, 4000)
_CHANNELS = 16
_ROUNDS = 3


def repeated_units(nodes: int) -> Model:
    """A chain of units with at least that many nodes, float32[N, 16, 8, 6] all along."""
    b = Builder(Style(image=(8, 6), folded=False))
    x = b.conv("input", _CHANNELS, "stem", kernel=3)
    half, index = _CHANNELS // 2, 0
    while len(b.nodes) < nodes:
        scope = f"unit.{index}"
        shape = (half, 8, 6)
        kept, y = b.adds("Split", [x, b.constant([half] * 2)], scope, [shape, shape], axis=1)
        y = b.act(b.conv(y, half, f"{scope}.a"), "relu", f"{scope}.a")
        y = b.conv(y, half, f"{scope}.b", kernel=3, group=half)
        y = b.add("Transpose", [y], f"{scope}.t", (8, 6, half), perm=[0, 2, 3, 1])
        y = b.act(y, "relu6", f"{scope}.t")
        y = b.add("Transpose", [y], f"{scope}.t", shape, perm=[0, 3, 1, 2])
        y = b.act(b.conv(y, half, f"{scope}.c"), "swish", f"{scope}.c")
        x = b.shuffle(b.concat([kept, y], scope), 2, scope)
        index += 1
    return Model(b.model("units", b.classify(x, "fc")), "units")


def main() -> None:
    fusions = sys.argv[1:] or list(Target.load("cpu").fusions)
    print(describe())
    print(f"fusions: {', '.join(fusions)}")
    before = None
    for size in _SIZES:
        model = repeated_units(size)
        seconds = []
        for _ in range(_ROUNDS):
            start = time.perf_counter()
            fused = fuse(model, fusions)
            seconds.append(time.perf_counter() - start)
        count, left = len(model.proto.graph.node), len(fused.proto.graph.node)
        best = min(seconds)
        growth = "" if before is None else f"  {best / before:5.2f} x"
        print(
            f"{count:5} -> {left:5} nodes  {best:7.3f} s  {best / count * 1e3:6.3f} ms/node{growth}"
        )
        before = best


if __name__ == "__main__":
    main()
