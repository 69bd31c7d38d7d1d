"""The command line as a function, and the digits example to run it on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.cli import run

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ROOT / "examples" / "digits"


@dataclass(frozen=True)
class Ran:
    """What a command line left on the terminal."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, all of it."""
        return json.loads(self.out)  # type: ignore[no-any-return]

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error:")]

    @property
    def stages(self) -> dict[str, bool]:
        """Stage -> whether it was reused, in order, as the progress lines say."""
        lines = [line for line in self.err.splitlines() if line.startswith("  ")]
        lines = [line for line in lines if not line.startswith("  warning")]
        return {line.split()[0]: line.endswith("(reused)") for line in lines}


@pytest.fixture
def deploy(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """deploy("build", path, "--json") -> Ran, in this process."""

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        return Ran(code, *capfd.readouterr())

    return call


@pytest.fixture(scope="session")
def digits() -> Path:
    """The folder of the example: digits.onnx, calib.npz, test.npz."""
    return DIGITS


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder with digits.onnx, calib.npz and test.npz copied in."""
    for name in ("digits.onnx", "calib.npz", "test.npz"):
        shutil.copy(DIGITS / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
