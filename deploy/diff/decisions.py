"""What two builds decided differently: rewrites, placement, the type of every layer, ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deploy.artifacts.ranges import Ranges

if TYPE_CHECKING:
    from deploy.diff.bundles import Side

# a range that moved by less than this part of its width moves no value by much
_MOVED = 0.02


def decisions(before: Side, after: Side) -> dict[str, Any]:
    """engines: which was chosen and why. rules: how often each rewrite fired. types: layers that
    both have, in another type. ranges: those that moved, by the part of the wider one."""
    old, new = _types(before.content), _types(after.content)
    return {
        "engines": [_chosen(side.content) for side in (before, after)],
        "rules": _rules(before.content, after.content),
        "types": [
            {
                "layer": name,
                "operator": old[name]["operator"],
                "before": old[name]["type"],
                "after": new[name]["type"],
                "reason": _reason(old[name]["reason"], new[name]["reason"]),
            }
            for name in old
            if name in new and old[name]["type"] != new[name]["type"]
        ],
        "layers": {
            "both": sum(name in new for name in old),
            "gone": [name for name in old if name not in new],
            "added": [name for name in new if name not in old],
        },
        "ranges": _ranges(before.ranges, after.ranges),
    }


def _reason(before: str, after: str) -> str:
    """Why it is of another type now, else why it was of the one before."""
    return after or (f"in the first: {before}" if before else "")


def _chosen(content: Mapping[str, Any]) -> dict[str, str] | None:
    tried = content["measured"]["tried"]
    return None if tried is None else {"name": tried["chosen"], "reason": tried["reason"]}


def _rules(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per stage and rule with another count: applied and skipped, and for which subjects only."""
    fired = [_fired(content) for content in (before, after)]
    counts = [Counter((s, r, o) for s, r, o, _ in found) for found in fired]
    rules = list(dict.fromkeys((s, r) for found in fired for s, r, _, _ in found))
    rows = []
    for stage, rule in rules:
        applied, skipped = (
            [count[stage, rule, outcome] for count in counts] for outcome in ("applied", "skipped")
        )
        if applied[0] != applied[1] or skipped[0] != skipped[1]:
            rows.append(
                {
                    "stage": stage,
                    "rule": rule,
                    "applied": applied,
                    "skipped": skipped,
                    "only_before": _subjects(stage, rule, fired[0], fired[1]),
                    "only_after": _subjects(stage, rule, fired[1], fired[0]),
                }
            )
    return rows


_Fired = dict[tuple[str, str, str, str], None]


def _fired(content: Mapping[str, Any]) -> _Fired:
    keys = ("stage", "rule", "outcome", "subject")
    rows = [row for row in content["decisions"] if row["outcome"] != "note"]
    return dict.fromkeys((r[keys[0]], r[keys[1]], r[keys[2]], r[keys[3]]) for r in rows)


def _subjects(stage: str, rule: str, found: _Fired, other: _Fired) -> list[str]:
    """What the rule was applied to in one build alone."""
    return [key[3] for key in found if key[:3] == (stage, rule, "applied") and key not in other]


def _types(content: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Every layer with its type: from the map, and from the placement where a report has none."""
    found = content.get("graph_map")
    if found is not None:
        return {node["name"]: node for node in found["nodes"] if node["type"] != "moves"}
    return {
        row["layer"]: {**row, "type": "int8" if row["int8"] else "float"}
        for row in content["precision_layers"]
    }


def _ranges(before: Ranges | None, after: Ranges | None) -> list[dict[str, Any]]:
    """The farthest moved first."""
    if before is None or after is None:
        return []
    rows = []
    for name in sorted(set(before.tensors) & set(after.tensors)):
        old, new = before.tensors[name].range, after.tensors[name].range
        wider = max(old.high - old.low, new.high - new.low)
        moved = max(abs(old.low - new.low), abs(old.high - new.high)) / wider if wider else 0.0
        if moved > _MOVED:
            rows.append(
                {
                    "tensor": name,
                    "before": [old.low, old.high],
                    "after": [new.low, new.high],
                    "moved": moved,
                }
            )
    return sorted(rows, key=lambda row: (-row["moved"], row["tensor"]))
