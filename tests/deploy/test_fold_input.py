"""Raw images in: the same numbers, borders included, and what the fusions make of it."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import model_from as from_text
from helpers import ops, run, weight

from calibrators.preprocess import Preprocess
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import RecipeError
from deploy.fold_input import FromRawImages, fold_input
from deploy.fuse import fuse
from deploy.target import Target

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network(pads: str = "1, 1, 1, 1", rows: str = "float[N,3,6,5] x") -> Model:
    """One convolution; with pads its border shows whether a mean was folded wrongly."""
    text = f"g ({rows}) => (float[N,4,H,W] y) {{ y = Conv <pads = [{pads}]> (x, w, b) }}"
    return from_text(text, {"w": weight(4, 3, 3, 3), "b": weight(4, seed=1)})


def images(count: int = 2, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)


def expected(model: Model, raw: np.ndarray, pre: Preprocess) -> np.ndarray:
    normalized = np.stack([pre.normalized(image) for image in raw])
    return run(model, {"x": normalized})["y"]


def close(got: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


@pytest.mark.parametrize(
    "pre",
    [
        Preprocess(raw=True),
        Preprocess(mean=MEAN, std=STD, raw=True),
        Preprocess(mean=MEAN, std=STD, color="BGR", raw=True),
        Preprocess(mean=(123.675, 116.28, 103.53), std=(58.4, 57.1, 57.4), scale=1.0, raw=True),
        Preprocess(mean=(0.5,), std=(0.5,), raw=True),
    ],
)
@pytest.mark.parametrize("pads", ["1, 1, 1, 1", "0, 0, 0, 0"])
def test_the_same_numbers_before_and_after_the_fusions(pre: Preprocess, pads: str) -> None:
    model = network(pads)
    folded = fold_input(model, pre)
    assert [str(spec) for spec in folded.inputs] == ["x uint8[N,6,5,3]"]
    assert [spec.name for spec in folded.outputs] == ["y"]
    wanted = expected(model, images(), pre)
    close(run(folded, {"x": images()})["y"], wanted)
    fused = fuse(folded, Target.load("cpu").fusions)
    close(run(fused, {"x": images()})["y"], wanted)


def test_scale_and_color_end_in_the_weights_and_the_mean_stays_where_the_conv_pads() -> None:
    pre = Preprocess(mean=MEAN, std=STD, color="BGR", raw=True)
    padded = fuse(fold_input(network(), pre), Target.load("cpu").fusions)
    assert sorted(ops(padded)) == ["Cast", "Conv", "Sub", "Transpose"]
    free = fuse(fold_input(network("0, 0, 0, 0"), pre), Target.load("cpu").fusions)
    assert sorted(ops(free)) == ["Cast", "Conv", "Transpose"]


def test_a_network_that_takes_nhwc_needs_no_transpose() -> None:
    text = """g (float[N,6,5,3] x) => (float[N,4,6,5] y)
      { t = Transpose <perm = [0, 3, 1, 2]> (x) y = Conv <pads = [1, 1, 1, 1]> (t, w) }"""
    model = from_text(text, {"w": weight(4, 3, 3, 3)})
    pre = Preprocess(mean=MEAN, std=STD, layout="NHWC", raw=True)
    folded = fold_input(model, pre)
    assert ops(folded).count("Transpose") == 1
    close(run(folded, {"x": images()})["y"], expected(model, images(), pre))


def test_a_gray_image() -> None:
    text = "g (float[N,1,6,5] x) => (float[N,1,6,5] y) { y = Relu (x) }"
    pre = Preprocess(mean=(0.1,), color="GRAY", raw=True)
    folded = fold_input(from_text(text), pre)
    assert str(folded.inputs[0]) == "x uint8[N,6,5,1]"
    close(run(folded, {"x": images(2, 1)})["y"], expected(from_text(text), images(2, 1), pre))


def test_the_reference_is_the_untouched_model_on_normalized_images() -> None:
    model = network()
    pre = Preprocess(mean=MEAN, std=STD, raw=True)
    with FromRawImages(reference.build_exact(model), fold_input(model, pre), pre) as exact:
        assert str(exact.inputs[0]) == "x uint8[N,6,5,3]"
        got = exact.run({"x": images()})["y"]
    close(got, expected(model, images(), pre))


@pytest.mark.parametrize(
    ("rows", "pre", "found"),
    [
        ("float[N,3,6,5] x", Preprocess(color="GRAY", raw=True), "0 of the inputs .* 1 channels"),
        ("float[N,3,6,5] x", Preprocess(layout="NHWC", raw=True), "0 of the inputs .* in NHWC"),
        ("float[N,3,6,5] x, float[N,3,6,5] z", Preprocess(raw=True), "2 of the inputs"),
    ],
)
def test_what_has_no_single_image_input_is_refused(rows: str, pre: Preprocess, found: str) -> None:
    with pytest.raises(RecipeError, match=f"--fold-input: {found}.*it takes exactly one"):
        fold_input(network(rows=rows), pre)


def test_the_input_itself_is_not_changed() -> None:
    model = network()
    before = model.serialized
    fold_input(model, Preprocess(raw=True))
    assert model.proto.SerializeToString(deterministic=True) == before
