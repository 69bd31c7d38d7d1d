"""Whether a call of the double gets what the real one would take, as pybind11 decides it."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple


class Parameter(NamedTuple):
    """optional: whether it may be left out."""

    name: str
    kind: str
    optional: bool


@functools.lru_cache(maxsize=None)  # noqa: UP033, Python 3.8
def overloads(fact: str) -> list[list[Parameter]]:
    """The parameters of every call in a fact, "(flags: int = 0) | ()"."""
    return [list(_parameters(call[1:-1])) for call in re.split(r" \| (?=\()", fact)]


def _parameters(text: str) -> Iterator[Parameter]:
    for part in re.split(r", (?=\w+(?::|$|,))", text):
        name, _, rest = part.partition(":")
        kind, equals, _ = rest.partition("=")
        if name:
            yield Parameter(name.strip(), kind.strip(), bool(equals))


def bind(
    module: Any, parameters: list[Parameter], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any] | None:
    """Arguments by name, or None where pybind11 would try the next overload."""
    names = [name for name, _, _ in parameters]
    given = dict(zip(names, args))  # noqa: B905, Python 3.8
    if len(args) > len(names) or set(kwargs) & set(given) or not set(kwargs) <= set(names):
        return None
    given.update(kwargs)
    for name, kind, optional in parameters:
        if name not in given and not optional:
            return None
        if name in given and not fits(module, kind, given[name]):
            return None
    return given


def fits(module: Any, kind: str, value: Any) -> bool:
    """Whether pybind11 would convert a value to a parameter's type."""
    if kind == "int":
        return not isinstance(value, float) and hasattr(value, "__int__")
    if kind == "float":
        return hasattr(value, "__float__") or hasattr(value, "__index__")
    if kind in ("str", "FallbackString"):
        return isinstance(value, (str, bytes))
    if kind == "buffer":
        return value is None or _is_buffer(value)
    if kind in ("Dims", "tuple", "list"):
        plain = isinstance(value, (tuple, list)) and all(fits(module, "int", v) for v in value)
        return plain or type(value).__name__.startswith("Dims")
    if kind.startswith("List["):
        return isinstance(value, (tuple, list)) and all(fits(module, kind[5:-1], v) for v in value)
    wanted = module
    for part in kind.split("."):
        wanted = vars(wanted).get(part) if wanted is not None else None
    if not isinstance(wanted, type):
        return True
    return isinstance(value, wanted) or (value is None and not hasattr(wanted, "__members__"))


def _is_buffer(value: Any) -> bool:
    try:
        memoryview(value)
    except TypeError:
        return False
    return True
