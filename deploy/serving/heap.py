"""The C library's heap, kept small: glibc's own two switches, and nothing where it isn't glibc."""

from __future__ import annotations

import ctypes
from typing import Any

# malloc.h
_M_ARENA_MAX = -8
_ARENAS = 2


def few_arenas() -> None:
    """Let threads share arenas, for the whole process and from now on.

    By default each thread allocates from one of its own, and what a reload frees in one of them is
    no use to the next thread that compiles: the process grows by half before it levels off.
    """
    switch = _of_glibc("mallopt")
    if switch is not None:
        switch(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Hand free pages back to the system: compiling a model leaves several times its size."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
