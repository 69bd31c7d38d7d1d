"""The ladder's section names the stage and the node that went wrong, and what corrections did."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import pytest
from ladder_faults import Build, broken, changed, digits, go_on, pair_changed, swapped, way_of

from deploy.fuse import fuse
from deploy.ladder.climb import ladder
from deploy.plugin import ops as plugin
from deploy.report.ladder import broken_stage, ladder_figure, ladder_section

BN = "bn/BatchNormalization_out"
EXPAND, DEPTHWISE = f"unit2.expand.{BN}", f"unit2.depthwise.{BN}"


def shown(build: Build) -> dict[str, str]:
    """The section as a reader has it, and the first page's words: no tags."""
    content = ladder(way_of(build), build.samples).to_json()
    section = {**ladder_section(content), "first": broken_stage({"ladder": content})}
    return {name: unescape(re.sub(r"<[^>]*>", " ", text)) for name, text in section.items()}


def wrong_fusion(build: Build) -> tuple[Build, str, str]:
    graphs = {**build.graphs, "fused": broken(build.graphs["fused"], DEPTHWISE, changed(swapped))}
    return go_on(replace(build, graphs=graphs), "fused"), "fuse", f"{DEPTHWISE}/Conv"


def shifted_scale(build: Build) -> tuple[Build, str, str]:
    edit = pair_changed(lambda x: x * 1.5, 1, 0)
    wrong = broken(build.graphs["uncorrected"], EXPAND, edit)
    after = go_on(replace(build, graphs={**build.graphs, "uncorrected": wrong}), "uncorrected")
    return after, "quantize", f"{EXPAND}/Conv"


def wrong_correction(build: Build) -> tuple[Build, str, str]:
    wrong = broken(build.graphs["quantized"], EXPAND, changed(lambda x: x + 2.0, 2))
    graphs = {**build.graphs, "quantized": wrong}
    return replace(build, graphs=graphs), "correct", f"{EXPAND}/Conv"


def bad_plugin(build: Build) -> tuple[Build, str, str]:
    fused = fuse(build.graphs["simplified"], ("fold_affine", "plugin_channel_shuffle"))
    shuffle = next(n for n in fused.proto.graph.node if n.op_type == "ChannelShuffle")
    graphs = {name: build.graphs[name] for name in ("source", "loaded", "simplified")}
    return replace(build, graphs={**graphs, "fused": fused}), "fuse", shuffle.name


@pytest.mark.parametrize("fault", [wrong_fusion, shifted_scale, wrong_correction, bad_plugin])
def test_says_where_it_went_wrong(
    fault: Callable[[Build], tuple[Build, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build, stage, node = fault(digits())
    if fault is bad_plugin:
        right = plugin._expansion

        def wrong(*arguments: Any) -> str:
            return right(*arguments).replace("[0, 2, 1, 3]", "[0, 1, 2, 3]")

        monkeypatch.setattr(plugin, "_expansion", wrong)
    page = shown(build)
    assert page["ladder_words"].strip().startswith(f"{stage.capitalize()} went wrong: ")
    assert f"first at {node}." in page["ladder_words"]
    assert f"first at {node}." in page["first"]
    assert page["ladder_culprits"].strip().startswith(f"{stage}: {node} (")
    assert re.search(rf"{stage}\b.*wrong", page["ladder_rungs"], re.DOTALL)


def test_a_sound_one_accuses_nobody_and_tells_of_the_correction() -> None:
    build = digits()
    page = shown(build)
    assert page["ladder_culprits"].strip() == page["first"] == ""
    assert "wrong" not in page["ladder_words"] + page["ladder_rungs"]
    assert re.search(
        r"Corrections gained [\d.]+\sdB: 3\d\.\d\sdB before them", page["ladder_words"]
    )
    names = ladder_figure(ladder(way_of(build), build.samples).to_json())["data"][0]["x"]
    assert names[-2:] == ["uncorrected", "quantized"]


def test_without_a_correction_there_is_no_word_of_one() -> None:
    build = digits()
    graphs = {name: model for name, model in build.graphs.items() if name != "uncorrected"}
    assert "orrection" not in shown(replace(build, graphs=graphs))["ladder_words"]
