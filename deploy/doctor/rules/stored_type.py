"""Weights stored in float16 or bfloat16: integers are made from them in float32."""

from __future__ import annotations

from deploy.doctor.case import Case, Finding


def stored_type(case: Case) -> list[Finding]:
    """What becomes of them."""
    return [
        Finding("stored_type", "note", f"{decision.subject}: {decision.reason}")
        for decision in case.widened
    ]
