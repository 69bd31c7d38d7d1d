"""`device/`: all that a device without onnx-deploy needs to build, check and time its engine.

The folder is copied to the device, `python3 finish.py` runs there, and `deploy import` takes what
it found back. Its manifest holds the hash of every file.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calibrators.samples import Sample
from deploy import registry
from deploy.artifacts.bundle import write_manifest
from deploy.artifacts.model import Model, TensorSpec
from deploy.batches import whole_inputs
from deploy.errors import BuildError
from deploy.files import write_aside
from deploy.int8.race import quantized_layers
from deploy.metrics import sqnr_db
from deploy.nvidia.dialect import rest_of
from deploy.nvidia.finish_script import finish_script
from deploy.nvidia.implicit import Implicit
from deploy.nvidia.profiles import profiles
from deploy.plugin.ops import DOMAIN, op_types
from deploy.rounding_bound import rounding_bound
from deploy.target import QUANTIZED, Precision, Target, Tolerance

_SOURCES = (".h", ".cuh", ".cu", ".cpp", ".txt")
# of OpenVINO alone, or read by the host
_NOT_SENT = ("ov.cpp",)
_PARITY = {"samples": "samples", "reference": "reference", "simulated": "engine"}


@dataclass(frozen=True)
class Sent:
    """A graph, and INT8 beside it where it isn't in it."""

    model: Model
    implicit: Implicit | None = None

    def write(self, folder: Path, version: str, suffix: str = "") -> None:
        """The graph's file, and the cache and the list of layers that go with it."""
        self.model.save(folder / f"model{suffix}.onnx")
        if self.implicit is not None:
            cache, listed = self.implicit.cache(version), self.implicit.layer_precisions()
            write_aside(folder / f"calibration{suffix}.cache", cache.encode())
            write_aside(folder / f"layer_precisions{suffix}.txt", listed.encode())


@dataclass(frozen=True)
class Shipment:
    """What is sent. sent: as the device's parser reads it; plain: the same without operators of
    plugins, where there are any in it. judged: the graph that ran here in its place, with its
    evidence folder. engine: of TensorRT-RTX, built already. scores: the output of class scores.
    """

    source: Model
    target: Target
    precision: Precision
    sent: Sent
    plain: Sent | None
    judged: Model
    evidence: Path
    tolerance: Tolerance
    scores: str | None
    engine: Path | None
    tools: Mapping[str, str]


def write_device_folder(folder: Path, shipment: Shipment) -> None:
    """Fill an existing, empty folder; BuildError for a plugin operator without CUDA sources."""
    nvidia = shipment.target.engine.nvidia
    if nvidia is None:
        raise BuildError(f"target {shipment.target.name!r} has no [engine.nvidia]; nothing to send")
    shipment.sent.write(folder, nvidia.versions[0])
    plugins = used_plugins(shipment.sent.model)
    if plugins:
        _write_sources(folder / "plugins", plugins)
    if shipment.plain is not None:
        shipment.plain.write(folder, nvidia.versions[0], "_plain")
    if shipment.engine is not None:
        shutil.copyfile(shipment.engine, folder / "model.engine")
    (folder / "parity").mkdir()
    for ours, theirs in _PARITY.items():
        shutil.copyfile(shipment.evidence / f"{theirs}.npz", folder / "parity" / f"{ours}.npz")
    write_aside(folder / "finish.py", finish_script().encode())
    write_manifest(folder, _content(folder, shipment, plugins))


def _content(folder: Path, shipment: Shipment, plugins: Mapping[str, str]) -> dict[str, Any]:
    nvidia = shipment.target.engine.nvidia
    model, wanted = shipment.sent.model, shipment.tolerance
    arrays = {name: _arrays(folder / "parity" / f"{name}.npz") for name in _PARITY}
    return {
        "model": {"name": shipment.source.name, "sha256": shipment.source.sha256},
        "target": {"name": shipment.target.name, "title": shipment.target.title},
        "precision": shipment.precision,
        "nvidia": nvidia.model_dump(mode="json") if nvidia else {},
        "quantization": _form(shipment),
        "quantized_layers": quantized_layers(model),
        "rest": rest_of(shipment.target, shipment.precision),
        "inputs": [_row(spec) for spec in model.inputs],
        "outputs": [_row(spec) for spec in model.outputs],
        "profiles": profiles(model.inputs, {n: x.shape for n, x in arrays["samples"].items()}),
        "plugins": [
            {"folder": name, "op": op, "version": "1"} for op, name in sorted(plugins.items())
        ],
        "parity": {
            "min_sqnr_db": wanted.min_sqnr_db,
            "min_cosine": wanted.min_cosine,
            "scores": shipment.scores,
            "min_agreement_pct": wanted.min_agreement_pct,
            "simulated_sqnr_db": {
                name: sqnr_db(x, arrays["simulated"][name])
                for name, x in arrays["reference"].items()
            },
            "rounding_sqnr_db": _rounding(shipment, arrays["samples"]),
        },
        "tools": dict(shipment.tools),
    }


def _form(shipment: Shipment) -> str:
    if shipment.precision not in QUANTIZED:
        return "none"
    return "explicit" if shipment.sent.implicit is None else "implicit"


def _row(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype.name, "shape": list(spec.shape)}


def _rounding(shipment: Shipment, feeds: Mapping[str, np.ndarray]) -> dict[str, float] | None:
    """The bound on the very samples that are sent; None where nothing is rounded to integers."""
    whole = whole_inputs(shipment.judged.inputs)
    count = len(next(iter(feeds.values())))
    samples = [
        Sample(f"{i}", {n: x[i] if n in whole else x[i : i + 1] for n, x in feeds.items()})
        for i in range(count)
    ]
    return rounding_bound(shipment.judged, samples) or None


def used_plugins(model: Model) -> dict[str, str]:
    """Folder name per plugin operator of the graph."""
    used = {node.op_type for node in model.proto.graph.node if node.domain == DOMAIN}
    known = op_types()
    return {op: known[op] for op in used}


def _write_sources(folder: Path, plugins: Mapping[str, str]) -> None:
    """The CUDA and TensorRT sources of these plugins, and what builds them."""
    for name in plugins.values():
        source = registry.path("plugin", name).parent
        files = [p for p in sorted(source.iterdir()) if _is_sent(p)]
        if not any(p.suffix == ".cu" for p in files):
            raise BuildError(f"{source}: no kernel.cu, so TensorRT has no kernel of plugin {name}")
        _copy_files(files, folder / name)
        # a user's own folder lies elsewhere and has none of these
        root = registry.plugin_roots()[0]
        shared = [root / "tensorrt", *(p for p in (root / "CMakeLists.txt",) if p.is_file())]
        for path in shared:
            if path.is_dir():
                _copy_files([p for p in sorted(path.iterdir()) if _is_sent(p)], folder / path.name)
            elif path.is_file():
                _copy_files([path], folder)


def _is_sent(path: Path) -> bool:
    return path.suffix in _SOURCES and path.name not in _NOT_SENT


def _copy_files(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, folder / file.name)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
