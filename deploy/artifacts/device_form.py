"""The form of a report of success as finish.py writes it, and what of one differs from it."""

from __future__ import annotations

import math
from typing import Any

_NUMBER = (int, float)
# what a page, a ladder or a server reads; everything else in a report is kept and not looked at
_FORM: dict[str, Any] = {
    "built_with": str,
    "device": {"compute_capability": str, "library": str, "version": str, "name": (str, None)},
    "engine": {"file": str, "sha256": str, "seconds": (*_NUMBER, None)},
    "parity": {
        "samples": int,
        "outputs": [
            {
                "name": str,
                "sqnr_db": _NUMBER,
                "cosine": _NUMBER,
                "max_abs": _NUMBER,
                "simulated_sqnr_db": (*_NUMBER, None),
            }
        ],
        "gates": [{"name": str, "passed": bool}],
    },
}
_MAY_BE_NONE: dict[str, Any] = {
    "latency": {
        "median_ms": _NUMBER,
        "p90_ms": _NUMBER,
        "runs": int,
        "gpu_median_ms": (*_NUMBER, None),
        "how": (str, None),
    },
    "plugin_choice": {"chosen": str, "reason": str},
    "int8": {
        "layers_int8": int,
        "layers_float": int,
        "not_int8": [{"name": str, "reason": str}],
    },
    "on_dla": {},
}
_MAY_BE_ABSENT: dict[str, Any] = {
    "plugins": [{"folder": str, "library": str, "sha256": str}],
    "overrides": [str],
    "messages": [str],
    "layers": [
        {
            "name": str,
            "kind": str,
            "precision": str,
            "kernel": str,
            "fused_from": [str],
        }
    ],
}


def misfit(content: dict[str, Any]) -> str:
    """The first thing that isn't of the form, in words; "" where all is."""
    given = {key: form for key, form in _MAY_BE_NONE.items() if content.get(key) is not None}
    given |= {key: form for key, form in _MAY_BE_ABSENT.items() if key in content}
    parts = (_misfit(content.get(key), form, key) for key, form in (_FORM | given).items())
    return next((found for found in parts if found), "")


def _misfit(value: Any, form: Any, where: str) -> str:
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{where} isn't a list"
        found = (_misfit(row, form[0], f"a row of {where}") for row in value)
        return next((text for text in found if text), "")
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{where} isn't a table"
        found = (_misfit(value.get(key), part, f"{key} of {where}") for key, part in form.items())
        return next((text for text in found if text), "")
    kinds = form if isinstance(form, tuple) else (form,)
    if value is None:
        return "" if None in kinds else f"{where} is missing"
    # True is no number, though Python counts it as one
    fits = type(value) in kinds and not (isinstance(value, float) and not math.isfinite(value))
    return "" if fits else f"{where} is {repr(value)[:60]}"
