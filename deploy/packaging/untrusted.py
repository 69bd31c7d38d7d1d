"""A bundle from elsewhere, before its words go into a server's configuration."""

from __future__ import annotations

import re
from pathlib import Path

from deploy.artifacts.bundle import Bundle
from deploy.artifacts.untrusted import load_untrusted
from deploy.errors import BundleError

# these are written into configurations, Dockerfiles and requirements
_PLAIN = {
    "model.name": re.compile(r".*", re.DOTALL),
    "precision": re.compile(r"fp32|fp16|bf16|int8"),
    "target": re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,63}"),
    "model.sha256": re.compile(r"[0-9a-f]{64}"),
    "tools.openvino": re.compile(r"\d+(\.\d+){1,3}[A-Za-z0-9.+-]*|not installed"),
}


def load_servable(folder: Path) -> Bundle:
    """The bundle, safe to package; BundleError with the first thing that no build writes."""
    bundle = load_untrusted(folder)
    _check_values(bundle)
    if bundle.manifest["status"] != "ok":
        raise BundleError(
            f"{folder}: status {bundle.manifest['status']!r}, only a bundle whose engine passed "
            "its gates is served; see its report.html"
        )
    return bundle


def _check_values(bundle: Bundle) -> None:
    for key, allowed in _PLAIN.items():
        value: object = bundle.manifest
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, str) or not allowed.fullmatch(value):
            raise BundleError(
                f"{bundle.folder}: {key} is {str(value)[:60]!r} in the manifest; no build writes "
                "that, don't use this bundle"
            )
