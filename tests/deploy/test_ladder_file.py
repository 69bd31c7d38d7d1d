"""The ladder on disk, its verdict, and what it says in a terminal and in the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.artifacts.ladder import Culprit, Ladder, OutputLoss, Rung, TensorError
from deploy.cli.ladder import lines
from deploy.errors import BundleError
from deploy.report.ladder import ladder_figure, ladder_section

EVIL = "</script><img src=x onerror=alert(1)>"


def rung(name: str, stage: str, worst: float, own: float, allowed: float) -> Rung:
    figures = TensorError("y", "output", worst, 0.99, 0.5, 0.1, (1, 0, 0, 3))
    tensors = (TensorError("t", "Conv", own, 0.9, 1.0, 0.2, (0, 5, 1)),)
    return Rung(name, stage, "before", (OutputLoss(figures),), own, allowed, "why", (), tensors)


def sound() -> Ladder:
    return Ladder(
        8,
        "test samples",
        (
            rung("source", "the untouched model", 200, 200, 200),
            rung("fused", "fuse", 120, 120, 90),
            rung("quantized", "quantize", 30, 30, 25),
            rung("engine", "build", 29.8, 40, 28),
        ),
    )


def broken() -> Ladder:
    culprit = Culprit("conv/3", "Conv", "t", 5.0, 60.0, ("conv/3", "relu"), "t reaches 5.0 dB")
    wrong = replace(rung("fused", "fuse", 4, 4, 90), culprits=(culprit,))
    return replace(sound(), rungs=(sound().rungs[0], wrong, *sound().rungs[2:]))


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    for found in (sound(), broken()):
        found.save(tmp_path / "ladder.json")
        assert Ladder.load(tmp_path / "ladder.json") == found


@pytest.mark.parametrize("content", ["{}", "[]", '{"schema_version": 9}', "x"])
def test_a_damaged_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "ladder.json"
    path.write_text(content)
    with pytest.raises(BundleError, match="damaged"):
        Ladder.load(path)
    with pytest.raises(BundleError, match="build the bundle again"):
        Ladder.load(tmp_path / "none.json")


def test_a_sound_one_says_where_most_is_lost() -> None:
    assert sound().passed
    assert sound().verdict() == "every stage as it should be; most is lost by quantize (30.0 dB)"
    assert sound().drop_db(sound().rungs[2]) == 90


def test_a_broken_one_names_stage_and_node() -> None:
    assert [r.stage for r in broken().broken] == ["fuse"]
    assert broken().verdict().startswith("fuse went wrong: 4.0 dB against before")
    assert broken().verdict().endswith("first at conv/3")


def test_a_layer_that_is_off_where_outputs_are_fine() -> None:
    rungs = list(broken().rungs)
    rungs[1] = replace(rungs[1], own_db=95.0)
    told = replace(broken(), rungs=tuple(rungs)).verdict()
    assert told.startswith("fuse went wrong: first at conv/3, which reaches 5.0 dB out of right")
    assert "a sound one 60.0 dB; the outputs don't show it" in told


def test_an_output_below_its_own_limit_is_no_broken_stage() -> None:
    rungs = list(sound().rungs)
    strict = replace(rungs[2].outputs[0], limit_db=35.0, limit_from="recipe")
    rungs[2] = replace(rungs[2], outputs=(strict,))
    found = replace(sound(), rungs=tuple(rungs))
    assert not found.passed
    assert not found.broken
    assert "output 'y' reaches 30.0 dB, needs 35 (recipe)" in found.verdict()
    assert any(line.startswith("MISSED quantized") for line in lines(found))


def test_the_terminal_shows_each_rung_and_the_node() -> None:
    shown = "\n".join(lines(broken()))
    assert "WRONG  fused" in shown
    assert "at conv/3: t reaches 5.0 dB" in shown
    assert "ok     engine" in shown


def test_the_report_says_the_same() -> None:
    content = json.loads(json.dumps(broken().to_json()))
    section = ladder_section(content)
    assert "fuse: conv/3 (Conv): t reaches 5.0 dB" in section["ladder_culprits"]
    assert "Fuse went wrong" in section["ladder_words"]
    assert "sound" in section["ladder_rungs"]
    assert "▂" in section["ladder_tensors"] or "█" in section["ladder_tensors"]
    figure = ladder_figure(content)
    assert figure["data"][0]["text"][0] == "conv/3"
    assert figure["data"][0]["marker"]["color"][0] == "--bad"
    json.dumps(figure, allow_nan=False)


def test_without_a_ladder_there_is_no_section() -> None:
    assert set(ladder_section(None).values()) == {""}


def test_names_cannot_break_out_of_the_page() -> None:
    culprit = replace(broken().rungs[1].culprits[0], node=EVIL, why=EVIL)
    rungs = (sound().rungs[0], replace(broken().rungs[1], name=EVIL, culprits=(culprit,)))
    content = replace(sound(), rungs=rungs, about=EVIL).to_json()
    assert "<img" not in "".join(ladder_section(content).values())
    assert "<img" not in json.dumps(ladder_figure(content)["data"][0]["text"])
    assert "<img" not in json.dumps(ladder_figure(content)["data"][0]["hovertext"])
