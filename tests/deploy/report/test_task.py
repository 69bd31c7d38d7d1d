"""A task's figures in the report's words; content of before other tasks reads as it did."""

from __future__ import annotations

from typing import Any

from report_content import int8_content, text_of

from deploy.report.measured import accuracy
from deploy.report.summary import summary
from deploy.report.task import agreed

RATE: dict[str, Any] = {
    "samples": 124,
    "reference_pct": 3.1,
    "engine_pct": 3.52,
    "drop": 0.42,
    "drop_error": 0.27,
    "kind": "text",
    "metric": "character error rate",
    "rises": True,
    "unit": "%",
    "figures": [{"name": "exact lines", "reference": 73.4, "engine": 71.0, "unit": "%"}],
}
SAID: dict[str, Any] = {
    "kind": "text",
    "metric": "character agreement",
    "agreement_pct": 99.1,
    "samples": 124,
    "figures": [{"name": "lines read alike", "reference": None, "engine": 90.3, "unit": "%"}],
}


def content(task: dict[str, Any] | None, said: dict[str, Any] | None) -> dict[str, Any]:
    """The content of an INT8 build with that task."""
    made = int8_content()
    made["parity"] |= {"task": task, "predictions": said}
    made["summary"]["accuracy"] = task
    return made


def test_a_rate_that_rises() -> None:
    made = content(RATE, SAID)
    words = text_of(accuracy(made)["task"])
    assert (
        "Character error rate goes from 3.10 % in float32 to 3.52 % in the engine: a rise of 0.42 "
        "points with a standard error of 0.27, on 124 labelled samples; exact lines 73.40 % to "
        "71.00 %."
    ) in words
    assert (
        "Character agreement with float32 is 99.10 % on 124 samples; lines read alike 90.30 %."
    ) in words
    tiles = text_of(summary(made)["tiles"])
    assert "Character error rate" in tiles and "rise 0.42 ± 0.27" in tiles
    assert "character agreement 99.10 %" in tiles


def test_a_correlation_has_no_percent_sign() -> None:
    row = {
        **RATE,
        "kind": "embed",
        "metric": "100 x Spearman correlation",
        "unit": "",
        "figures": [],
    }
    words = text_of(accuracy(content(row, None))["task"])
    assert "100 x Spearman correlation goes from 3.10 in float32 to 3.52 in" in words


def test_without_labels_only_agreement_is_told() -> None:
    made = content(None, SAID)
    made["parity"]["labelled"] = False
    words = text_of(accuracy(made)["task"])
    assert words.startswith("Character agreement with float32 is 99.10 %")
    assert words.endswith("The samples carry no labels, so accuracy was not measured.")


def test_an_error_larger_than_the_limit_is_said() -> None:
    made = content(RATE, SAID)
    gate = {"limit": 0.1, "observed": 0.42, "passed": False, "origin": "recipe", "note": ""}
    made["parity"]["gates"] = [{"name": "character error rate rise (points)", **gate}]
    assert "larger than the limit on the drop" in text_of(accuracy(made)["task"])


def test_what_was_predicted_stands_beside_the_samples() -> None:
    made = content(RATE, SAID)
    said = {"reference_said": "T0TAL", "engine_said": "TOTAL", "truth_said": "TOTAL 1"}
    empty = {"reference_class": None, "engine_class": None, "label": None}
    made["parity"]["disagreements"] = [{"name": "a.png", "sqnr_db": 9.0, **empty, **said}]
    words = text_of(accuracy(made)["disagreements"])
    assert "Samples with another prediction (1 listed)" in words
    assert all(text in words for text in said.values())


def test_classes_have_a_table_of_their_own() -> None:
    assert agreed({**SAID, "kind": "classify"}) == agreed(None) == ""


def test_content_of_before_reads_as_it_did() -> None:
    words = text_of(accuracy(int8_content())["task"])
    assert words.startswith("Top-1 accuracy goes from 82.50 % in float32 to 81.50 %") or (
        "Top-1 accuracy goes from" in words
    )
