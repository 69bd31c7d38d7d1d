"""widen_padded_pointwise: the same numbers, in OpenVINO too, which gets the narrow form wrong."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, feeds_for, weight
from images import image_model

from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.backends.reference import ReferenceEngine
from deploy.fuse import fuse
from deploy.target import Target

NAME = "widen_padded_pointwise"


def strided(
    attrs: str = "strides=[2,2], pads=[1,1,1,1]",
    *,
    kernel: tuple[int, ...] = (1, 1),
    channels: int = 3,
    weights: str = "w",
) -> Model:
    image = "N,3," + ",".join(["7", "9", "5"][: len(kernel)])
    out = "N,6," + ",".join("PQR"[: len(kernel)])
    negated = "n = Neg(w)" if weights == "n" else ""
    body = f"a = Relu(x) {negated} y = Conv<{attrs}>(a, {weights}, b)"
    return image_model(
        f"g (float[{image}] x) => (float[{out}] y) {{ {body} }}",
        {"w": weight(6, channels, *kernel), "b": weight(6, seed=1)},
    )


FORMS = {
    "both axes": strided(),
    "one axis": strided("strides=[2,1], pads=[1,0,1,0]"),
    "at the end": strided("strides=[3,2], pads=[0,0,2,1]"),
    "dilated for nothing": strided("strides=[2,2], pads=[1,2,1,2], dilations=[2,2]"),
    "a line": strided("strides=[2], pads=[1,1]", kernel=(1,)),
    "a volume": strided("strides=[2,2,2], pads=[1,1,1,1,1,1]", kernel=(1, 1, 1)),
}


@pytest.mark.parametrize("model", FORMS.values(), ids=FORMS)
def test_the_same_numbers(model: Model) -> None:
    assert_fuses(model, NAME, ["Relu", "Conv"])


@pytest.mark.parametrize("model", FORMS.values(), ids=FORMS)
def test_openvino_computes_it(model: Model) -> None:
    settings = Target.load("cpu").engine
    feeds = feeds_for(model)
    with ReferenceEngine(model) as exact, ov.build(fuse(model, [NAME]), settings, "fp32") as engine:
        feeds = {name: x[:1] for name, x in feeds.items()}
        got, wanted = engine.run(feeds)["y"], exact.run(feeds)["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


OTHERS = {
    "no steps": strided("pads=[1,1,1,1]"),
    "no padding": strided("strides=[2,2]"),
    "padding across the steps": strided("strides=[2,1], pads=[0,1,0,1]"),
    "a larger kernel": strided(kernel=(1, 3)),
    "groups": strided("strides=[2,2], pads=[1,1,1,1], group=3", channels=1),
}


@pytest.mark.parametrize("model", OTHERS.values(), ids=OTHERS)
def test_what_openvino_takes_is_left(model: Model) -> None:
    assert fuse(model, [NAME]).decisions == ()


def test_computed_weights_are_left() -> None:
    assert_skips(strided(weights="n"), NAME, "computed at run time")
