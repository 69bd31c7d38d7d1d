"""Small models as text, and what a fusion has to prove on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from deploy.artifacts.model import Decision, Model
from deploy.backends import reference
from deploy.fuse import fuse

MODELS = Path(__file__).resolve().parents[2] / "shared" / "assets" / "models"


def weight(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Normal values of that shape; another seed gives other values."""
    random = np.random.default_rng((seed, *shape))
    return np.asarray(random.standard_normal(shape)).astype(dtype)


def model_from(
    text: str, weights: Mapping[str, np.ndarray] | None = None, *, opset: int = 17, ir: int = 8
) -> Model:
    """A model from ONNX text, `g (float[N,3,8,6] x) => (float[...] y) { y = Relu(x) }`."""
    domains = f'"" : {opset}, "com.microsoft" : 1, "onnx_deploy" : 1'
    proto = onnx.parser.parse_model(f"<ir_version: {ir}, opset_import: [{domains}]>\n{text}")
    for name, values in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    return Model(proto, "m")


def ops(model: Model) -> list[str]:
    return [node.op_type for node in model.proto.graph.node]


def skips(decisions: Sequence[Decision]) -> list[str]:
    return [d.reason for d in decisions if d.outcome == "skipped"]


def feeds_for(model: Model, batch: int = 2, seed: int = 7) -> dict[str, np.ndarray]:
    """Seeded values, not centred on zero; free dimensions get `batch`."""
    random = np.random.default_rng(seed)
    feeds = {}
    for spec in model.inputs:
        shape = [batch if d is None else d for d in spec.shape]
        if spec.dtype.kind == "f":
            feeds[spec.name] = (random.standard_normal(shape) * 2 + 0.5).astype(spec.dtype)
        elif spec.dtype.kind == "b":
            feeds[spec.name] = np.ones(shape, spec.dtype)
        else:
            feeds[spec.name] = random.integers(0, 3, shape).astype(spec.dtype)
    return feeds


def run(model: Model, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes, every node as written."""
    with reference.ReferenceEngine(model, threads=1, exact=True) as engine:
        return engine.run(feeds)


def assert_same_numbers(before: Model, after: Model, *, rtol: float = 1e-5) -> None:
    """Both give the same outputs on the same feeds; rtol 0 means the same bits."""
    feeds = feeds_for(before)
    expected, got = run(before, feeds), run(after, feeds)
    assert list(got) == list(expected)
    for name, value in expected.items():
        assert got[name].dtype == value.dtype, name
        if rtol == 0:
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        else:
            # a sum of terms of both signs is judged against the largest value, not against itself
            scale = float(np.abs(value.astype(np.float64)).max())
            np.testing.assert_allclose(got[name], value, rtol=rtol, atol=rtol * scale, err_msg=name)


def assert_fuses(
    model: Model,
    fusion: str,
    expected_ops: Sequence[str],
    *,
    reason: str | None = None,
    rtol: float = 1e-5,
) -> Model:
    """The fusion leaves these operators, the same input and output specs and the same numbers."""
    before = model.serialized
    fused = fuse(model, [fusion])
    assert model.proto.SerializeToString(deterministic=True) == before, "the input was changed"
    assert ops(fused) == list(expected_ops)
    assert [str(s) for s in fused.inputs] == [str(s) for s in model.inputs]
    assert [str(s) for s in fused.outputs] == [str(s) for s in model.outputs]
    applied = [d for d in fused.decisions if d.outcome == "applied"]
    assert applied, "nothing fired"
    assert all((d.stage, d.rule) == ("fuse", fusion) for d in fused.decisions)
    if reason is not None:
        assert any(re.search(reason, d.reason) for d in applied), applied
    assert_same_numbers(model, fused, rtol=rtol)
    return fused


def assert_skips(model: Model, fusion: str, reason: str) -> Model:
    """The fusion leaves every operator as it is, and says why with a reason that matches."""
    fused = fuse(model, [fusion])
    assert ops(fused) == ops(model)
    assert not [d for d in fused.decisions if d.outcome == "applied"]
    found = skips(fused.decisions)
    assert any(re.search(reason, text) for text in found), f"{reason!r} not in {found}"
    return fused
