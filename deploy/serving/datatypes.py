"""V2's tensor types: their names, their form in NumPy and in OpenVINO, and JSON numbers as arrays.

BF16 has no NumPy type of its own: such tensors are uint16, the upper half of a float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.errors import nearest
from deploy.serving.refusals import invalid


@dataclass(frozen=True)
class Datatype:
    """One type. engine: OpenVINO's name for it; contents: its field in gRPC's typed contents."""

    name: str
    dtype: np.dtype[Any]
    engine: str
    contents: str


_ROWS = (
    ("BOOL", "?", "boolean", "bool_contents"),
    ("UINT8", "u1", "u8", "uint_contents"),
    ("UINT16", "u2", "u16", "uint_contents"),
    ("UINT32", "u4", "u32", "uint_contents"),
    ("UINT64", "u8", "u64", "uint64_contents"),
    ("INT8", "i1", "i8", "int_contents"),
    ("INT16", "i2", "i16", "int_contents"),
    ("INT32", "i4", "i32", "int_contents"),
    ("INT64", "i8", "i64", "int64_contents"),
    ("FP16", "f2", "f16", ""),
    ("FP32", "f4", "f32", "fp32_contents"),
    ("FP64", "f8", "f64", "fp64_contents"),
    ("BF16", "u2", "bf16", ""),
)
# NumPy's own limit is 64
MOST_DIMENSIONS = 32
# little-endian, as V2 has it on the wire
DATATYPES = {
    name: Datatype(name, np.dtype(code).newbyteorder("<"), engine, contents)
    for name, code, engine, contents in _ROWS
}
_BY_ENGINE = {kind.engine: kind for kind in DATATYPES.values()}


def of_engine(type_name: str) -> Datatype | None:
    """The V2 type of an OpenVINO element type; None where V2 has none (strings, 4-bit, …)."""
    return _BY_ENGINE.get(type_name)


def check_datatype(given: Any, wanted: Datatype, where: str) -> None:
    """Refuse a tensor that isn't of the engine's type; nothing is converted silently."""
    if given == wanted.name:
        return
    if given == "BYTES":
        raise invalid(f"{where}: BYTES; the engine takes {wanted.name}, it has no strings")
    known = given in DATATYPES if isinstance(given, str) else False
    hint = "" if known or not isinstance(given, str) else nearest(given, DATATYPES)
    unknown = "" if known else f", which is no type of V2{hint}"
    raise invalid(f"{where}: datatype {str(given)[:40]!r}{unknown}; the engine takes {wanted.name}")


def from_json(data: Any, kind: Datatype, shape: tuple[int, ...], where: str) -> np.ndarray:
    """JSON numbers, flat or nested, as an array of the type; refused where they aren't exact.

    Floats are rounded to the type as usual; integers must fit.
    """
    if not isinstance(data, list):
        raise invalid(f"{where}: data is no list; give the numbers in row-major order")
    _only_numbers(data, kind, where)
    try:
        x = np.asarray(data)
    except (ValueError, OverflowError):
        raise invalid(f"{where}: data is nested unevenly; give {_dims(shape)} numbers") from None
    x = _numbers(x, kind, where)
    count = int(np.prod(shape, dtype=object))
    if x.size != count or (x.ndim != 1 and x.shape != shape):
        raise invalid(
            f"{where}: data is {_dims(x.shape)}, the shape says {_dims(shape)} = {count} numbers"
        )
    return x.reshape(shape)


def to_json(x: np.ndarray, kind: Datatype, where: str) -> list[Any]:
    """A tensor as a flat list of JSON numbers; refused where it holds NaN or infinity."""
    if kind.name == "BF16":
        x = (x.astype(np.uint32) << 16).view(np.float32)
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise invalid(
            f"{where}: holds NaN or infinity, for which JSON has no number; ask for binary data"
        )
    listed: list[Any] = x.ravel().tolist()
    return listed


def _only_numbers(data: list[Any], kind: Datatype, where: str, depth: int = 1) -> None:
    """Refuse strings and the like before NumPy gives every element the longest one's room."""
    types = set(map(type, data))
    if types == {list} and depth < MOST_DIMENSIONS:
        for part in data:
            _only_numbers(part, kind, where, depth + 1)
    elif not types <= {int, float, bool}:
        names = ", ".join(sorted(t.__name__ for t in types - {int, float, bool}))
        raise invalid(f"{where}: data holds {names}; give {kind.name} numbers")


def _numbers(x: np.ndarray, kind: Datatype, where: str) -> np.ndarray:
    dtype = kind.dtype
    wrong = invalid(f"{where}: data holds more than {kind.name} numbers")
    if x.size == 0:
        return x.astype(dtype)
    if kind.name == "BOOL":
        if x.dtype.kind == "b" or (x.dtype.kind in "iu" and ((x == 0) | (x == 1)).all()):
            return x.astype(dtype)
        raise wrong
    if x.dtype.kind not in "iuf":
        raise wrong
    if kind.name == "BF16":
        return _bfloat16(x.astype(np.float32))
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = x.astype(dtype)
        if not np.isfinite(rounded).all():
            raise invalid(
                f"{where}: data holds {x[~np.isfinite(rounded)][0]}, too much for {kind.name}"
            )
        return rounded
    limits = np.iinfo(dtype)
    if x.dtype.kind == "f" or x.min() < limits.min or x.max() > limits.max:
        raise invalid(f"{where}: data holds {_outside(x, limits)}, which is no {kind.name}")
    return x.astype(dtype)


def _outside(x: np.ndarray, limits: np.iinfo[Any]) -> Any:
    bad = (x < limits.min) | (x > limits.max) | (x != np.floor(x))
    return x[bad][0] if bad.any() else x.flat[0]


def _bfloat16(x: np.ndarray) -> np.ndarray:
    """Rounded to the nearest, ties to even; NaN stays NaN."""
    bits = x.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(x), np.uint32(0x7FC0), rounded).astype("<u2")


def _dims(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) if shape else "a scalar"
