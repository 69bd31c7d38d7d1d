"""What went into two builds differently: model, data, recipe, target, machine, tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy.diff.bundles import Side

_DATA = {"calibration": ("data", "ranges"), "evaluation": ("eval_data",)}


def inputs(before: Side, after: Side) -> dict[str, Any]:
    """Rows of {what, name, before, after}, and whether results compare at all.

    comparable: the same model, judged on the same samples. A path is no difference where the
    samples behind it are the same.
    """
    rows = [
        *_model(before, after),
        *_data(before, after),
        *_recipe(before, after),
        *_target(before, after),
        *_measured(before, after),
        *_rows("tools", _tools(before), _tools(after)),
    ]
    same_model = before.manifest["model"]["sha256"] == after.manifest["model"]["sha256"]
    return {
        "changed": rows,
        "same_model": same_model,
        "same_samples": _hashes(before)["evaluation"] == _hashes(after)["evaluation"],
        "same_machine": before.content["measured"]["machine"]
        == after.content["measured"]["machine"],
        "comparable": same_model and _hashes(before)["evaluation"] == _hashes(after)["evaluation"],
    }


def _rows(
    what: str, before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> list[dict[str, Any]]:
    """One row per key whose values differ, tables walked into."""
    found = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _rows(what, old, new, f"{prefix}{key}.")
        else:
            found.append(_row(what, f"{prefix}{key}", old, new))
    return found


def _row(what: str, name: str, before: Any, after: Any) -> dict[str, Any]:
    return {"what": what, "name": name, "before": _text(before), "after": _text(after)}


def _text(value: Any) -> str:
    """A setting as the recipe would spell it; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    return str(value)


def _model(before: Side, after: Side) -> list[dict[str, Any]]:
    keys = ("name", "sha256", "opset", "inputs", "outputs")
    old, new = ({key: s.content["model"][key] for key in keys} for s in (before, after))
    return _rows("model", old, new)


def _hashes(side: Side) -> dict[str, Any]:
    data = side.manifest.get("data") or {}
    return {kind: data.get(f"{kind}_sha256") for kind in _DATA}


def _data(before: Side, after: Side) -> list[dict[str, Any]]:
    found = []
    for kind, old in _hashes(before).items():
        if old != _hashes(after)[kind]:
            described = [_described(side.content["data"][kind]) for side in (before, after)]
            found.append(_row("data", kind, *described))
    return found


def _described(data: Mapping[str, Any] | None) -> str:
    return "" if data is None else f"{data['uri']}, {data['samples']} samples ({data['about']})"


def _recipe(before: Side, after: Side) -> list[dict[str, Any]]:
    rows = _rows("recipe", before.content["recipe"], after.content["recipe"])
    same = [k for k, value in _hashes(before).items() if value == _hashes(after)[k]]
    # a target has rows of its own
    paths = {"target", *(key for kind in same for key in _DATA[kind])}
    if "evaluation" in same and "calibration" in same:
        paths |= {"data", "eval_data"}
    return [row for row in rows if row["name"] not in paths]


def _target(before: Side, after: Side) -> list[dict[str, Any]]:
    old, new = before.content["target"], after.content["target"]
    if old.get("name") != new.get("name"):
        # every figure of another device differs: its name says it
        return [_row("target", "name", old.get("name"), new.get("name"))]
    return _rows("target", old, new)


def _tools(side: Side) -> dict[str, Any]:
    """Versions; "code" is the hash of onnx-deploy's own files."""
    own = {"code": "onnx-deploy's code"}
    return {own.get(name, name): version for name, version in side.content["tools"].items()}


def _measured(before: Side, after: Side) -> list[dict[str, Any]]:
    old, new = before.content["measured"]["machine"], after.content["measured"]["machine"]
    return [] if old == new else [_row("machine", "machine", old, new)]
