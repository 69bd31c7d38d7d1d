"""An ONNX model between two stages, and the decisions a stage took on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from deploy.errors import ModelError, one_line
from deploy.files import write_aside

_TWO_GIB = 2**31


@dataclass(frozen=True)
class Decision:
    """One thing a stage did, or declined to do, to `subject` (a node or tensor), and why."""

    stage: str
    rule: str
    outcome: Literal["applied", "skipped", "note"]
    subject: str
    reason: str
    bytes_saved: int = 0


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output; a free dimension is None. `labels` keeps symbolic names."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        named = self.labels or ("",) * len(self.shape)
        pairs = zip(self.shape, named, strict=True)
        dims = (str(d) if d is not None else label or "?" for d, label in pairs)
        return f"{self.name} {self.dtype}[{','.join(dims)}]"


@dataclass(frozen=True)
class Model:
    """An ONNX graph with its weights inside; stages read `proto` and never change it.

    decisions: what the stage that made this model did, in order.
    """

    proto: onnx.ModelProto
    name: str
    decisions: tuple[Decision, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Model:
        """A model that a stage saved, with its decisions if they lie beside it."""
        log = decisions_path(path)
        decisions: tuple[Decision, ...] = ()
        if log.is_file():
            rows = json.loads(log.read_text(encoding="utf-8"))
            decisions = tuple(Decision(**row) for row in rows)
        return cls(onnx.load(path), path.stem, decisions)

    def save(self, path: Path) -> None:
        """Write the ONNX file, complete or not at all."""
        write_aside(path, self.serialized)

    def save_with_decisions(self, path: Path) -> None:
        """Write the ONNX file and, beside it, what was done to the graph."""
        self.save(path)
        rows = json.dumps([asdict(d) for d in self.decisions], indent=1)
        write_aside(decisions_path(path), rows.encode())

    @cached_property
    def serialized(self) -> bytes:
        """The same bytes for the same graph; ModelError above protobuf's 2 GiB."""
        if self.proto.ByteSize() >= _TWO_GIB:
            raise ModelError(
                f"{self.name}: {self.proto.ByteSize()} bytes with weights; a single ONNX file ends "
                "at 2 GiB. Split the model, or store its weights as float16"
            )
        return bytes(self.proto.SerializeToString(deterministic=True))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.serialized).hexdigest()

    @property
    def opset(self) -> int:
        """The version of the default operator set."""
        return next((o.version for o in self.proto.opset_import if o.domain in ("", "ai.onnx")), 0)

    @cached_property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What has to be fed: graph inputs that no initializer provides."""
        given = {i.name for i in self.proto.graph.initializer}
        return tuple(tensor_spec(v) for v in self.proto.graph.input if v.name not in given)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What comes out; an output of unknown rank has the one free dimension labelled `…`."""
        return tuple(tensor_spec(v, any_rank=True) for v in self.proto.graph.output)

    def in_short(self) -> str:
        """How many nodes, and how much the stage that made it did and declined."""
        parts = [f"{len(self.proto.graph.node)} nodes"]
        applied = sum(d.outcome == "applied" for d in self.decisions)
        skipped = sum(d.outcome == "skipped" for d in self.decisions)
        if applied:
            parts.append(f"{applied} change{'s' if applied > 1 else ''}")
        if skipped:
            parts.append(f"{skipped} skipped with a reason")
        return ", ".join(parts)

    def named(self, name: str) -> Model:
        """The same model under another name."""
        return Model(self.proto, name, self.decisions)

    def derive(self, proto: onnx.ModelProto, decisions: Iterable[Decision]) -> Model:
        """The next stage's model: another graph under the same name."""
        return Model(proto, self.name, tuple(decisions))


def decisions_path(model_path: Path) -> Path:
    """Where the decisions of a saved model lie."""
    return model_path.with_suffix(".decisions.json")


def tensor_spec(value: onnx.ValueInfoProto, *, any_rank: bool = False) -> TensorSpec:
    """Name, dtype and shape of a graph input or output; ModelError when it isn't a tensor."""
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "untyped value"
        raise ModelError(f"{value.name!r} is a {kind}; only tensors can be deployed")
    tensor = value.type.tensor_type
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except KeyError as error:
        raise ModelError(f"{value.name!r} has no known element type: {one_line(error)}") from None
    if not tensor.HasField("shape"):
        if any_rank:
            return TensorSpec(value.name, dtype, (None,), ("…",))
        raise ModelError(f"{value.name!r} has no shape; give --shape {value.name}=…")
    dims = tensor.shape.dim
    # exporters spell "free" as no value, as a name, and as -1 or 0
    shape = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims
    )
    return TensorSpec(value.name, dtype, shape, tuple(d.dim_param for d in dims))


def copy_proto(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A deep copy that a stage may change."""
    clone = onnx.ModelProto()
    clone.CopyFrom(proto)
    return clone


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and every subgraph in it (bodies of If, Loop, Scan)."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)
            for sub in attribute.graphs:
                yield from graphs(sub)


def as_rows(decisions: Iterable[Decision]) -> list[dict[str, Any]]:
    """The decisions as plain JSON."""
    return [asdict(d) for d in decisions]
