"""Every group once, and of several failures always the first one."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tiny_models import conv, samples_of

from calibrators.samples import Sample
from deploy.backends import reference
from deploy.observation.overlap import overlapped

NETWORK = conv(4)
SAMPLES = samples_of(conv(), 11)


@pytest.fixture(params=[1, 2, 5], autouse=True)
def workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(reference, "cores", lambda: request.param)
    return int(request.param)


def test_every_group_once() -> None:
    lock, seen, heard = threading.Lock(), [], []

    def work(group: list[Sample], size: int) -> None:
        assert size == 4
        with lock:
            seen.append([s.name for s in group])

    assert overlapped(SAMPLES, NETWORK.inputs, work, heard.append) == 11
    names = [s.name for s in SAMPLES]
    assert sorted(seen) == sorted([names[:4], names[4:8], names[8:]])
    assert sorted(heard) == [3, 4, 4]


def test_the_first_that_fails_is_raised(workers: int) -> None:
    later = threading.Event()

    def work(group: list[Sample], size: int) -> None:
        if group[0].name == "sample 3":
            # with several threads the failure of the next one is there before this one's
            assert workers == 1 or later.wait(timeout=30)
            raise ValueError("sample 3")
        if group[0].name == "sample 4":
            later.set()
            raise ValueError("sample 4")

    for _ in range(20):
        later.clear()
        with pytest.raises(ValueError, match="sample 3"):
            overlapped(SAMPLES, conv().inputs, work)


def test_what_the_dataset_raises_comes_through() -> None:
    def samples() -> Iterator[Sample]:
        yield from SAMPLES[:5]
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        overlapped(samples(), conv().inputs, lambda group, size: None)


def test_no_samples() -> None:
    assert overlapped([], conv().inputs, lambda group, size: None) == 0
