"""Makes `device_folder` importable, and a trtexec that runs ONNX Runtime."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
TRTEXEC = HERE.parents[1] / "doubles" / "trtexec_double.py"


@pytest.fixture
def trtexec(tmp_path: Path) -> Callable[..., str]:
    """A trtexec of that version as an executable; settings as tests/doubles/trtexec_double.py."""

    def make(version: str = "8.5.2", capability: str = "7.2", **settings: Any) -> str:
        text = json.dumps({"version": version, "capability": capability, **settings})
        path = tmp_path / "bin" / "trtexec"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{TRTEXEC}' '{text}' \"$@\"\n")
        path.chmod(0o755)
        return str(path)

    return make
