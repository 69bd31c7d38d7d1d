"""What of a bundle is served: the engine's files, its real inputs and outputs, how it ran."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deploy.artifacts.bundle import Bundle
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.stored_arrays import array_shapes
from deploy.errors import BundleError, one_line

Runtime = Literal["openvino", "tensorrt"]
_JSON_BYTES = 2**20
_DTYPES = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "bfloat16"),
)
_Dimension = int | None
# a name, not a path, and nothing a shell or a configuration would read otherwise
_LIBRARY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_JETPACK = re.compile(r"(\d{1,3}(\.\d{1,3}){1,2})?")
_DEVICE = re.compile(r"[A-Z][A-Z0-9_.:,()]*")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: str = Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")
    dtype: str
    shape: list[_Dimension] = Field(max_length=32)


class _Io(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    inputs: list[_Row] = Field(min_length=1, max_length=1024)
    outputs: list[_Row] = Field(min_length=1, max_length=1024)


@dataclass(frozen=True)
class Served:
    """runtime: the library the server needs. files: what lies in a version folder, by its name
    there. libraries: plugin kernels. samples: the shape of one sample per input, batch 1.
    tensorrt: the release the plan was built with, "10.16.1"; jetpack: of a Jetson. largest_batch:
    of a plan's profile. sized: fusions for a batch of 1 in an engine whose batch was freed.
    """

    bundle: Bundle
    name: str
    runtime: Runtime
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, Path]
    libraries: tuple[Path, ...]
    samples: dict[str, tuple[int, ...]]
    settings: dict[str, Any]
    tensorrt: str = ""
    jetpack: str = ""
    largest_batch: int = 0
    sized: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        return str(self.bundle.manifest["precision"])

    @property
    def free_batch(self) -> bool:
        """Whether every input and output takes any batch size in its first dimension."""
        specs = (*self.inputs, *self.outputs)
        return all(spec.shape and spec.shape[0] is None for spec in specs)


def is_plain(name: str) -> bool:
    """Whether a library's name is one, and no path."""
    return bool(_LIBRARY.fullmatch(name))


def served(bundle: Bundle, name: str) -> Served:
    """What to serve of a verified bundle; BundleError where there is nothing a server takes."""
    engine = bundle.folder / "engine"
    if (engine / "model.xml").is_file():
        return _openvino(bundle, name, engine)
    if (engine / "model.engine").is_file():
        return _tensorrt(bundle, name, engine)
    target = bundle.manifest["target"]
    raise BundleError(
        f"{bundle.folder}: no engine in it yet, it was built for {target} on another machine; run "
        "device/finish.py there, `deploy import` its folder, and package then"
    )


def _openvino(bundle: Bundle, name: str, engine: Path) -> Served:
    described = read_json(engine / "engine.json")
    rows = described.get("libraries", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BundleError(f"{engine / 'engine.json'}: libraries is not a list of tables")
    wrong = [row for row in rows if not is_plain(str(row.get("file")))]
    if wrong:
        raise BundleError(f"{engine}: library {str(wrong[0].get('file'))[:60]!r}; don't use this")
    libraries = tuple(engine / str(row["file"]) for row in rows)
    inputs, outputs = _io(described, engine / "engine.json")
    return Served(
        bundle,
        name,
        "openvino",
        inputs,
        outputs,
        {part: engine / part for part in ("model.xml", "model.bin")},
        libraries,
        _samples(bundle, inputs),
        _settings(engine),
    )


def _tensorrt(bundle: Bundle, name: str, engine: Path) -> Served:
    report_path = bundle.folder / "device_report.json"
    sent_path = bundle.folder / "device" / "manifest.json"
    if not report_path.is_file() or not sent_path.is_file():
        raise BundleError(
            f"{bundle.folder}: no device_report.json beside the engine, so it never ran on its "
            "device; run device/finish.py there and `deploy import` its folder"
        )
    report, sent = read_json(report_path), read_json(sent_path)
    device = report.get("device")
    if not isinstance(device, dict) or device.get("library") != "tensorrt":
        library = device.get("library") if isinstance(device, dict) else None
        raise BundleError(
            f"{report_path}: built with {library!r}; Triton has a backend for TensorRT, not for "
            "that"
        )
    inputs, outputs = _io(sent, sent_path)
    return Served(
        bundle,
        name,
        "tensorrt",
        inputs,
        outputs,
        {"model.plan": engine / "model.engine"},
        (),
        _samples(bundle, inputs),
        {"plugins": _plugins(report, report_path)},
        tensorrt=str(device.get("version", "")),
        jetpack=_jetpack(sent, sent_path),
        largest_batch=_largest_batch(sent),
    )


def _jetpack(sent: dict[str, Any], path: Path) -> str:
    nvidia = sent.get("nvidia")
    found = nvidia.get("jetpack", "") if isinstance(nvidia, dict) else ""
    if not isinstance(found, str) or not _JETPACK.fullmatch(found):
        raise BundleError(f"{path}: JetPack {str(found)[:60]!r}; build the bundle again")
    return found


def _plugins(report: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    rows = report.get("plugins") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BundleError(f"{path}: plugins is not a list of tables; import the report again")
    return rows


def _largest_batch(sent: dict[str, Any]) -> int:
    """The largest batch that the plan's profile takes; 0 where its batch isn't free."""
    profiles = sent.get("profiles")
    if not isinstance(profiles, dict) or not profiles:
        return 0
    try:
        return min(int(shapes["max"][0]) for shapes in profiles.values())
    except (KeyError, TypeError, ValueError, IndexError):
        return 0


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON table; BundleError where it is something else."""
    try:
        if path.stat().st_size > _JSON_BYTES:
            raise BundleError(f"{path}: {path.stat().st_size} bytes; don't use this bundle")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: unreadable ({one_line(error)}); build it again") from None
    if not isinstance(found, dict):
        raise BundleError(f"{path}: not a table; build the bundle again")
    return found


def _io(
    described: dict[str, Any], path: Path
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    try:
        rows = _Io.model_validate({key: described.get(key) for key in ("inputs", "outputs")})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path}: {where}: {first['msg']}; build the bundle again") from None
    return tuple(_spec(row, path) for row in rows.inputs), tuple(
        _spec(row, path) for row in rows.outputs
    )


def _spec(row: _Row, path: Path) -> TensorSpec:
    wrong = [d for d in row.shape if d is not None and not 1 <= d < 2**31]
    if row.dtype not in _DTYPES or wrong:
        what = f"dimension {wrong[0]}" if wrong else f"type {row.dtype!r}"
        raise BundleError(f"{path}: {row.name}: {what}; build the bundle again")
    return TensorSpec(row.name, np.dtype(row.dtype), tuple(row.shape))


def _settings(engine: Path) -> dict[str, Any]:
    found = read_json(engine / "settings.json").get("engine")
    if not isinstance(found, dict):
        raise BundleError(f"{engine / 'settings.json'}: engine is not a table; build it again")
    device = found.get("device", "CPU")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise BundleError(
            f"{engine / 'settings.json'}: device {str(device)[:60]!r}; build it again"
        )
    return found


def _samples(bundle: Bundle, inputs: tuple[TensorSpec, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of one sample per input, free dimensions as in the stored samples, else 1."""
    shapes: dict[str, tuple[int, ...]] = {}
    path = bundle.folder / "parity" / "samples.npz"
    if path.is_file():
        shapes = array_shapes(path)
    found = {}
    for spec in inputs:
        seen = shapes.get(spec.name, ())
        seen = seen if len(seen) == len(spec.shape) else (1,) * len(spec.shape)
        dims = [int(s) if d is None else d for d, s in zip(spec.shape, seen, strict=True)]
        if dims and spec.shape[0] is None:
            dims[0] = 1
        found[spec.name] = tuple(dims)
    return found
