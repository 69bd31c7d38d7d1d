"""Graph rewrites that move less data and compute the same, in the order the target gives."""

from __future__ import annotations

from collections.abc import Sequence

from deploy import registry
from deploy.artifacts.model import Decision, Model
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.own_fusion import blamed
from deploy.surgery.rewrite import rewrite

# one fusion may make room for an earlier one; real graphs are still after two rounds
_ROUNDS = 4


def fuse(model: Model, fusions: Sequence[str]) -> Model:
    """The model after every named fusion, checked after each; its decisions say what was done.

    The list is run again while anything fires. Names of inputs, outputs and of every value that
    still exists stay as they were.
    """
    applied: list[Decision] = []
    skipped: list[Decision] = []
    if not fusions:
        return model.derive(model.proto, ())
    graph = to_graph(model)
    for _ in range(_ROUNDS):
        fired: list[Decision] = []
        skipped = []
        for name in fusions:
            with blamed(name, registry.added_fusion(name)):
                for decision in rewrite(graph, name, registry.load("fusion", name)):
                    (fired if decision.outcome == "applied" else skipped).append(decision)
                if any(decision.rule == name for decision in fired):
                    model = to_model(graph, model, ())
                    graph = to_graph(model)
        applied += fired
        if not fired:
            break
    return model.derive(to_model(graph, model, ()).proto, [*applied, *skipped])
