"""Small bundles made straight from OpenVINO graphs: any tensor type, any batch, no onnx."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from deploy.artifacts.bundle import write_manifest

Node = Any


def bundle(
    folder: Path,
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    *,
    name: str = "tiny",
    status: str = "ok",
    samples: dict[str, np.ndarray] | None = None,
    described: dict[str, Any] | None = None,
    backend: str = "ov",
) -> Path:
    """A bundle around one graph, whose manifest lists every file."""
    engine = folder / "engine"
    engine.mkdir(parents=True)
    model = ov.Model(list(outputs), list(inputs), name)
    ov.save_model(model, engine / "model.xml", compress_to_fp16=False)
    rows = {
        "inputs": [{"name": port.get_any_name()} for port in model.inputs],
        "outputs": [{"name": port.get_any_name()} for port in model.outputs],
    }
    (engine / "engine.json").write_text(json.dumps({**rows, **(described or {})}))
    settings = {
        "backend": backend,
        "precision": "fp32",
        "engine": {"device": "CPU", "inference_precision": {"fp32": "f32"}},
    }
    (engine / "settings.json").write_text(json.dumps(settings))
    if samples:
        (folder / "parity").mkdir()
        np.savez(folder / "parity" / "samples.npz", **samples)
    seal(folder, name=name, status=status)
    return folder


def seal(folder: Path, *, name: str = "tiny", status: str = "ok") -> None:
    """Write the manifest over what the folder holds now."""
    (folder / "manifest.json").unlink(missing_ok=True)
    write_manifest(
        folder,
        {
            "status": status,
            "model": {"name": name, "sha256": "0" * 64},
            "target": "cpu",
            "precision": "fp32",
            "tools": {},
            "command": [],
            "results": {},
        },
    )


def parameter(name: str, shape: Sequence[int], kind: str = "f32") -> Node:
    """An input; -1 is a dimension that the request chooses."""
    node = ops.parameter(list(shape), getattr(ov.Type, kind), name=name)
    node.output(0).set_names({name})
    return node


def named(node: Node, name: str) -> Node:
    """The node as an output of that name."""
    node.output(0).set_names({name})
    return node


def scaled(folder: Path, *, batch: int = -1, factor: float = 2.0, name: str = "tiny") -> Path:
    """x [batch, 3] -> y = factor * x + its column's index."""
    x = parameter("x", [batch, 3])
    product = ops.multiply(x, ops.constant(np.float32(factor)))
    offset = ops.constant(np.arange(3, dtype=np.float32))
    return bundle(folder, [named(ops.add(product, offset), "y")], [x], name=name)


def scaled_truth(x: np.ndarray, factor: float = 2.0) -> np.ndarray:
    return (x * np.float32(factor) + np.arange(3, dtype=np.float32)).astype(np.float32)


def two_inputs(folder: Path) -> Path:
    """a [rows, 2], b [rows, 2, any] -> total [rows, 2, any] and rank [rows] (int64)."""
    a, b = parameter("a", [-1, 2]), parameter("b", [-1, 2, -1])
    wide = ops.unsqueeze(a, ops.constant(np.int64(2)))
    rank = ops.convert(ops.reduce_sum(a, ops.constant(np.int64(1))), ov.Type.i64)
    return bundle(folder, [named(ops.add(b, wide), "total"), named(rank, "rank")], [a, b])


def identity(folder: Path, kind: str) -> Path:
    """x [rows, 4] of a type -> y, the same."""
    x = parameter("x", [-1, 4], kind)
    return bundle(folder, [named(ops.concat([x, x], 1), "y")], [x])


def centred(folder: Path) -> Path:
    """x [rows, 3] -> x minus its mean over the rows: rows depend on each other."""
    x = parameter("x", [-1, 3])
    mean = ops.reduce_mean(x, ops.constant(np.int64(0)), keep_dims=True)
    return bundle(folder, [named(ops.subtract(x, mean), "y")], [x])


Make = Callable[[Path], Path]
