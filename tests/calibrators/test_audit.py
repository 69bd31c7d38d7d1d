"""What a set of samples looks like: every statistic on arrays whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from calibrators.audit import (
    Look,
    classes,
    clipped,
    growth,
    look,
    near_repeats,
    repeats,
    variety,
)
from calibrators.samples import Sample


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """float32[1, 3, H, W], smooth like a photograph: noise of 5x7 enlarged."""
    coarse = np.random.default_rng(seed).random((1, 3, 5, 7))
    return np.kron(coarse, np.ones((height // 5, width // 7))).astype(np.float32)


def seen(x: np.ndarray, name: str = "s", label: int | None = None) -> Look:
    return look(Sample(name, {"x": x}, label))


def pictures(count: int) -> list[Look]:
    return [seen(picture(i), f"s{i}") for i in range(count)]


def test_a_thumbnail_holds_the_means_of_blocks() -> None:
    x = np.arange(32 * 48, dtype=np.float32).reshape(1, 1, 32, 48)
    found = seen(x).thumbnail.reshape(16, 16)
    np.testing.assert_allclose(found, x.reshape(16, 2, 16, 3).mean(axis=(1, 3)), rtol=1e-6)


def test_sizes_that_16_doesnt_divide_lose_no_value() -> None:
    x = np.random.default_rng(1).random((1, 1, 19, 23)).astype(np.float32)
    rows, columns = (np.diff([*(np.arange(16) * n // 16), n]) for n in (19, 23))
    found = seen(x).thumbnail.reshape(16, 16)
    assert (found * rows[:, None] * columns).sum() == pytest.approx(x.sum(), rel=1e-5)


def test_extremes_are_per_channel_of_a_picture() -> None:
    x = picture(0)
    x[0, 1, :10] = x[0, 1].max()
    found = seen(x)
    np.testing.assert_array_equal(found.low, x.min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(found.high, x.max(axis=(0, 2, 3)))
    assert found.at_high[1] >= 0.25
    last = look(Sample("s", {"x": np.moveaxis(x, 1, 3)}), 3)
    np.testing.assert_array_equal(last.high, found.high)


def test_token_ids_have_no_look() -> None:
    found = look(Sample("s", {"ids": np.ones((1, 8), np.int64)}))
    assert found.thumbnail.size == 0
    assert not found.constant
    assert variety([found, found]) == 1.0
    assert clipped([found, found]).tolist() == [0.0, 0.0]


def test_repeats_are_equal_in_every_byte() -> None:
    looks = [*pictures(4), seen(picture(1), "again")]
    assert [[each.name for each in group] for group in repeats(looks)] == [["s1", "again"]]
    assert repeats(pictures(4)) == []


def test_near_repeats_differ_by_little_noise() -> None:
    noise = 0.02 * np.random.default_rng(9).standard_normal(picture(2).shape)
    close = seen((picture(2) + noise).astype(np.float32), "close")
    looks = [*pictures(6), close, seen(picture(3), "exact")]
    assert [(a.name, b.name) for a, b in near_repeats(looks)] == [("s2", "close")]
    assert near_repeats(pictures(6)) == []


def test_what_all_samples_share_is_no_repeat() -> None:
    """Spectra with one strong common shape, as of speech, are still different samples."""
    looks = [seen(20 * picture(99) + picture(i), f"s{i}") for i in range(6)]
    assert near_repeats(looks) == []
    assert variety(looks) < 0.02


def test_variety_of_unrelated_pictures_is_about_1() -> None:
    assert variety(pictures(12)) == pytest.approx(1.0, abs=0.1)


def test_clipped_counts_both_ends_of_the_whole_set() -> None:
    plain, dark = picture(0), picture(1)
    plain[0, :, 0, 0], plain[0, :, 0, 1] = -1, 2
    dark[0, :, :20] = -1
    ends = clipped([seen(plain), seen(dark)])
    assert ends.tolist() == pytest.approx([2 / (40 * 56), 0.5])


def test_effective_number_of_classes() -> None:
    even = [seen(picture(i), label=i % 4) for i in range(8)]
    found = classes(even)
    assert found is not None
    assert found.effective == pytest.approx(4.0)
    assert found.counts == {0: 2, 1: 2, 2: 2, 3: 2}
    assert classes([*even, seen(picture(9))]) is None


def test_growth_against_a_direct_count() -> None:
    random = np.random.default_rng(3)
    low, high = -random.random((11, 5)), random.random((11, 5))
    found = growth(low, high)
    assert found.after == (1, 2, 4, 8, 11)

    def lacking(n: int) -> np.ndarray:
        return np.asarray(1 - (high[:n].max(0) - low[:n].min(0)) / (high.max(0) - low.min(0)))

    expected = [float(np.percentile(lacking(n), 95)) for n in found.after]
    assert found.missing == pytest.approx(expected)
    stable = next(n for n in range(1, 12) if (lacking(n) <= 0.05).mean() >= 0.95)
    assert found.stable_after == stable
    assert found.lacked_at_half == pytest.approx(np.percentile(lacking(6), 95))


def test_ranges_hold_zero_as_when_they_are_quantized() -> None:
    """9..10 then 8..10 is no growth: 0..10 either way; and zeros lack nothing."""
    found = growth(np.array([[9.0, 0], [8.0, 0]]), np.array([[10.0, 0], [10.0, 0]]))
    assert found.missing == (0.0, 0.0)
    assert found.stable_after == 1


def test_a_map_of_one_pixel_is_blank_only_where_all_its_channels_are_alike() -> None:
    channels = np.random.default_rng(2).random((1, 8, 1, 1)).astype(np.float32)
    assert not seen(channels).constant
    assert seen(np.full_like(channels, 0.5)).constant
