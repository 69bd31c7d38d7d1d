"""pydantic's findings in this project's words: the observed value first, then what is allowed."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from deploy.errors import nearest


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first finding as one line, e.g. `samples = 'ten': should be a valid integer`."""
    findings = error.errors()
    first = findings[0]
    where = _where(first["loc"], model)
    if first["type"] == "extra_forbidden":
        allowed = _keys(model, first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), allowed)
        return f"unknown key {where!r}{hint}; allowed: {', '.join(sorted(allowed))}"
    if first["type"] == "missing":
        return f"{where} is missing"
    # a union reports once per member: all of them together say what is allowed
    same = [f for f in findings if _where(f["loc"], model) == where]
    reason = " or ".join(dict.fromkeys(_reason(f["msg"]) for f in same))
    return f"{where} = {first['input']!r}: {reason}" if where else reason


def _reason(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ")


def _where(location: tuple[Any, ...], model: type[BaseModel]) -> str:
    """The key's path, without what pydantic appends for members of a union and for dict keys."""
    path: list[str] = []
    here: Any = model
    for part in location:
        if not (_is_table(here) or isinstance(here, _Mapping) or here is dict):
            break
        path.append(str(part))
        here = _step(here, part)
    return ".".join(path)


def _step(here: Any, part: Any) -> Any:
    """What lies one key further: a table, `dict`, or something plain."""
    if isinstance(here, _Mapping):
        return here.table
    fields = here.model_fields if _is_table(here) else {}
    return _inner(fields[part].annotation) if part in fields else None


def _inner(annotation: Any) -> Any:
    """The table inside an annotation; `dict` for a mapping to plain values."""
    if get_origin(annotation) is not dict:
        return annotation
    value = get_args(annotation)[1]
    return _Mapping(value) if _is_table(value) else dict


class _Mapping:
    """A mapping from any key to a table."""

    def __init__(self, table: type[BaseModel]) -> None:
        self.table = table


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """The keys allowed in the table at `path`."""
    here: Any = model
    for part in path:
        here = _step(here, part)
        if not (_is_table(here) or isinstance(here, _Mapping)):
            return []
    return list(here.model_fields)
