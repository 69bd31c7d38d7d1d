"""What the engine takes and gives, and whether a request's tensors are that."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import nearest
from deploy.serving.datatypes import Datatype, check_datatype
from deploy.serving.refusals import Kind, RefusalError, invalid


@dataclass(frozen=True)
class Port:
    """One input or output; None in its shape is a dimension that a request chooses."""

    name: str
    kind: Datatype
    shape: tuple[int | None, ...]

    @property
    def bf16(self) -> bool:
        """Whether its arrays are uint16 in NumPy."""
        return self.kind.name == "BF16"

    def described(self) -> dict[str, Any]:
        """The row of V2's model metadata."""
        dims = [-1 if d is None else d for d in self.shape]
        return {"name": self.name, "datatype": self.kind.name, "shape": dims}


def named(ports: Sequence[Port], name: Any, what: str) -> Port:
    """The port of that name; refused with the ones there are."""
    for port in ports:
        if port.name == name:
            return port
    names = [port.name for port in ports]
    hint = nearest(name, names) if isinstance(name, str) else ""
    raise invalid(f"no {what} {str(name)[:100]!r}{hint}; the model has: {', '.join(names)}")


def checked_shape(port: Port, given: Any, most_bytes: int) -> tuple[int, ...]:
    """A request's shape as a tuple; refused unless the port takes it.

    most_bytes: a tensor of more is refused before anything of its size is made.
    """
    where = f"input {port.name!r}"
    # not isinstance: a bool is an int
    if not isinstance(given, list) or not all(type(d) is int for d in given):
        raise invalid(f"{where}: shape is no list of whole numbers")
    shape = tuple(given)
    fits = len(shape) == len(port.shape) and all(
        d == own if own is not None else d >= 1 for d, own in zip(shape, port.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if d is None else str(d) for d in port.shape)
        got = ", ".join(map(str, shape[:16])) + (", …" if len(shape) > 16 else "")
        raise invalid(f"{where}: shape [{got}]; the engine takes [{wanted}]")
    size = port.kind.dtype.itemsize * math.prod(shape)
    if size > most_bytes:
        raise RefusalError(Kind.TOO_LARGE, f"{where}: {size} bytes; at most {most_bytes} are taken")
    return shape


def checked_names(ports: Sequence[Port], given: Sequence[str]) -> None:
    """Refuse inputs that are missing or given twice; unknown ones were refused by `named`."""
    for name in given:
        if given.count(name) > 1:
            raise invalid(f"input {name!r} is given {given.count(name)} times")
    for port in ports:
        if port.name not in given:
            dims = ", ".join("any" if d is None else str(d) for d in port.shape)
            raise invalid(f"input {port.name!r} is missing: {port.kind.name} [{dims}]")


def from_raw(raw: Any, port: Port, shape: tuple[int, ...]) -> np.ndarray:
    """Little-endian bytes as an array without a copy; refused when there are too few or many."""
    wanted = port.kind.dtype.itemsize * math.prod(shape)
    if len(raw) != wanted:
        dims = ", ".join(map(str, shape))
        raise invalid(
            f"input {port.name!r}: {len(raw)} bytes of data, {port.kind.name} [{dims}] has {wanted}"
        )
    x = np.frombuffer(raw, port.kind.dtype).reshape(shape)
    if port.kind.name == "BOOL" and (x.view(np.uint8) > 1).any():
        raise invalid(f"input {port.name!r}: a BOOL byte that is neither 0 nor 1")
    return x


def check_same_rows(feeds: Mapping[str, np.ndarray]) -> int:
    """The number of rows of a request, its common first dimension."""
    rows: set[int] = {x.shape[0] for x in feeds.values()}
    if len(rows) != 1:
        listed = ", ".join(f"{name!r} {x.shape[0]}" for name, x in feeds.items())
        raise invalid(f"inputs with different numbers of rows: {listed}")
    return rows.pop()


def checked(ports: Sequence[Port], row: Any, most_bytes: int) -> tuple[Port, tuple[int, ...]]:
    """The port and shape of one described tensor: {"name": …, "datatype": …, "shape": […]}."""
    if not isinstance(row, dict):
        raise invalid("an input is no JSON object; give name, datatype, shape and data")
    port = named(ports, row.get("name"), "input")
    check_datatype(row.get("datatype"), port.kind, f"input {port.name!r}")
    return port, checked_shape(port, row.get("shape"), most_bytes)
