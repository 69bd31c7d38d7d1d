"""Greedy decoding and character error rates by hand, and edits against a library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from task_cases import spec, terms

from calibrators.samples import Sample
from calibrators.truths import Text as Transcript
from deploy.errors import CalibrationError, RecipeError
from deploy.tasks.text import Text, edits

FEEDS = {"x": np.zeros((1, 3), "f4")}


@pytest.fixture
def letters(tmp_path: Path) -> str:
    (tmp_path / "letters.txt").write_text("a\nB\nc\n")
    return str(tmp_path / "letters.txt")


def steps(*best: int, count: int = 4) -> dict[str, np.ndarray]:
    """A score per character at every step, the largest at these."""
    return {"y": np.eye(count, dtype="f4")[list(best)][None]}


def of(letters: str, scores: int = 4, **options: object) -> Text:
    return Text.of([spec("y", None, scores)], {"dictionary": letters, **options})


@pytest.mark.parametrize(
    "best, text",
    [
        ((1, 1, 0, 1), "aa"),  # a blank between two alike keeps both
        ((1, 1, 1), "a"),
        ((0, 0), ""),
        ((0, 3, 0, 2, 2, 1), "cBa"),
    ],
)
def test_repeats_and_blanks_are_left_out(letters: str, best: tuple[int, ...], text: str) -> None:
    assert of(letters).read(steps(*best)["y"]) == text


def test_the_blank_may_come_last_and_a_space_behind_the_dictionary(letters: str) -> None:
    assert of(letters, blank=-1).read(steps(0, 3, 0, 1)["y"]) == "aaB"
    task = of(letters, scores=5, space=True)
    assert task.read(steps(1, 4, 2, count=5)["y"]) == "a B"


def test_steps_may_come_first(letters: str) -> None:
    assert of(letters).read(np.moveaxis(steps(1, 0, 2)["y"], 1, 0)) == "aB"


def test_error_rates_by_hand(letters: str) -> None:
    truths = ["aB", "c", None]
    samples = [
        Sample(f"s{i}", FEEDS, truth=Transcript(t) if t else None) for i, t in enumerate(truths)
    ]
    exact = [steps(1, 2), steps(2), steps(1)]  # "aB", "B" (wrong), "a"
    ours = [steps(1, 3), steps(0), steps(1)]  # "ac", "", "a"
    found = of(letters).result(terms(of(letters), samples, exact, ours))
    assert found.scored is not None and found.scored.samples == 2
    assert found.scored.reference_pct == pytest.approx(100 * 1 / 3)
    assert found.scored.engine_pct == pytest.approx(100 * 2 / 3)
    assert found.scored.drop == pytest.approx(100 / 3)
    assert found.scored.gate == "character error rate rise (points)"
    (lines,) = found.scored.figures
    assert (lines.reference, lines.engine) == (50.0, 0.0)
    # "aB" to "ac" 1 of 2, "B" to "" 1 of 1, "a" to "a" 0 of 1
    assert found.predictions.agreement_pct == pytest.approx(50.0)
    assert found.predictions.figures[0].engine == pytest.approx(100 / 3)


def test_what_does_not_count(letters: str) -> None:
    samples = [Sample("s", FEEDS, truth=Transcript("A b"))]
    strict, mild = of(letters), of(letters, ignore_case=True, ignore_space=True)
    rates = [
        task.result(terms(task, samples, [steps(1, 2)], [steps(1, 2)])).scored
        for task in (strict, mild)
    ]
    assert [rate and rate.reference_pct for rate in rates] == [100.0, 0.0]


def test_what_was_read_is_shown(letters: str) -> None:
    (term,) = terms(of(letters), [Sample("s", FEEDS)], [steps(1, 2)], [steps(3)])
    assert (term.found.reference_said, term.found.engine_said, term.agrees) == ("aB", "c", False)


def test_a_dictionary_of_another_model(letters: str) -> None:
    with pytest.raises(RecipeError, match=r"3 characters and the blank make 4, but .* has 9 sco"):
        of(letters, scores=9)
    dynamic = Text.of([spec("y", None, None)], {"dictionary": letters})
    with pytest.raises(CalibrationError, match="6 scores a step, the dictionary and the blank"):
        dynamic.read(steps(1, count=6)["y"])


def test_dictionaries_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--task text needs the characters"):
        Text.of([spec("y", None, 4)], {})
    with pytest.raises(RecipeError, match=r"none.txt: No such file.*give an existing dictionary"):
        of(str(tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes("é\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin.txt: not UTF-8"):
        of(str(tmp_path / "latin.txt"))


def test_the_dictionarys_content_is_part_of_the_task(letters: str) -> None:
    before = repr(of(letters))
    Path(letters).write_text("a\nB\nd\n")
    assert repr(of(letters)) != before


@pytest.mark.parametrize(
    "a, b, count", [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
)
def test_edits(a: str, b: str, count: int) -> None:
    assert edits(a, b) == edits(b, a) == count


def test_edits_as_rapidfuzz_counts_them() -> None:
    levenshtein = pytest.importorskip("rapidfuzz.distance").Levenshtein
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = ("".join(rng.choice(list("abc "), rng.integers(0, 12))) for _ in range(2))
        assert edits(a, b) == levenshtein.distance(a, b)


def test_the_rate_as_jiwer_computes_it(letters: str) -> None:
    jiwer = pytest.importorskip("jiwer")
    rng = np.random.default_rng(1)
    truths = ["".join(rng.choice(list("aBc"), rng.integers(1, 6))) for _ in range(20)]
    outputs = [steps(*rng.integers(0, 4, 7)) for _ in truths]
    samples = [Sample(f"s{i}", FEEDS, truth=Transcript(t)) for i, t in enumerate(truths)]
    task = of(letters)
    found = task.result(terms(task, samples, outputs, outputs)).scored
    read = [task.read(row["y"]) for row in outputs]
    assert found is not None
    assert found.reference_pct == pytest.approx(100 * jiwer.cer(truths, read))
