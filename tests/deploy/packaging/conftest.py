"""The bundles to package, and this folder's helpers importable."""

from __future__ import annotations

import sys
from pathlib import Path

from served_bundles import bundle, digits, mixing, stuck, tensorrt

__all__ = ["bundle", "digits", "mixing", "stuck", "tensorrt"]

HERE = str(Path(__file__).parent)
if HERE not in sys.path:
    sys.path.insert(0, HERE)
