"""What the light server's image installs, pinned to what is here."""

from __future__ import annotations

import re
from importlib import metadata

# what deploy/serving imports, and nothing of the build; a test compares the two
REQUIREMENTS = (
    "hpack>=4.1",
    "httptools>=0.6.4",
    "numpy>=2.0",
    "openvino>=2025.2",
    "prometheus-client>=0.21",
    "protobuf>=5.29",
    "starlette>=0.46",
    "uvicorn>=0.34",
    "uvloop>=0.21",
)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def serve_requirements(openvino: str) -> list[str]:
    """Requirement lines, sorted; openvino: the release that built the engine, which runs it too.

    A package that is installed here is pinned to its version, the others are as this file says.
    """
    found = {requirement_name(line): _pinned(line) for line in REQUIREMENTS}
    if openvino[:1].isdigit():
        found["openvino"] = f"openvino=={openvino}"
    return [found[name] for name in sorted(found)]


def requirement_name(line: str) -> str:
    """The package of a requirement line: "starlette>=0.46" is starlette's."""
    match = _NAME.match(line)
    return match.group().lower().replace("_", "-") if match else line


def _pinned(line: str) -> str:
    name = requirement_name(line)
    try:
        return f"{name}=={metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return line
