"""What graphs and engines answer to the samples of a ladder."""

from __future__ import annotations

from collections.abc import Sequence

from calibrators.samples import Sample
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.batches import batches, feeds_of, rows
from deploy.ladder.tensors import Feeding, Values

# graphs whose outputs are held: the float one, its rounded form, and Q/DQ before its corrections
_KEPT = 4


class Outputs:
    """Of every graph on the same samples; those of the last graphs asked for are kept."""

    def __init__(self, samples: Sequence[Sample], feeding: Feeding) -> None:
        self._samples, self._feeding = samples, feeding
        self._kept: dict[int, tuple[Model, list[Values]]] = {}

    def of(self, model: Model) -> list[Values]:
        """Per sample; Q/DQ as written, for the runtime's own INT8 kernels are another vendor's."""
        # the model is kept too: another one might get its id
        kept = self._kept.pop(id(model), None)
        if kept is None:
            with reference.ReferenceEngine(model, threads=1, exact=holds_qdq(model)) as engine:
                kept = model, self.run(engine)
        self._kept[id(model)] = kept
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]

    def run(self, engine: Engine, first: int | None = None) -> list[Values]:
        """Per sample, of all of them or of the first ones."""
        found: list[Values] = []
        for group, size in batches(self._samples[:first], engine.inputs):
            out = engine.run(self._feeding.given(engine.inputs, feeds_of(group, size)))
            found += [{n: rows(x, i, size) for n, x in out.items()} for i in range(len(group))]
        return found


def holds_qdq(model: Model) -> bool:
    """Whether anything in it is quantized."""
    return any(n.op_type == "QuantizeLinear" for n in model.proto.graph.node)
