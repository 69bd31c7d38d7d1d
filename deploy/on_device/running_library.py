"""The file of TensorRT's library that this process runs, and its symbols for others to find."""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path


def running_library(major: int) -> str:
    """Path of the libnvinfer.so.<major> that is loaded; "" where none is, or Linux doesn't tell."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return ""
    text = maps.read_text(encoding="utf-8", errors="replace")
    path = loaded_library(f"libnvinfer.so.{major}", text)
    return path if path and Path(path).is_file() else ""


def loaded_library(name: str, maps: str) -> str:
    """The file of a library, libnvinfer.so.8 or .8.5.2, in /proc/self/maps; "" where it isn't."""
    found = re.search(rf"(/.*/{re.escape(name)}(?:\.[\d.]+)?)$", maps, re.M)
    return found.group(1) if found else ""


def promote_symbols(major: int) -> str:
    """Let libraries that are loaded from now on find TensorRT's symbols; gives its path or "".

    A wheel's module loads TensorRT for itself alone, so a plugin library that wasn't linked against
    it finds no getPluginRegistry. Nothing is loaded a second time.
    """
    path = running_library(major)
    if path:
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL | os.RTLD_NOLOAD)
        except OSError:
            return ""  # the plugin library's own error says what it lacks
    return path
