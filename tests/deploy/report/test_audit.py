"""The section about the calibration samples: complete, escaped, and absent without an audit."""

from __future__ import annotations

import json

from deploy.artifacts.audit import Audit, Curve, Finding
from deploy.report.audit import audit_section, growth

EVIL = "<img src=x>"
WARN = Finding("repeated samples", "warn", f"{EVIL} seen", "it matters", "leave them out", (EVIL,))
NOTE = Finding("saturated inputs", "note", "2 dark", "they are odd", "look at them")
CURVE = Curve((1, 2, 4, 6), (60.0, 40.5, 8.0, 0.0), 5, 35)
WHOLE = Audit(6, (WARN, NOTE), ("Colours can't be told.",), CURVE)


def test_every_finding_is_there_in_words() -> None:
    section = audit_section(WHOLE)
    words = section["audit_findings"]
    assert section["audit_words"] == "<p>6 calibration samples looked at: 1 warning and 1 note.</p>"
    assert '<p class="caution"><strong>Repeated samples.</strong>' in words
    assert "It matters. Leave them out." in words
    assert "<p><strong>Saturated inputs.</strong> 2 dark. They are odd. Look at them.</p>" in words
    assert "Colours can&#x27;t be told." in words
    assert "After 5 samples of 6, 19 of 20 of the 35 observed ranges" in section["audit_curve"]


def test_what_others_named_is_escaped() -> None:
    assert EVIL not in audit_section(WHOLE)["audit_findings"]
    assert "&lt;img src=x&gt;" in audit_section(WHOLE)["audit_findings"]


def test_no_audit_no_section() -> None:
    assert set(audit_section(None).values()) == {""}
    assert audit_section(None).keys() == audit_section(WHOLE).keys()


def test_nothing_found_is_said() -> None:
    section = audit_section(Audit(1, (), (), None))
    assert section["audit_words"] == ("<p>1 calibration sample looked at: nothing stood out.</p>")
    assert section["audit_curve"] == ""


def test_cautions_are_warnings_on_one_line() -> None:
    assert [one.line() for one in WHOLE.warnings] == [f"{EVIL} seen: leave them out"]


def test_the_curve_is_plain_json_with_a_mark() -> None:
    figure = json.loads(json.dumps(growth(CURVE), allow_nan=False))
    assert figure["data"][0]["x"] == [1, 2, 4, 6]
    assert figure["data"][0]["y"] == [60.0, 40.5, 8.0, 0.0]
    assert figure["layout"]["shapes"][0]["x0"] == 5


def test_ticks_that_would_overlap_are_left_out() -> None:
    near = growth(Curve((1, 2, 256, 300), (9.0, 8.0, 1.0, 0.0), 256, 2))
    assert near["layout"]["xaxis"]["ticktext"] == ["1", "2", "", "300"]
    assert growth(CURVE)["layout"]["xaxis"]["ticktext"] == ["1", "2", "4", "6"]
