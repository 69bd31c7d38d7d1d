"""A small graph as the report's map describes it, and the content around it."""

from __future__ import annotations

import random
from typing import Any

from report_content import int8_content

from deploy.report.map_boxes import boxes

KERNEL = {
    "name": "conv_0",
    "kind": "Convolution",
    "precision": "u8",
    "kernel": "brgconv",
    "names_it": True,
}


def mapped(name: str, operator: str, inputs: list[str], **given: Any) -> dict[str, Any]:
    """A node that writes the tensor of its own name."""
    return {
        "name": name,
        "operator": operator,
        "detail": "",
        "inputs": inputs,
        "outputs": [name],
        "type": "fp32",
        "type_from": "graph",
        "reason": "",
        "weight_sqnr_db": None,
        "sqnr_db": None,
        "noise_db": None,
        "cost": None,
        "kernel": None,
        "stored": [],
        "decisions": [],
        **given,
    }


def cost(ms: float, flops: float = 1e6) -> dict[str, Any]:
    return {"flops": flops, "bytes": 2000, "bound": "memory", "ms": ms}


def graph_of(nodes: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    """A map of those nodes, read from `x`; the last one writes the output."""
    writer = {name: i for i, node in enumerate(nodes) for name in node["outputs"]}
    edges = sorted(
        {(writer[t], i) for i, n in enumerate(nodes) for t in n["inputs"] if t in writer}
    )
    return {
        "stage": "fused",
        "listed": True,
        "nodes": nodes,
        "edges": [list(edge) for edge in edges],
        "boxes": boxes(nodes, edges, {len(nodes) - 1}),
        "inputs": {"x": [i for i, node in enumerate(nodes) if "x" in node["inputs"]]},
        "outputs": {nodes[-1]["outputs"][0]: len(nodes) - 1},
        "ranges": {},
        **given,
    }


def mapped_content() -> dict[str, Any]:
    """int8_content() with its graph: a convolution with its activation, two moves, a sum."""
    content = int8_content()
    joined = {**KERNEL, "names_it": False}
    nodes = [
        mapped(
            *("conv_0", "Conv", ["x", "w"]),
            detail="3×3 /2",
            type="int8",
            type_from="vendor",
            reason="taken by the target's placement",
            weight_sqnr_db=44.25,
            noise_db=-31.0,
            cost=cost(0.03),
            kernel=KERNEL,
            decisions=[0, 2],
        ),
        mapped(
            *("relu_0", "Relu", ["conv_0"]),
            type="int8",
            type_from="joined",
            sqnr_db=42.6,
            cost=cost(0.01, 10),
            kernel=joined,
        ),
        mapped("turn", "Transpose", ["relu_0"], type="moves"),
        mapped("shape", "Reshape", ["turn"], type="moves"),
        mapped("sum", "Add", ["shape", "relu_0"], type="fp32", sqnr_db=9.5, cost=cost(0.06)),
    ]
    content["graph_map"] = graph_of(nodes, ranges={"x": [-1.0, 3.0]})
    content["decisions"].append(
        {**content["decisions"][2], "subject": "x", "reason": "uint8, scale 0.0157, input of Conv"}
    )
    return content


def random_edges(seed: int, count: int) -> list[tuple[int, int]]:
    """A network's shape: mostly a chain, with branches and long ways around."""
    random_ = random.Random(seed)
    edges = set()
    for box in range(1, count):
        last = box - 1 if random_.random() < 0.8 else random_.randrange(max(0, box - 6), box)
        edges.add((last, box))
        if random_.random() < 0.3:
            far = random_.choice((4, 10, count))
            edges.add((random_.randrange(max(0, box - far), box), box))
    return sorted(edges)
