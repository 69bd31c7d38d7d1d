"""The bundles to package."""

from __future__ import annotations

from served_bundles import bundle, digits, mixing, stuck, tensorrt

__all__ = ["bundle", "digits", "mixing", "stuck", "tensorrt"]
