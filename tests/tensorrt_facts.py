"""What TensorRT's Python API is in each version: names, values of enums, parameters.

`has("8.5.2", "BuilderFlag.FP16")` is True, `what("10.3.0", "Builder.create_network")` is
"(flags: int = 0)". The table, tensorrt_api.json, was read from the real bindings and says how.
Runs under Python 3.8, as what it is tested with does.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("tensorrt_api.json")


def has(version: str, name: str) -> bool:
    """Whether a version has a name, such as "Logger.log" or "DataType.FP8", inherited or own."""
    return what(version, name) is not None


def what(version: str, name: str) -> str | int | None:
    """What a name is in a version; None where it isn't there. A base class's members count."""
    facts = names(version)
    if name in facts:
        return facts[name]
    owner, _, member = name.rpartition(".")
    bases = (b for b in bases_of(version, owner) if f"{b}.{member}" in facts)
    base = next(bases, None)
    return None if base is None else facts[f"{base}.{member}"]


def bases_of(version: str, name: str) -> list[str]:
    """The classes a class inherits from, nearest first."""
    found = str(names(version).get(name, ""))
    return [b for b in found[6:-1].split(", ") if b] if found.startswith("class(") else []


def versions() -> list[str]:
    """Every version in the table, oldest first; TensorRT-RTX, as "rtx-1.7.1", last."""
    return list(_table()["versions"])


def anywhere(name: str) -> bool:
    """Whether any version has a name."""
    return name in _table()["names"]


def known(version: str) -> str:
    """The table's name of a version: 10.3, 10.3.2 and 10.3.0.26 are 10.3.0; LookupError if none."""
    if version in versions():
        return version
    wanted = version.split(".")[:2]
    found = [v for v in versions() if v.split(".")[: len(wanted)] == wanted]
    if not found:
        raise LookupError(f"no facts about TensorRT {version}; there are: {', '.join(versions())}")
    return found[0]


@lru_cache(maxsize=None)  # noqa: UP033
def names(version: str) -> dict[str, str | int]:
    """All names of a version and what they are."""
    order = versions()
    at = order.index(known(version))
    found = {}
    for name, intervals in _table()["names"].items():
        for interval, fact in intervals.items():
            first, _, last = (
                "..".join([order[0], order[-1]]) if interval == "*" else interval
            ).partition("..")
            if order.index(first) <= at <= order.index(last):
                found[name] = fact
    return found


@lru_cache(maxsize=None)  # noqa: UP033
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found
