"""Other preprocessing, applied to what is fed, gives what that preprocessing gives by itself."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.preprocess import Preprocess
from deploy.audit.hypotheses import Alternatives, alternatives

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
WAYS = {
    "values of 0..1 without mean and std": {},
    "values of -1..1, mean and std 0.5": {"mean": (0.5,), "std": (0.5,)},
    "values of 0..255 without mean and std": {"scale": 1.0},
    "the mean and std of ImageNet": IMAGENET,
    "values of 0..255 less the mean of ImageNet": {
        "scale": 1.0,
        "mean": (123.68, 116.779, 103.939),
    },
}
WRONG_SCALE = {"scale": 1 / 255**2}


def pixels() -> np.ndarray:
    x = np.random.default_rng(4).integers(0, 256, (6, 9, 3)).astype(np.uint8)
    x[0, 0], x[0, 1] = 0, 255
    return x


def found(preprocess: Preprocess) -> tuple[np.ndarray, Alternatives]:
    x = preprocess.array(pixels())[None]
    made = alternatives(x.min(axis=(0, 2, 3)), x.max(axis=(0, 2, 3)), preprocess)
    assert made is not None
    return x, made


@pytest.mark.parametrize("own", [*WAYS.values(), WRONG_SCALE])
def test_every_other_norm_is_what_its_preprocessing_gives(own: dict[str, object]) -> None:
    x, made = found(Preprocess(**own))  # type: ignore[arg-type]
    same = [title for title, settings in WAYS.items() if settings == own]
    assert [one.title for one in made.norms] == [t for t in WAYS if t not in same]
    for one in made.norms:
        expected = Preprocess(**WAYS[one.title]).array(pixels())[None]  # type: ignore[arg-type]
        np.testing.assert_allclose(one.feed(x, 1), expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_swapping_alone_is_what_the_color_flag_alone_does(color: str) -> None:
    x, made = found(Preprocess(color=color, **IMAGENET))  # type: ignore[arg-type]
    other = {"RGB": "BGR", "BGR": "RGB"}[color]
    swapped = made.swapped[0]
    assert (swapped.title, swapped.flags) == (f"colour order {other}", f"--color {other}")
    expected = Preprocess(color=other, **IMAGENET).array(pixels())[None]  # type: ignore[arg-type]
    np.testing.assert_allclose(swapped.feed(x, 1), expected, rtol=1e-4, atol=1e-4)


def test_mean_and_std_follow_the_channels_when_both_change() -> None:
    x, made = found(Preprocess())
    both = next(one for one in made.swapped if "ImageNet" in one.title and "255" not in one.title)
    turned = {name: values[::-1] for name, values in IMAGENET.items()}
    expected = Preprocess(color="BGR", **turned).array(pixels())[None]
    np.testing.assert_allclose(both.feed(x, 1), expected, rtol=1e-4, atol=1e-4)
    assert both.flags == (
        "--color BGR --scale 0.00392157 --mean 0.406,0.456,0.485 --std 0.225,0.224,0.229"
    )


def test_ready_data_is_taken_back_by_what_fills_0_to_1() -> None:
    x = Preprocess(**IMAGENET).array(pixels())[None]  # type: ignore[arg-type]
    made = alternatives(x.min(axis=(0, 2, 3)), x.max(axis=(0, 2, 3)), Preprocess())
    assert made is not None
    assert made.known
    plain = next(one for one in made.norms if one.title.startswith("values of 0..1"))
    np.testing.assert_allclose(plain.feed(x, 1), pixels().transpose(2, 0, 1)[None] / 255, atol=1e-6)


def test_values_of_no_usual_way_keep_only_the_swap() -> None:
    low, high = np.array([-300.0, -7.0, 0.0]), np.array([200.0, 90.0, 31.0])
    made = alternatives(low, high, Preprocess())
    assert made is not None
    assert not made.known
    assert made.norms == ()
    x = np.arange(6, dtype=np.float32).reshape(1, 3, 1, 2)
    np.testing.assert_array_equal(made.swapped[0].feed(x, 1), x[:, ::-1])


def test_gray_has_no_colours_and_four_channels_no_ways() -> None:
    gray = alternatives(np.array([0.0]), np.array([1.0]), Preprocess())
    assert gray is not None
    assert gray.swapped == ()
    assert [one.title for one in gray.norms] == list(WAYS)[1:3]
    assert alternatives(np.zeros(4), np.ones(4), Preprocess()) is None


def test_channels_last() -> None:
    x, made = found(Preprocess())
    last = np.moveaxis(x, 1, 3)
    for one in (*made.norms, *made.swapped):
        np.testing.assert_array_equal(np.moveaxis(one.feed(last, 3), 3, 1), one.feed(x, 1))
