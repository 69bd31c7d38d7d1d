"""The page about targets is what their files say, and never claims more than was shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import registry
from deploy.nvidia.settings import RUNGS
from deploy.target import Target
from deploy.target_page import proven, remains, target_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "targets.md"


def section(name: str) -> str:
    """The part of the page about one target."""
    return target_page().split(f"\n### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]


def test_the_committed_page_is_the_generated_one() -> None:
    said = "run: python -m deploy.target_page docs/targets.md"
    assert PAGE.read_text(encoding="utf-8") == target_page(), said


def test_every_target_has_its_section_and_every_rung_is_explained() -> None:
    page = target_page()
    titles = [line[4:] for line in page.splitlines() if line.startswith("### ")]
    assert sorted(titles) == registry.names("target")
    assert all(f"*{words}*" in page.split("## ")[0] for words in RUNGS.values())


@pytest.mark.parametrize("name", registry.names("target"))
def test_a_section_says_what_is_needed(name: str) -> None:
    target, text = Target.load(name), section(name)
    assert target.title in text
    assert f"*{RUNGS[proven(target)[0]]}*" in text
    assert remains(target) in text
    assert all(note in text for note in target.notes)
    assert ("| INT8 |" in text) == ("int8" in target.precisions)
    assert "- roofline: " in text, "no comment above [roofline] names the source of its figures"
    if target.engine.nvidia is not None:
        assert "- software: " in text, "no comment above [engine.nvidia] names its source"
        assert target.engine.nvidia.versions[-1] in text


def test_sources_are_the_comments_above_the_tables() -> None:
    text = section("xavier")
    assert "- software: JetPack 5.1 is the last for Xavier" in text
    assert "LPDDR4X-4266, 137 GB/s." in text
    assert "written out" not in text  # the comment above fusions is no source


def test_what_a_target_takes_over_is_linked_where_it_stands() -> None:
    assert "- INT8: as [a100](#a100)" in section("h200")
    assert "- INT8: as [rtx30](#rtx30)" in section("rtx50")
    assert "- roofline: Nominal, not measured. NVIDIA H200 data sheet" in section("h200")


def test_an_implicit_form_is_called_so() -> None:
    assert "calibration cache and a precision per layer" in section("orin-dla")
    assert "Q/DQ in the graph, int8, no zero points" in section("orin")


@pytest.mark.parametrize(
    ("name", "rung", "words"),
    [
        ("cpu", "device", "timed where they run"),
        ("intel-avx2", "predicted", "none ran on this one"),
        ("intel-npu", "predicted", "nothing was run on it"),
        ("thor", "predicted", "nothing was run on it"),
        ("xavier", "api", "bindings of TensorRT 8.5.2, imported without a GPU"),
        ("t4", "api", "TensorRT 8.6.1, 10.3.0 or 10.16.1"),
        ("rtx40", "compiler", "TensorRT-RTX 1.7.1 parsed models, built engines"),
    ],
)
def test_rungs_in_words(name: str, rung: str, words: str) -> None:
    found, said = proven(Target.load(name))
    assert found == rung
    assert words in said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cpu", "Nothing"),
        ("rpi3", "`deploy parity BUNDLE`"),
        ("xavier", "it builds the engine"),
        ("rtx30", "it loads the engine"),
    ],
)
def test_what_remains(name: str, words: str) -> None:
    assert words in remains(Target.load(name))
