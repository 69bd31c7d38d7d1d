"""Where quantization noise comes from: every float tensor of the graph, before and after Q/DQ."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.batches import batches, feeds_of, rows
from deploy.calibrate import float_tensors
from deploy.metrics import Error, without_shared_infinities


@dataclass(frozen=True)
class LayerError:
    """The error that has piled up at one tensor, in graph order."""

    tensor: str
    operator: str
    sqnr_db: float
    cosine: float


def layer_errors(
    float_model: Model, quantized: Model, samples: Iterable[Sample]
) -> list[LayerError]:
    """The SQNR of every tensor that both graphs have, the Q/DQ graph simulated in float32."""
    kept = set(float_tensors(quantized))
    inputs = {spec.name for spec in float_model.inputs}
    names = [n for n in float_tensors(float_model) if n in kept and n not in inputs]
    errors = {name: Error() for name in names}
    with (
        reference.build_observer(float_model, names) as before,
        # exactly as written: the runtime's own INT8 kernels are another vendor's
        reference.build_observer(quantized, names, exact=True) as after,
    ):
        for group, size in batches(samples, float_model.inputs):
            feeds = feeds_of(group, size)
            expected, got = before.run(feeds), after.run(feeds)
            for name in names:
                for index in range(len(group)):
                    exact, other = (rows(x[name], index, size) for x in (expected, got))
                    errors[name].add(*without_shared_infinities(exact, other))
    operators = {o: n.op_type for n in float_model.proto.graph.node for o in n.output}
    order = {o: i for i, n in enumerate(float_model.proto.graph.node) for o in n.output}
    return [
        LayerError(name, operators[name], errors[name].sqnr_db, errors[name].cosine)
        for name in sorted(names, key=lambda name: order[name])
    ]
