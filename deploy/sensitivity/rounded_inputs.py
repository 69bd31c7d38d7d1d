"""What rounding the inputs of layers costs the outputs: of all of them, and of some alone.

A share of the noise needs no run per layer: what all inputs bring together is measured in one go,
as noise of single tensors nearly adds up. Weights stay float, their error is the smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibrators.ranges import Affine
from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.quantizable import LAYERS
from deploy.sensitivity.lone_layers import LoneLayer, rounding
from deploy.sensitivity.lone_runs import LoneRuns
from deploy.surgery.spans import Graft

_ALL = "all"


def noise_shares(
    model: Model,
    params: Mapping[str, Affine],
    groups: Mapping[str, Sequence[str]],
    samples: Sequence[Sample],
) -> dict[str, float]:
    """The noise power that each group of tensors brings alone, over that of all in `params`.

    model: float, its types inferred. params: by tensor that layers read. What an output is off by
    on average is left out. All 0 where rounding changes nothing.
    """
    parts = {_ALL: tuple(params)} | {f"{_ALL}/{name}": tensors for name, tensors in groups.items()}
    listed = [_rounded(model, {t: params[t] for t in ts}, name) for name, ts in parts.items()]
    with LoneRuns(model, listed, samples) as runs:
        power = dict(runs.measure(listed))
    total = power[_ALL]
    return {name: power[f"{_ALL}/{name}"] / total if total > 0 else 0.0 for name in groups}


def _rounded(model: Model, params: Mapping[str, Affine], name: str) -> LoneLayer:
    """All layers that read one of these tensors, as if they were one."""
    reads: dict[tuple[int, int], str] = {}
    first: dict[str, int] = {}
    for number, node in enumerate(model.proto.graph.node):
        if node.op_type in LAYERS and node.input[0] in params:
            first.setdefault(node.input[0], number)
            reads[number, 0] = f"{node.input[0]}/dequantized"
    made = {tensor: rounding(tensor, params[tensor]) for tensor in first}
    nodes = [(first[tensor], node) for tensor, (steps, _) in made.items() for node in steps]
    weights = [weight for _, constants in made.values() for weight in constants]
    numbers = [number for number, _ in reads]
    graft = Graft(reads, nodes=nodes, weights=weights)
    # from the start: values held in front of each one would take more memory than time they save
    return LoneLayer(name, "", 0, max(numbers), graft, params, 0.0, "", None)
