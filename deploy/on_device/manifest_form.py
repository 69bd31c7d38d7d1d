"""The form of a device folder's manifest.json, and what of one differs from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple


class Maybe(NamedTuple):
    """A field that may be null or absent."""

    form: Any


_REAL = (int, float)
_IN_OR_OUTPUTS = [{"name": str, "dtype": str, "shape": [Maybe(int)]}]
_FLOAT_TYPES = ("fp16", "bf16", "fp32")
# a type or several, words to choose from, [form of every row], {field: form}, or {"": form of all}
MANIFEST_FORM: dict[str, Any] = {
    "model": {"name": str},
    "target": {"name": str, "title": str},
    "precision": frozenset(("int8", "fp8", *_FLOAT_TYPES)),
    "quantization": frozenset(("implicit", "explicit", "none")),
    "rest": frozenset(_FLOAT_TYPES),
    "nvidia": {
        "library": frozenset(("tensorrt", "tensorrt_rtx")),
        "versions": [str],
        "compute_capability": str,
        "typing": frozenset(("weak", "strong")),
        "dla_cores": int,
        "use_dla": bool,
        "workspace_bytes": int,
    },
    "quantized_layers": Maybe([str]),
    "inputs": _IN_OR_OUTPUTS,
    "outputs": _IN_OR_OUTPUTS,
    "profiles": {"": {"min": [int], "opt": [int], "max": [int]}},
    "plugins": [{"folder": str, "op": str}],
    "parity": {
        "min_sqnr_db": Maybe(_REAL),
        "min_cosine": Maybe(_REAL),
        "scores": Maybe(str),
        "min_agreement_pct": Maybe(_REAL),
        "simulated_sqnr_db": Maybe({"": _REAL}),
        "rounding_sqnr_db": Maybe({"": _REAL}),
    },
    "files": dict,
    "manifest_sha256": str,
}


def wrong_fields(value: Any, form: Any = MANIFEST_FORM, where: str = "") -> Iterator[str]:
    """Every field that isn't of the form, in words."""
    if isinstance(form, Maybe):
        if value is not None:
            yield from wrong_fields(value, form.form, where)
    elif isinstance(form, dict):
        if not isinstance(value, dict):
            yield f"{where or 'the manifest'} is no table"
            return
        fields = dict.fromkeys(value, form[""]) if "" in form else form
        for name, part in fields.items():
            inner = f"{where}.{name}" if where else name
            if name in value:
                yield from wrong_fields(value[name], part, inner)
            elif not isinstance(part, Maybe):
                yield f"{inner} is missing"
    elif isinstance(form, list):
        if not isinstance(value, list):
            yield f"{where} is {_shown(value)}, not of type list"
            return
        for number, row in enumerate(value):
            yield from wrong_fields(row, form[0], f"{where}[{number}]")
    elif isinstance(form, frozenset):
        if not isinstance(value, str) or value not in form:
            yield f"{where} is {_shown(value)}, not one of {', '.join(sorted(form))}"
    elif not isinstance(value, form):
        names = [kind.__name__ for kind in (form if isinstance(form, tuple) else (form,))]
        yield f"{where} is {_shown(value)}, not of type {' or '.join(names)}"


def _shown(value: Any) -> str:
    return repr(value)[:60]
