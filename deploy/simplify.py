"""Constants folded, dead and duplicate nodes gone: onnxslim's work, checked by numbers."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import onnx

from deploy.artifacts.model import Decision, Model, copy_proto
from deploy.backends import reference
from deploy.errors import BuildError, ModelError, one_line
from deploy.metrics import IDENTICAL_DB, sqnr_db
from deploy.noise import seeded_feeds
from deploy.surgery.graph import verified
from deploy.target import Tolerance

# float32 round-off through a deep network stays far above this; a wrong fold falls far below
_LOWEST_SQNR_DB = 80.0


def simplify(model: Model) -> Model:
    """The model with foldable nodes folded, or unchanged with the reason why not.

    Fusions of layers are left to `fuse`, which reports them. The result is kept only when names of
    inputs and outputs are the same and a seeded input gives the same numbers.
    """
    before = len(model.proto.graph.node)
    try:
        slim = model.derive(verified(_slim(model), model.name), ())
    # onnxslim raises whatever its rules ran into; a build works without it
    except Exception as error:
        return _unchanged(model, f"onnxslim failed: {one_line(error)}")
    if _names(slim) != _names(model):
        return _unchanged(model, "onnxslim changed the inputs or outputs")
    difference = _difference(model, slim)
    if difference is not None:
        return _unchanged(model, difference)
    after = len(slim.proto.graph.node)
    if after == before:
        return model.derive(slim.proto, [_decision("note", model.name, "nothing to remove")])
    reason = f"{before} -> {after} nodes: constants folded, dead and duplicate nodes removed"
    return model.derive(slim.proto, [_decision("applied", model.name, reason)])


def _slim(model: Model) -> onnx.ModelProto:
    import onnxslim
    from onnxslim.core.pattern.registry import DEFAULT_FUSION_PATTERNS

    logging.getLogger("onnxslim").setLevel(logging.ERROR)
    layer_fusions = [name for name in DEFAULT_FUSION_PATTERNS if name.startswith("Fusion")]
    slim = onnxslim.slim(copy_proto(model.proto), skip_fusion_patterns=layer_fusions)
    assert isinstance(slim, onnx.ModelProto)
    return slim


def _difference(model: Model, slim: Model) -> str | None:
    """Why the simplified model isn't the same function; None when it is."""
    try:
        feeds = seeded_feeds(model.inputs)
        with reference.build(model) as old, reference.build(slim) as new:
            expected, got = old.run(feeds), new.run(feeds)
    except (BuildError, ModelError) as error:
        # a random input may be illegal (an index out of range), and a sequence can't be fed: then
        # nothing was shown either way
        return f"the simplified model couldn't be compared: {error}"
    for name, value in expected.items():
        quality = _quality_db(value, got[name])
        if quality < _LOWEST_SQNR_DB:
            return f"onnxslim changed output {name!r} ({quality:.0f} dB)"
    return None


def _quality_db(expected: np.ndarray, got: np.ndarray) -> float:
    """SQNR; all or nothing for strings, and for the NaN that a random input may well give."""
    numeric = expected.dtype.kind in "fiub"
    if expected.shape == got.shape and np.array_equal(expected, got, equal_nan=numeric):
        return IDENTICAL_DB
    if not numeric or expected.dtype != got.dtype or expected.shape != got.shape:
        return -IDENTICAL_DB
    if np.abs(expected.astype(np.float64) - got).max(initial=0.0) <= Tolerance().negligible_abs:
        return IDENTICAL_DB
    return sqnr_db(expected, got)


def _names(model: Model) -> Mapping[str, list[str]]:
    graph = model.proto.graph
    given = {weight.name for weight in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in given]
    return {"in": inputs, "out": [value.name for value in graph.output]}


def _unchanged(model: Model, reason: str) -> Model:
    return model.derive(model.proto, [_decision("skipped", model.name, reason)])


def _decision(outcome: object, subject: str, reason: str) -> Decision:
    return Decision("simplify", "onnxslim", outcome, subject, reason)  # type: ignore[arg-type]
