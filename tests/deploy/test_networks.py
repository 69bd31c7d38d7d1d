"""Whole networks compute the same after simplify and every fusion of the cpu target.

Full widths and depths, small images: the reference takes a few milliseconds and every rule of
torchvision's graphs still occurs. Judged against the largest value of each output.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from helpers import MODELS, feeds_for, run
from networks import NETWORKS, network

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.simplify import simplify
from deploy.target import Target

pytestmark = pytest.mark.slow

RELATIVE = 1e-5
FUSIONS = Target.load("cpu").fusions
IMAGE = (64, 48)
# sizes for dimensions that their exporters left open
OPEN: dict[str, dict[str, tuple[int | None, ...]]] = {
    "ppocr_cls_mobilenetv3se": {"x": (None, 3, 48, 192)},
    "ppocrv4_en_rec": {"x": (None, 3, 48, 160)},
    "minilm_l6_trim_fp16stored": {"input_ids": (None, 24), "attention_mask": (None, 24)},
}
# in millions of weights, as torchvision counts them
SIZES = {
    "shufflenet_v2_x0_5": 1.37, "shufflenet_v2_x1_0": 2.28, "mobilenet_v2": 3.50,
    "mobilenet_v3_small": 2.54, "mobilenet_v3_large": 5.48, "resnet18": 11.69, "resnet50": 25.56,
    "efficientnet_b0": 5.29, "squeezenet1_1": 1.24, "mnasnet1_0": 4.38, "regnet_y_400mf": 4.34,
    "googlenet": 6.62,
}  # fmt: skip


def largest_error(expected: np.ndarray, got: np.ndarray) -> float:
    """Against the largest value: a logit near zero is a sum of large terms of both signs."""
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    scale = np.abs(expected).max(initial=0)
    return float(np.abs(got - expected).max(initial=0) / (scale or 1))


def assert_unchanged(source: Model) -> Model:
    loaded = load(source, OPEN.get(source.name, {}))
    fused = fuse(simplify(loaded), FUSIONS)
    assert [str(s) for s in fused.inputs] == [str(s) for s in loaded.inputs]
    feeds = feeds_for(loaded)
    if "attention_mask" in feeds:
        # any other value than 0 or 1 is added to the logits as a number near 1e38
        feeds["attention_mask"] = np.minimum(feeds["attention_mask"], 1)
    expected, got = run(loaded, feeds), run(fused, feeds)
    assert list(got) == list(expected)
    errors = {name: largest_error(value, got[name]) for name, value in expected.items()}
    assert max(errors.values()) <= RELATIVE, errors
    return fused


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "with BatchNorm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_torchvision_network_computes_the_same(name: str, folded: bool) -> None:
    # the two ways an exporter writes shapes come with the two ways it writes BatchNorm
    proto = network(name, image=IMAGE, folded=folded, computed_shapes=not folded)
    fused = assert_unchanged(Model(proto, name))
    assert "BatchNormalization" not in {node.op_type for node in fused.proto.graph.node}


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_a_real_model_computes_the_same(path: object) -> None:
    assert_unchanged(read(path))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_builder_makes_torchvisions_networks(name: str) -> None:
    """As many weights as torchvision reports, and values that neither vanish nor explode."""
    proto = network(name, image=IMAGE, folded=False)
    onnx.checker.check_model(proto, full_check=True)
    # the statistics of a BatchNorm aren't parameters, nor are constants
    counted = [
        np.prod(w.dims) for w in proto.graph.initializer if w.name.endswith((".weight", ".bias"))
    ]
    assert sum(counted) / 1e6 == pytest.approx(SIZES[name], abs=0.006)
    model = Model(proto, name)
    (output,) = run(model, feeds_for(model)).values()
    assert 0.05 < output.std() < 50


def test_the_builder_is_seeded() -> None:
    small = {"image": (32, 32), "width": 0.25, "depth": 0.5, "classes": 7}
    first, again = (network("resnet50", **small).SerializeToString() for _ in range(2))
    assert first == again
    assert network("resnet50", **small, seed=1).SerializeToString() != first
