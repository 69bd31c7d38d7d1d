"""What the precision map says of a box: its colours, its label, and the side panel's lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.report import units

Node = Mapping[str, Any]
Content = Mapping[str, Any]
Pairs = list[tuple[str, str]]

TYPES = {
    "int8": "INT8",
    "fp8": "FP8",
    "fp16": "fp16",
    "bf16": "bf16",
    "fp32": "fp32",
    "plugin": "plugin",
    "moves": "moves data",
    "unknown": "unknown",
}
# SQNR in dB, from which on a step of the colour scale begins; share of the predicted time
_DECIBELS = (50, 40, 30, 20, 10)
_SHARES = (0.005, 0.01, 0.02, 0.05, 0.1)
ERRORS = ("50 dB and more", "40", "30", "20", "10", "less")
TIMES = ("under 0.5 %", "0.5", "1", "2", "5", "10 % and more")
_TOLD = {
    "vendor": "as the vendor's list says",
    "joined": "the vendor's list doesn't name it: it belongs to the kernel below",
    "graph": "as the graph asks for",
}


class Words:
    """The words of one graph's boxes."""

    def __init__(self, content: Content) -> None:
        self.found = content["graph_map"]
        self.decisions = content["decisions"]
        self.total_ms = sum(n["cost"]["ms"] for n in self.found["nodes"] if n["cost"]) or 1.0
        self.placed = {
            row["subject"]: row["reason"]
            for row in self.decisions
            if (row["rule"], row["outcome"]) == ("activation", "applied")
        }

    def nodes(self, box: Sequence[int]) -> list[Node]:
        """The nodes of a box, in order."""
        return [self.found["nodes"][index] for index in box]

    def classes(self, nodes: Sequence[Node]) -> str:
        """The classes of page.css that colour the box: by type, by error, by time."""
        error, share = worst(nodes), self.share(nodes)
        by_error = "e-none" if error is None else f"e{sum(error < step for step in _DECIBELS)}"
        by_time = "p-none" if share == 0 else f"p{sum(share >= step for step in _SHARES)}"
        return f"t-{main(nodes)['type']} {by_error} {by_time}"

    def share(self, nodes: Sequence[Node]) -> float:
        """The part of the whole predicted time."""
        return _sum(nodes, "ms") / self.total_ms

    def figures(self, nodes: Sequence[Node]) -> tuple[str, str, str]:
        """What stands in the box when it is coloured by type, by error, and by time."""
        error, ms = worst(nodes), _sum(nodes, "ms")
        return (
            TYPES[main(nodes)["type"]],
            "" if error is None else units.decibel(error),
            units.duration(ms) if ms else "",
        )

    def panel(self, nodes: Sequence[Node]) -> Pairs:
        """Name and value of everything that is known."""
        pairs = [*_type(nodes), *_kernel(nodes), *_errors(nodes), *self._cost(nodes)]
        inner = {name for node in nodes for name in node["outputs"]}
        read = dict.fromkeys(t for n in nodes for t in n["inputs"] if t not in inner)
        written = nodes[-1]["outputs"]
        pairs += [("Reads", text) for text in map(self._tensor, read) if text]
        return pairs + [("Writes", text) for text in map(self._tensor, written) if text]

    def said(self, nodes: Sequence[Node]) -> list[str]:
        """The decisions that touched it."""
        rows = [self.decisions[i] for i in sorted({i for n in nodes for i in n["decisions"]})]
        return [
            f"{row['stage']}, {row['rule']}{' skipped' if row['outcome'] == 'skipped' else ''}: "
            f"{row['reason']} ({row['subject']})"
            for row in rows
        ]

    def _cost(self, nodes: Sequence[Node]) -> Pairs:
        if not any(node["cost"] for node in nodes):
            return []
        flops, moved, ms = (_sum(nodes, key) for key in ("flops", "bytes", "ms"))
        roofs = sorted({n["cost"]["bound"] for n in nodes if n["cost"] and n["cost"]["bound"]})
        bound = f", bound by {' and '.join(roofs)}" if roofs else ""
        return [
            ("Compute", units.scaled(flops, "FLOP")),
            ("Memory traffic", units.size(moved)),
            (
                "Predicted",
                f"{units.duration(ms)}, {units.share(ms / self.total_ms)} of the graph{bound}",
            ),
        ]

    def _tensor(self, name: str) -> str:
        """A tensor with its range and its integers; empty where neither is known."""
        known = self.found["ranges"].get(name)
        parts = [f"range {units.plain(known[0])} to {units.plain(known[1])}"] if known else []
        parts += [self.placed[name]] if name in self.placed else []
        return f"{name}: {'; '.join(parts)}" if parts else ""


def main(nodes: Sequence[Node]) -> Node:
    """The node that the box is about: the one that computes most, else the first."""
    return max(nodes, key=lambda n: n["cost"]["flops"] if n["cost"] else -1)


def worst(nodes: Sequence[Node]) -> float | None:
    """SQNR at the box's end: of its last node that has one."""
    found = [node["sqnr_db"] for node in nodes if node["sqnr_db"] is not None]
    return found[-1] if found else None


def title(nodes: Sequence[Node]) -> str:
    """The operators in few words, the one that computes first."""
    first = main(nodes)
    text = f"{first['operator']} {first['detail']}".strip()
    others = [node["operator"] for node in nodes if node is not first]
    if not others:
        return text
    return f"{text} + {others[0]}" if len(others) == 1 else f"{text} + {len(others)}"


def _sum(nodes: Sequence[Node], key: str) -> float:
    return float(sum(node["cost"][key] for node in nodes if node["cost"]))


def _type(nodes: Sequence[Node]) -> Pairs:
    node = main(nodes)
    pairs = [("Type", f"{TYPES[node['type']]}, {_TOLD[node['type_from']]}")]
    if node["reason"]:
        pairs.append(("Why", node["reason"]))
    pairs += [("Weights stored as", ", ".join(n["stored"])) for n in nodes if n["stored"]]
    return pairs


def _kernel(nodes: Sequence[Node]) -> Pairs:
    found = dict.fromkeys(
        f"{n['kernel']['kernel'] or n['kernel']['name']} ({n['kernel']['kind']}, "
        f"{n['kernel']['precision'] or 'type not told'})"
        for n in nodes
        if n["kernel"]
    )
    return [("Kernel", "; ".join(found))] if found else []


def _errors(nodes: Sequence[Node]) -> Pairs:
    error = worst(nodes)
    pairs = [] if error is None else [("SQNR at its output", units.decibel(error))]
    for node in nodes:
        if node["weight_sqnr_db"] is not None:
            pairs.append(("SQNR of its weights", units.decibel(node["weight_sqnr_db"])))
        if node["noise_db"] is not None:
            pairs.append(("Noise alone in 8 bits", f"{node['noise_db']:.1f}\N{NO-BREAK SPACE}dB"))
    return pairs
