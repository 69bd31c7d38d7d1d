"""The real TensorRT bindings that TENSORRT_BINDINGS names, for the tests that compare with them.

A folder with <version>/ each, as tests/fetch_tensorrt_bindings.py makes it.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tensorrt_facts
from stubbed_tensorrt import surface_of


def sites() -> list[Path]:
    """A folder per version; none without the variable."""
    folder = os.environ.get("TENSORRT_BINDINGS", "")
    return sorted({p.parent for p in Path(folder).glob("*/*.dist-info")}) if folder else []


def named(site: Path | None) -> str:
    """A test's name."""
    return "none" if site is None else site.name


def real_or_skip(site: Path | None) -> tuple[str, dict[str, Any]]:
    """The table's name of the version, and `stubbed_tensorrt.surface`; skips with the reason."""
    if site is None:
        pytest.skip("TENSORRT_BINDINGS names no folder of unpacked TensorRT bindings")
    try:
        version, surface = _read(site)
    except LookupError as error:
        pytest.skip(str(error))
    if version not in tensorrt_facts.versions():
        pytest.skip(f"{version} isn't in the table")
    return version, surface


@cache
def _read(site: Path) -> tuple[str, dict[str, Any]]:
    surface = surface_of(site)
    version = ".".join(surface["version"].split(".")[:3])
    return f"rtx-{version}" if site.name.startswith("rtx") else version, surface
