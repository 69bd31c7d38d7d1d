"""For each dataset, one tiny store with five samples of input "x": float32[1, 3, 4, 6]."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibrators.samples import DatasetSpec, InputSpec

COUNT = 5


def _pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (COUNT, 4, 6, 3), np.uint8)


def _floats() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((COUNT, 3, 4, 6)).astype(np.float32)


def _images(folder: Path) -> str:
    for i, pixels in enumerate(_pixels()):
        (folder / f"class{i % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"class{i % 2}" / f"{9 - i}.png")
    return str(folder)


def _npz(folder: Path) -> str:
    np.savez_compressed(folder / "data.npz", x=_floats())
    return str(folder / "data.npz")


def _npz_folder(folder: Path) -> str:
    np.savez(folder / "b.npz", x=_floats()[:2])
    np.savez(folder / "a.npz", x=_floats()[2:])
    return str(folder)


def _python(folder: Path) -> str:
    (folder / "contract_samples.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        f"    for i in range({COUNT}):\n"
        "        yield {'x': np.full((3, 4, 6), i, np.float32)}\n"
    )
    return "python:contract_samples:samples"


def _coco(folder: Path) -> str:
    for i, pixels in enumerate(_pixels()):
        Image.fromarray(pixels).save(folder / f"{9 - i}.png")
    record = {"width": 6, "height": 4, "boxes": [[0, 1, 3, 4]], "labels": [2]}
    images = [{"file": f"{9 - i}.png", **record} for i in range(COUNT)]
    (folder / "boxes.json").write_text(json.dumps({"images": images}))
    return str(folder / "boxes.json")


def _jsonl(folder: Path) -> str:
    lines = [json.dumps({"x": x.tolist()}) for x in _floats()]
    (folder / "lines.jsonl").write_text("\n".join(lines))
    return str(folder / "lines.jsonl")


# a new dataset adds its line here; the contract test fails until it does
FACTORIES: dict[str, Callable[[Path], str]] = {
    "coco": _coco,
    "images": _images,
    "jsonl": _jsonl,
    "npz": _npz,
    "npz_folder": _npz_folder,
    "python": _python,
}


@pytest.fixture
def spec() -> DatasetSpec:
    return DatasetSpec((InputSpec("x", (None, 3, 4, 6), np.dtype(np.float32)),))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """make(dataset) -> the uri of its store of five samples."""
    # python: looks for modules in the current directory; a test must not leave it on sys.path
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def _make(dataset: str) -> str:
        folder = tmp_path / dataset if dataset != "python" else tmp_path
        folder.mkdir(exist_ok=True)
        return FACTORIES[dataset](folder)

    return _make
