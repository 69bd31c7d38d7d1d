"""Graph rewrites that move less data and compute the same, in the order the target gives."""

from __future__ import annotations

from collections.abc import Sequence

from deploy import registry
from deploy.artifacts.model import Decision, Model
from deploy.graph import to_graph, to_model
from deploy.rewrite import rewrite


def fuse(model: Model, fusions: Sequence[str]) -> Model:
    """The model after every named fusion, checked after each; its decisions say what was done.

    Names of inputs, outputs and of every value that still exists stay as they were.
    """
    decisions: list[Decision] = []
    for name in fusions:
        rule = registry.load("fusion", name)
        graph = to_graph(model)
        decisions += rewrite(graph, name, rule)
        model = to_model(graph, model, ())
    return model.derive(model.proto, decisions)
