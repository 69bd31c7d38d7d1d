"""The switches of glibc's heap: taken where they are, done without elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.serving import heap


def test_what_glibc_has_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    functions = {"mallopt": lambda *given: called.append(given), "malloc_trim": called.append}
    monkeypatch.setattr(heap, "_of_glibc", functions.get)
    heap.few_arenas()
    heap.give_back()
    assert called == [(-8, 2), 0]


def test_another_c_library_has_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        pass

    monkeypatch.setattr("ctypes.CDLL", lambda name: Library())
    heap.few_arenas()
    heap.give_back()
