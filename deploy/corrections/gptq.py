"""Integer weights rounded anew on their scales, so that a layer's output changes least.

    Wq = round(W / s)   =>   integers that minimise  E[|W x - s Wq x|^2]

on the layer's inputs in the float model, one column after the other (see `deploy.weights.rounding`). It
pays below 8 bits. For W8A8 it gains nothing reliable, as activations lose more than weights do: no
built-in target names it. A bias correction belongs behind it. Costs nothing on the device.

Source: Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from onnx import TensorProto, numpy_helper

from calibrators.samples import Sample
from deploy.artifacts.model import Decision, Model, copy_proto
from deploy.errors import CalibrationError
from deploy.surgery.graph import to_graph
from deploy.weights.layer_weights import LayerWeight, layer_weights
from deploy.weights.rounding import compensated, output_db
from deploy.weights.second_moments import Reader, second_moments
from deploy.weights.stored import StoredWeight, stored_weights

_OPS = ("Conv", "Gemm", "MatMul")
# bytes of E[x x^T] that are held at once; more weights take another pass over the samples
_MOST_BYTES = 1 << 30


def gptq(quantized: Model, exact: Model, samples: Sequence[Sample]) -> Model:
    """The Q/DQ model with other integers on the same scales; a Decision per weight.

    CalibrationError for no samples, for NaN or Inf in them, and where a weight's inputs give no
    Hessian, with the weight's name.
    """
    found, _ = layer_weights(to_graph(exact), _OPS, 0)
    stored = stored_weights(quantized)
    decisions: list[Decision] = []
    pairs: list[tuple[LayerWeight, StoredWeight]] = []
    for weight in found:
        own = stored.get(frozenset(node.outputs[0].name for node in weight.nodes))
        if own is None:
            continue
        reason = _refusal(weight, own)
        if reason is None:
            pairs.append((weight, own))
        else:
            decisions.append(_decision("skipped", weight.name, reason))
    changed: dict[str, TensorProto] = {}
    for part in _parts(pairs):
        readers = [reader for weight, _ in part for reader in weight.readers]
        moments = second_moments(exact, samples, readers)
        for weight, own in part:
            values, reason = _rounded(weight, own, moments)
            changed[own.name] = numpy_helper.from_array(values, own.name)
            decisions.append(_decision("applied", weight.name, reason))
    proto = copy_proto(quantized.proto)
    for initializer in proto.graph.initializer:
        if initializer.name in changed:
            initializer.CopyFrom(changed[initializer.name])
    return quantized.derive(proto, decisions)


def _refusal(weight: LayerWeight, own: StoredWeight) -> str | None:
    """Why a weight keeps its integers; None when it can be rounded anew."""
    if own.values.shape != weight.values.shape:
        return f"{list(own.values.shape)} in the float model {list(weight.values.shape)}"
    if own.scale.size > 1 and own.axis != weight.axis:
        return f"its scales lie along axis {own.axis}, its outputs along {weight.axis}"
    if not weight.readers:
        return "what it is multiplied with is no plain tensor or window"
    return None


def _parts(
    pairs: Sequence[tuple[LayerWeight, StoredWeight]],
) -> Iterator[list[tuple[LayerWeight, StoredWeight]]]:
    """Weights whose moments fit into memory together, in order."""
    part: list[tuple[LayerWeight, StoredWeight]] = []
    held = 0
    for weight, own in pairs:
        size = sum(_moment_bytes(weight, reader) for reader in weight.readers)
        if part and held + size > _MOST_BYTES:
            yield part
            part, held = [], 0
        part.append((weight, own))
        held += size
    if part:
        yield part


def _moment_bytes(weight: LayerWeight, reader: Reader) -> int:
    groups = reader.window.groups if reader.window else 1
    return 8 * groups * weight.columns**2


def _rounded(
    weight: LayerWeight, own: StoredWeight, moments: Mapping[Reader, np.ndarray]
) -> tuple[np.ndarray, str]:
    """The constant's new values, and what they gain."""
    rows, hessian = weight.rows(), weight.hessian(moments)
    assert hessian is not None
    grid = own.grid(len(rows))
    try:
        integers = compensated(rows, hessian, grid)
    except ValueError as error:
        raise CalibrationError(
            f"weight {weight.name!r}: {error}; leave gptq out of the target's corrections"
        ) from None
    nearest = grid.nearest(rows)
    before, after = (output_db(rows, grid.values(q), hessian) for q in (nearest, integers))
    moved = np.count_nonzero(integers != nearest) / integers.size
    reason = f"the output {before:.1f} -> {after:.1f} dB, {moved:.0%} of the integers moved"
    new = integers if own.values.dtype != np.float32 else grid.values(integers)
    return weight.shaped(new).astype(own.values.dtype), reason


def _decision(outcome: str, subject: str, reason: str) -> Decision:
    return Decision("correct", "gptq", outcome, subject, reason)  # type: ignore[arg-type]
