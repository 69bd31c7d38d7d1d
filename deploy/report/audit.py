"""The section about the calibration samples: what was found, and how the ranges grew with them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from deploy.artifacts.audit import Audit, Curve, Finding
from deploy.report import units
from deploy.report.figures import Figure
from deploy.report.table import bullets, folded, paragraph


def audit_section(found: Audit | None) -> dict[str, str]:
    """Values for page.html; all empty when no samples were audited: there is no section then."""
    if found is None:
        return dict.fromkeys(("audit", "audit_words", "audit_findings", "audit_curve"), "")
    return {
        "audit": "yes",
        "audit_words": paragraph(_words(found)),
        "audit_findings": "\n".join([*map(_finding, found.findings), _not_told(found)]),
        "audit_curve": "" if found.curve is None else paragraph(_grown(found.curve)),
    }


def growth(curve: Curve) -> Figure:
    """What 19 of 20 ranges lacked at most after so many samples; a mark where they were stable."""
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": list(curve.after),
        "y": list(curve.missing_pct),
        "line": {"color": "--accent", "width": 1.5},
        "marker": {"size": 6, "color": "--accent"},
        "hovertemplate": "%{x} samples: %{y:.1f} % lacking<extra></extra>",
    }
    mark = {"type": "line", "yref": "paper", "y0": 0, "y1": 1}
    at = {"x0": curve.stable_after, "x1": curve.stable_after}
    layout = {
        "height": 280,
        "margin": {"l": 52, "r": 16, "t": 10, "b": 46},
        "xaxis": {
            "title": {"text": "calibration samples, in their order"},
            "type": "log",
            "tickvals": list(curve.after),
            "ticktext": _ticks(curve.after),
        },
        "yaxis": {
            "title": {"text": "% of the final range lacking"},
            "rangemode": "tozero",
            "fixedrange": True,
        },
        "shapes": [{**mark, **at, "line": {"color": "--quiet", "dash": "dot", "width": 2}}],
        "showlegend": False,
    }
    return {"data": [trace], "layout": layout}


def _ticks(after: Sequence[int]) -> list[str]:
    """Every count; the last power of two only where it doesn't run into the last count."""
    shown = [f"{count:,}" for count in after]
    if len(after) > 1 and after[-1] < 1.5 * after[-2]:
        shown[-2] = ""
    return shown


def _words(found: Audit) -> str:
    warned, noted = len(found.warnings), len(found.findings) - len(found.warnings)
    text = f"{units.amount(found.samples, 'calibration sample')} looked at: "
    if not found.findings:
        return f"{text}nothing stood out."
    told = [units.amount(n, noun) for n, noun in ((warned, "warning"), (noted, "note")) if n]
    return f"{text}{' and '.join(told)}."


def _not_told(found: Audit) -> str:
    if not found.not_told:
        return ""
    return f"{paragraph('What these samples and this model cannot show:')}{bullets(found.not_told)}"


def _finding(one: Finding) -> str:
    looks = ' class="caution"' if one.severity == "warn" else ""
    title = escape(f"{one.kind[:1].upper()}{one.kind[1:]}")
    words = escape(f"{_sentence(one.observed)} {_sentence(one.why)} {_sentence(one.advice)}")
    named = folded("Which samples", bullets(one.samples)) if one.samples else ""
    return f"<p{looks}><strong>{title}.</strong> {words}</p>{named}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _grown(curve: Curve) -> str:
    return (
        f"After {units.amount(curve.stable_after, 'sample')} of {curve.after[-1]:,}, 19 of 20 of "
        f"the {curve.tensors:,} observed ranges were within 5 % of their final width. These are "
        "the widest ranges; a calibrator that cuts off outliers settles earlier."
    )
