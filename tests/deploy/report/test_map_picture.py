"""The precision map on the page: the picture, the side panel, keys and clicks, and its size."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from mapped import KERNEL, cost, graph_of, mapped, mapped_content, random_edges
from report_content import EVIL, decision, int8_content, text_of

from deploy.report.html import render, vendored_plotly
from deploy.report.map_picture import drawn_map
from deploy.report.map_words import TYPES

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def page() -> str:
    return render(mapped_content(), None)


def svg_of(page: str) -> str:
    (found,) = re.findall(r'<svg id="graph".*?</svg>', page, re.DOTALL)
    return str(found)


def boxes_of(page: str) -> list[str]:
    return re.findall(r'<g class="node.*?</g>', svg_of(page), re.DOTALL)


class TestPicture:
    def test_every_box_has_its_three_colours_and_figures(self, page: str) -> None:
        conv, moves, add, entry, result = boxes_of(page)
        assert 'class="node t-int8 e1 p4"' not in conv  # 42.6 dB, 40 % of the time
        assert 'class="node t-int8 e1 p5"' in conv
        assert text_of(conv).endswith("Conv 3×3 /2 + Relu INT8 42.6 dB 40.0 µs")
        assert 'class="node t-moves e-none p-none"' in moves
        assert text_of(moves).endswith("Transpose + Reshape moves data")
        assert 'class="node t-fp32 e5 p5"' in add and "9.5" in add
        assert 'class="node port"' in entry and text_of(entry) == "x x"
        assert text_of(result) == "sum sum"

    def test_it_is_a_picture_without_any_script(self, page: str) -> None:
        """Size, text and edges are in the file; the switch is a rule of the style sheet."""
        before_scripts = page.split("<script")[0]
        assert 'viewBox="0 0' in before_scripts
        assert len(re.findall(r"<path ", svg_of(page))) == 4
        assert "#map:has(#by-error:checked) .node rect" in before_scripts
        tools = re.search(r'<div id="map-tools"[^>]*>', before_scripts)
        assert tools is not None and "hidden" in tools[0]

    def test_the_words_count_what_is_drawn(self, page: str) -> None:
        text = text_of(page)
        assert "5 nodes: 2 INT8, 1 fp32, 2 moves data. Drawn as 3 boxes" in text
        assert "Types are those that the vendor's list of layers tells." in text

    def test_a_float_build_has_no_switch_to_errors(self) -> None:
        content = mapped_content()
        for node in content["graph_map"]["nodes"]:
            node["sqnr_db"] = None
        page = render(content, None)
        assert 'id="by-error"' not in page and 'id="by-time"' in page

    def test_a_report_without_a_graph_has_no_map(self) -> None:
        page = render(int8_content(), None)
        assert (
            'id="map"' not in page and "#map" not in page.split("</style>")[1].split("<script")[0]
        )

    def test_summary_accuracy_speed_map_roofline_come_in_that_order(self, page: str) -> None:
        sections = re.findall(r'<section id="(\w+)"', page)
        assert sections == [
            *("summary", "accuracy", "speed", "map", "layers", "roofline"),
            *("changes", "reproduce"),
        ]


class TestPanel:
    def test_it_says_all_that_is_known(self) -> None:
        drawn = drawn_map(mapped_content())
        assert drawn is not None
        box = drawn["boxes"][0]
        assert box["title"] == "Conv 3×3 /2 + Relu"
        assert box["nodes"] == ["conv_0 (Conv)", "relu_0 (Relu)"]
        rows = {
            drawn["texts"][label]: drawn["texts"][value].replace("\N{NO-BREAK SPACE}", " ")
            for label, value in box["rows"]
        }
        assert rows == {
            "Type": "INT8, as the vendor's list says",
            "Why": "taken by the target's placement",
            "Kernel": "brgconv (Convolution, u8)",
            "SQNR at its output": "42.6 dB",
            "SQNR of its weights": "44.2 dB",
            "Noise alone in 8 bits": "-31.0 dB",
            "Compute": "1.00 MFLOP",
            "Memory traffic": "4.00 kB",
            "Predicted": "40.0 µs, 40.0 % of the graph, bound by memory",
            "Reads": "x: range -1 to 3; uint8, scale 0.0157, input of Conv",
        }
        assert [drawn["texts"][text] for text in box["decisions"]] == [
            "fuse, fold_affine: folded into Conv (bn_0)",
            "quantize, activation: uint8, scale 0.1 (conv_0)",
        ]

    def test_boxes_know_whom_they_read(self) -> None:
        drawn = drawn_map(mapped_content())
        assert drawn is not None
        assert drawn["edges"] == [(0, 1), (0, 2), (1, 2), (2, 4), (3, 0)]


class TestSafety:
    def hostile(self) -> str:
        content = mapped_content()
        kernel = {**KERNEL, **dict.fromkeys(("name", "kind", "precision", "kernel"), EVIL)}
        nodes = [
            mapped(EVIL, EVIL, ["x"], detail=EVIL, reason=EVIL, kernel=kernel, stored=[EVIL]),
            mapped("end", EVIL, [EVIL], cost=cost(1.0), decisions=[0]),
        ]
        content["decisions"] = [decision("quantize", "activation", "applied", EVIL, EVIL)]
        content["graph_map"] = graph_of(nodes, ranges={EVIL: [0.0, 1.0]})
        content["graph_map"] |= {"inputs": {EVIL: [0]}, "outputs": {EVIL + "y": 1}}
        return render(content, None)

    def test_names_cannot_leave_their_place(self) -> None:
        page = self.hostile()
        own = page.replace(vendored_plotly(), "")
        assert "<img" not in own and page.count("</script>") == 3
        embedded = re.search(r'id="drawn-from">(.*?)</script>', page, re.DOTALL)
        assert embedded is not None
        assert json.loads(embedded[1])["map"]["boxes"][0]["nodes"] == [f"{EVIL} ({EVIL})"]

    @pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
    def test_nor_in_a_browser(self, tmp_path: Path) -> None:
        dom = opened(self.hostile().replace("</body>", CHOOSE_ALL), tmp_path)
        assert "<pre>4 boxes, 0 images</pre>" in dom


CHOOSE_ALL = """<script>
document.querySelectorAll("#graph g.node").forEach((node) => node.dispatchEvent(
  new MouseEvent("click", { bubbles: true })));
const marker = document.createElement("pre");
const images = document.querySelectorAll("main img").length;
const nodes = document.querySelectorAll("#graph g.node").length;
marker.textContent = `${nodes} boxes, ${images} images`;
document.body.append(marker);
</script></body>"""


def large(count: int) -> dict[str, Any]:
    """A network of so many nodes with long names, every one with all figures and decisions."""
    names = [f"/backbone/stage.{i}/block/conv/Conv_output_{i}" for i in range(count)]
    inputs: list[list[str]] = [["x"] for _ in names]
    for source, target in random_edges(3, count):
        inputs[target].append(names[source])
    kernel = {**KERNEL, "name": "/backbone/stage/block/conv/Conv/WithoutBiases"}
    nodes = [
        mapped(
            *(name, "Conv", inputs[i]),
            type="int8",
            sqnr_db=30.0,
            weight_sqnr_db=40.0,
            noise_db=-30.0,
            cost=cost(0.01),
            kernel={**kernel, "name": name},
            decisions=[i, i + count],
        )
        for i, name in enumerate(names)
    ]
    content = int8_content()
    said = "uint8, scale 0.0235294, zero point 0, input of Conv"
    content["decisions"] = [
        decision("quantize", rule, "applied", name, said)
        for rule in ("activation", "weight")
        for name in names
    ]
    content["graph_map"] = graph_of(nodes, ranges={name: [0.0, 6.0] for name in names})
    return content


def test_a_thousand_boxes_stay_below_three_megabytes() -> None:
    page = render(large(1000), None)
    assert len(boxes_of(page)) == 1002
    assert len(page.encode()) < 3_000_000


def test_a_graph_too_large_for_a_picture_is_said() -> None:
    page = render(large(1300), None)
    assert '<svg id="graph"' not in page and 'id="map-tools"' not in page.split("<script")[0]
    assert "1,300 boxes" in text_of(page) and "more than a picture shows" in text_of(page)


def test_same_content_same_page(page: str) -> None:
    assert render(mapped_content(), None) == page


KEYS = """<script>
const svg = document.getElementById("graph");
const nodes = [...svg.querySelectorAll("g.node")];
const heading = () => document.querySelector("#map-panel h3").textContent;
const said = [];
const press = (key) => document.activeElement.dispatchEvent(
  new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
said.push(`stops ${nodes.filter((node) => node.getAttribute("tabindex") === "0").length}`);
nodes[0].focus(); press("Enter");
said.push(heading());
press("ArrowDown"); said.push(heading());
press("ArrowDown"); said.push(heading());
press("ArrowUp"); press("Home"); said.push(heading());
press("ArrowUp"); said.push(heading());
nodes[2].dispatchEvent(new MouseEvent("click", { bubbles: true }));
said.push(`${heading()} ${document.querySelectorAll("#graph .near").length} near`);
document.querySelector("#map-panel .jumps button").click();
said.push(heading());
const search = document.getElementById("map-search");
search.value = "TRANS"; search.dispatchEvent(new Event("input"));
said.push(document.getElementById("map-found").textContent);
search.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter" }));
said.push(heading());
const fill = () => getComputedStyle(nodes[0].querySelector("rect")).fill;
const shown = () => [...nodes[0].querySelectorAll("text[class]")]
  .filter((text) => getComputedStyle(text).display !== "none").map((text) => text.textContent);
const [byType, first] = [fill(), shown()];
document.getElementById("by-error").click();
said.push(`${first} then ${shown()} ${fill() === byType ? "same" : "other"} colour`);
const width = svg.getBoundingClientRect().width;
document.getElementById("map-in").click();
said.push(`zoom ${(svg.getBoundingClientRect().width / width).toFixed(1)}`);
const marker = document.createElement("pre");
marker.textContent = said.join("; ");
document.body.append(marker);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_keys_clicks_search_and_the_switch(page: str, tmp_path: Path) -> None:
    dom = opened(page.replace("</body>", KEYS), tmp_path)
    found = re.search(r"<pre>(stops.*?)</pre>", dom)
    assert found is not None
    assert found[1].replace("&nbsp;", " ").split("; ") == [
        "stops 1",
        "Conv 3×3 /2 + Relu",
        "Transpose + Reshape",
        "Add",
        "Conv 3×3 /2 + Relu",
        "x",
        "Add 3 near",
        "Conv 3×3 /2 + Relu",
        "1 found",
        "Transpose + Reshape",
        "INT8 then 42.6 dB other colour",
        "zoom 1.4",
    ]


def test_every_type_has_a_colour_of_its_own_in_every_theme() -> None:
    css = (Path(__file__).parents[3] / "deploy/report/page_map.css").read_text()
    found = {n: re.search(rf"\.t-{n} {{ --by-type: var\((--[\w-]+)\)", css) for n in TYPES}
    names = [match.group(1) for match in found.values() if match]
    assert len(set(names)) == len(TYPES)
    # what only moves data is the page's own grey, in light and in dark
    own = [name for name in names if name != "--sunk"]
    for values in zip(*(re.findall(rf"{name}: (#\w+)", css) for name in own), strict=True):
        assert len({*values, "#f0f2f4", "#20262d"}) == len(own) + 2
