"""Inputs with a default: the engine keeps the default and can't be fed another value."""

from __future__ import annotations

from deploy.doctor.case import Case, Finding
from deploy.loading import default_inputs as loading


def default_inputs(case: Case) -> list[Finding]:
    """That they become constants."""
    names = loading.default_inputs(case.raw)
    if not names:
        return []
    return [Finding("default_inputs", "warning", loading.kept_default(names), tuple(names))]
