"""The order of candidates: measured, predicted, and the table that comes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_models import quantized, residual, target

from deploy.artifacts.model import Model
from deploy.errors import BuildError
from deploy.int8.choose import Choice, Measured
from deploy.int8.race import Entry, Race, entry_of, foretold, layer_counts, timed
from deploy.int8.variants import Candidate
from deploy.placement import Exclude


def candidate(name: str, precision: str) -> Candidate:
    return Candidate(name, name, target(), precision, Exclude())  # type: ignore[arg-type]


def pair() -> dict[str, tuple[Candidate, Model]]:
    float_model = residual()
    return {
        "all": (candidate("all", "int8"), quantized(float_model)),
        "fp32": (candidate("fp32", "fp32"), float_model),
    }


def entries() -> list[Entry]:
    return [entry_of(n, n, m, c.precision) for n, (c, m) in pair().items()]


def test_layers_are_counted_by_what_feeds_them() -> None:
    assert layer_counts(quantized(residual())) == (3, 0)
    assert layer_counts(residual()) == (0, 3)


def test_measured_times_come_with_their_rounds() -> None:
    choice = Choice(("fp32",), (Measured("fp32", 0.5, 40, True),), {"all": "not compiled: budget"})
    race = timed(entries(), choice)
    assert race.order == ("fp32",)
    rows = {row.name: row for row in race.entries}
    assert (rows["fp32"].median_ms, rows["fp32"].rounds, rows["fp32"].final) == (0.5, 40, True)
    assert rows["all"].median_ms is None
    assert rows["all"].note == "not compiled: budget"
    assert race.words() == "fp32, 0.500 ms measured, of 2 candidates"


def test_a_device_that_is_not_here_is_predicted_and_says_so() -> None:
    race = foretold(entries(), pair())
    rows = {row.name: row for row in race.entries}
    # int8 moves a quarter of the bytes on the same roofline
    assert rows["all"].predicted_ms < rows["fp32"].predicted_ms  # type: ignore[operator]
    assert race.order[0] == "all"
    assert all(row.median_ms is None for row in race.entries)
    assert "predicted" in race.words()


def test_a_prediction_takes_int8_away_from_nobody() -> None:
    """On a device whose INT8 is slow, INT8 stays in front; measured here it would not."""
    slow = target().roofline.model_copy(
        update={"peak_flops": {"fp32": 1e15, "int8": 1e3}, "bandwidth_bytes_per_s": 1e12}
    )
    listed = {
        name: (replace(c, target=c.target.model_copy(update={"roofline": slow})), m)
        for name, (c, m) in pair().items()
    }
    race = foretold(entries(), listed)
    assert race.times["fp32"] < race.times["all"] / 100
    assert race.order == ("all", "fp32")


def test_what_stays_float_is_predicted_in_the_type_the_device_computes_it_in() -> None:
    """float16 halves the traffic of what isn't INT8."""

    def predicted(rest: str) -> float:
        chosen, model = pair()["all"]
        settings = chosen.target.engine.model_copy(update={"inference_precision": {"int8": rest}})
        own = replace(chosen, target=chosen.target.model_copy(update={"engine": settings}))
        return foretold([entries()[0]], {"all": (own, model)}).times["all"]

    assert predicted("f16") < predicted("f32") == predicted("")


def test_saved_and_loaded(tmp_path: Path) -> None:
    race = foretold(entries(), pair())
    race.save(tmp_path / "race.json")
    assert Race.load(tmp_path / "race.json") == race
    (tmp_path / "race.json").write_text('{"order": []}')
    with pytest.raises(BuildError, match="damaged"):
        Race.load(tmp_path / "race.json")


def test_what_was_not_judged_says_why() -> None:
    noted = Entry("all", "", "int8", 3, 0, note="not compiled: the time budget was spent")
    rows = Race(("fp32",), (noted, entries()[1]), True).tried({})
    assert [row.outcome for row in rows] == [
        "not compiled: the time budget was spent",
        "not judged: another one came first",
    ]
