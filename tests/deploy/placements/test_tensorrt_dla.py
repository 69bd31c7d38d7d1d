"""What a DLA wants beyond a GPU: equal ranges at a sum."""

from __future__ import annotations

import numpy as np
from dialects import dialect
from tiny_models import ranges_of, residual

from deploy.nvidia.implicit import implicit
from deploy.placements.tensorrt_dla import tensorrt_dla
from deploy.placements.tensorrt_implicit import tensorrt_implicit
from deploy.surgery.graph import label, to_graph


def test_the_same_layers_as_on_the_gpu() -> None:
    found, gpu = tensorrt_dla(to_graph(residual())), tensorrt_implicit(to_graph(residual()))
    assert [label(n) for n in found.layers] == [label(n) for n in gpu.layers]


def test_both_inputs_of_a_sum_have_one_range() -> None:
    network = residual()
    found = tensorrt_dla(to_graph(network))
    assert ("r1", "c2") in [g.tensors for g in found.shared]
    ranges = ranges_of(network)
    target = dialect("tensorrt_implicit").model_copy(update={"placement": "tensorrt_dla"})
    scales = implicit(network, ranges, target).scales
    parts = [ranges.tensors[name].range for name in ("r1", "c2")]
    amax = max(max(-r.low, r.high) for r in parts)
    assert scales["r1"] == scales["c2"] == np.float32(amax / 127)
