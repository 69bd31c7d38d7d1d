"""The report page: complete, honest, escaped, and whole without a network."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from browser import opened
from report_content import (
    EVIL,
    analysed,
    decision,
    float_content,
    hostile_choice,
    hostile_tried,
    int8_content,
    latency,
    ranges_of,
    stored,
    tensor,
    text_of,
)

from deploy.artifacts.ranges import Picture
from deploy.report.figures import layers, roofline
from deploy.report.html import embedded, render, vendored_plotly
from deploy.report.units import ratio, scaled, share, significant

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def page() -> str:
    return render(int8_content(), ranges_of(conv_0=tensor(-1, 3), conv_1=tensor(-1, 2)))


class TestSummary:
    def test_says_what_was_built_and_how_well(self, page: str) -> None:
        text = text_of(page)
        assert "Passed tiny → cpu, int8" in text
        assert "meets the one gate that was set." in text
        assert "float32 82.50 % to engine 81.50 %: drop 1.00 ± 1.87 points on 200" in text
        assert "top-1 agreement 91.50 %, top-5 99.50 %" in text
        assert "1.27x the speed of bf16, the fastest float engine (1.21 ms); 2.00x fp32" in text
        assert "4.60 MB from 14.0 MB, 3.04x smaller" in text
        assert "Judged on 200 samples: all of them." in text

    def test_a_class_without_scores_has_no_five_best(self) -> None:
        content = int8_content()
        content["parity"]["outputs"][0]["top5_agreement_pct"] = None
        text = text_of(render(content, None))
        assert "top-1 agreement 91.50 %" in text and "top-5" not in text

    def test_failed_build_shows_observed_and_limit(self) -> None:
        content = int8_content()
        content["summary"]["passed"] = content["parity"]["passed"] = False
        content["parity"]["gates"][0] |= {"passed": False, "limit": 30.0, "origin": "recipe"}
        text = text_of(render(content, None))
        assert "FAILED tiny" in text
        assert "SQNR of 'y' (dB): observed 15.20, limit at least 30 (recipe)" in text

    def test_missed_upper_limit_is_at_most(self) -> None:
        content = int8_content()
        content["summary"]["passed"] = content["parity"]["passed"] = False
        drop = {"name": "accuracy drop (points)", "limit": 0.5, "observed": 0.504}
        content["parity"]["gates"].append({**drop, "passed": False, "origin": "recipe"})
        text = text_of(render(content, None))
        assert "misses 1 of 2 gates that were set:" in text
        assert "accuracy drop (points): observed 0.5040, limit at most 0.5 (recipe)" in text
        assert "The standard error is larger than the limit on the drop" in text

    def test_what_the_build_warned_of(self, page: str) -> None:
        assert "What the build warned of" not in page
        content = int8_content()
        content["ladder"] = None
        content["summary"]["cautions"] = ["no parity ladder: <b>", "--max-drop 0.1 is fine."]
        told = render(content, None)
        assert "What the build warned of No parity ladder: <b>. --max-drop" in text_of(told)
        assert "<b>" not in told and "fine..</li>" not in told

    def test_a_report_from_before_warnings_were_kept(self) -> None:
        content = int8_content()
        del content["summary"]["cautions"]
        assert "What the build warned of" not in render(content, None)

    @pytest.mark.parametrize(
        ("int8", "said"),
        [
            (0.95, None),
            (1.17, None),
            (1.18, "int8 is as fast as bf16 here (1.03x, within the noise): consider --bf16"),
            (1.24, "int8 is as fast as bf16 here (0.98x, within the noise): consider --bf16"),
            (1.26, "int8 is slower than bf16 here (0.96x): consider --bf16"),
        ],
    )
    def test_slower_than_float_is_said_iff_it_is(self, int8: float, said: str | None) -> None:
        content = int8_content()
        content["measured"]["latency"]["int8"] = latency(int8)
        text = text_of(render(content, None))
        assert ("consider --bf16" in text) == (said is not None)
        assert said is None or said in text

    def test_what_missed_a_gate_is_not_advised(self) -> None:
        content = int8_content()
        content["measured"]["latency"]["int8"] = latency(1.5)
        outcome = "missed a gate: drop is 1.00, needs 0.5"
        tried = [{**row, "name": "bf16", "outcome": outcome} for row in hostile_tried()["tried"]]
        content["measured"]["tried"] = {"chosen": "int8", "reason": "x", "tried": tried}
        text = text_of(render(content, None))
        assert "slower than bf16 here (0.81x), which missed a gate: drop is 1.00, needs" in text
        assert "consider --bf16" not in text

    def test_elsewhere_the_advice_is_to_time_it_there(self) -> None:
        content = int8_content()
        content["target"]["host"] = False
        content["measured"]["latency"]["int8"] = latency(1.5)
        text = text_of(render(content, None))
        assert "(0.81x): time both on the target, and consider --bf16" in text
        assert "This machine is not the target" in text


class TestSections:
    def test_quantized_build(self, page: str) -> None:
        text = text_of(page)
        assert "1 of 2 layers run in u8, 1 in f32." in text
        assert "conv_1 (Conv): 42.6 dB to 14.1 dB" in text
        assert "fuse: fold_affine, 1 applied, 2.05 kB less memory traffic" in text
        assert "'c' is also read by 'Add_3'" in text
        assert "1 of 2 tensors with a range is quantized; none of these ranges cuts off" in text
        assert "Calibrated on calib.npz (128 of 300). Judged on test.npz" in text
        assert "deploy build 'my model.onnx' --int8" in text
        assert "max_drop" not in text  # not set: not part of the recipe to repeat
        assert "interleaved in one run" in text
        assert "608 MFLOP" in text

    def test_float_build_leaves_out_what_it_lacks(self) -> None:
        page = render(float_content(), None)
        text = text_of(page)
        assert 'id="calibration"' not in page and "#calibration" not in page.split("<script")[0]
        assert 'id="figure-layers"' not in page
        assert "The error per layer is measured for quantized builds only." in text
        assert "does not tell which layers it executes" in text
        assert "carry no labels, so accuracy was not measured" in text
        assert "Accuracy was not measured" in text
        assert "no gate was set" in text
        assert "float32 class" not in text and "Top-1 agreement" not in text
        assert "No command line was recorded" in text
        assert "Nothing was skipped" in text
        assert "identical" in text
        assert "QuantizeLinear" not in text

    def test_roofline_says_what_binds(self, page: str) -> None:
        text = text_of(page)
        assert "On the target's figures (1.10 TFLOP/s in int8, 39.0 GB/s), 2 of 2 layers" in text
        assert "1 layer only moves data: 4.00 µs. The engine measured 0.950 ms." in text
        assert "loaded int8 3 31.0 kFLOP 3.00 kB 10.3 30.0 µs 3" in text
        assert "as built int8 2 30.0 kFLOP" in text
        assert "conv_0 Conv int8 30.0 kFLOP 1.00 kB 30.0 memory 4.00 µs 50.0 %" in text

    def test_a_float_build_has_no_row_of_its_own(self) -> None:
        content = int8_content()
        content["roofline"]["built"] = content["roofline"]["fused"]
        assert "as built int8" not in text_of(render(content, None))

    def test_no_layers_no_roofline(self) -> None:
        content = int8_content()
        content["roofline"]["built"] = analysed({})
        page = render(content, None)
        assert 'id="roofline"' not in page and 'id="figure-roofline"' not in page
        assert "#roofline" not in page.split("<script")[0]

    def test_unknown_shapes_are_said(self) -> None:
        content = int8_content()
        content["roofline"]["built"]["total"]["unknown"] = ["loop_0"]
        assert "1 layer of unknown cost count for too little" in text_of(render(content, None))

    def test_nothing_timed(self) -> None:
        content = int8_content()
        content["measured"]["latency"] = {}
        page = render(content, None)
        assert "Nothing was timed in this build." in text_of(page)
        assert 'id="figure-latency"' not in page


class TestSafety:
    def hostile(self) -> str:
        content = int8_content()
        content["summary"]["model"] = content["model"]["name"] = EVIL
        for row in content["layer_errors"]:
            row["tensor"] = EVIL
        for row in content["layers"]:
            row["name"] = row["kernel"] = EVIL
        for row in content["roofline"]["built"]["layers"]:
            row["name"] = row["op"] = EVIL
        for row in content["decisions"]:
            row["subject"] = row["reason"] = EVIL
        content["parity"]["worst"][0]["name"] = content["parity"]["outputs"][0]["name"] = EVIL
        content |= {"weights": [stored(EVIL, EVIL)], **hostile_choice()}
        content["measured"]["tried"] = hostile_tried()
        content["recipe"][EVIL] = content["tools"][EVIL] = EVIL
        content["command"].append(EVIL)
        return render(content, ranges_of(**{EVIL: tensor(-1, 3, 0.1, EVIL)}))

    def test_names_are_escaped_everywhere(self) -> None:
        page = self.hostile()
        assert "<img" not in page.replace(vendored_plotly(), "")
        assert page.count("</script>") == 3
        assert EVIL in text_of(page)  # readable as it is, `$model` included

    def test_embedded_json_cannot_leave_its_element(self) -> None:
        assert embedded({"a": "</script>&"}) == '{"a":"\\u003c/script\\u003e\\u0026"}'

    def test_nothing_is_loaded_from_anywhere(self, page: str) -> None:
        # plotly's own strings hold addresses it never visits; the policy below would refuse them
        own = page.replace(vendored_plotly(), "")
        assert "src=" not in own
        assert set(re.findall(r'href="([^"]*)"', own)) <= {
            f"#{name}"
            for name in (
                *("content", "summary", "precision", "accuracy", "speed"),
                *("layers", "roofline", "calibration", "changes", "reproduce"),
            )
        }
        assert "http://" not in own and "https://" not in own
        assert "url(" not in own and "@import" not in own
        assert "default-src 'none'" in own

    def test_same_content_same_page(self, page: str) -> None:
        again = render(int8_content(), ranges_of(conv_0=tensor(-1, 3), conv_1=tensor(-1, 2)))
        assert again == page


def test_a_thousand_tensors_stay_below_three_megabytes() -> None:
    content = int8_content()
    names = [f"/backbone/stage.{i}/block/conv/Conv_output_{i}" for i in range(1000)]
    error, layer = content["layer_errors"][1], content["layers"][0]
    content["layer_errors"] = [{**error, "tensor": name} for name in names]
    content["layers"] = [{**layer, "name": name} for name in names]
    content["roofline"] |= {k: analysed(dict.fromkeys(names, 3e4)) for k in ("loaded", "built")}
    content["decisions"] = [
        decision("quantize", "activation", "applied", name, "uint8, scale 0.0235294, zero point 0")
        for name in names
    ]
    one = replace(tensor(-1, 3), picture=Picture(-1.0, 0.0625, (123456,) * 64))
    page = render(content, ranges_of(**dict.fromkeys(names, one)))
    assert len(page.encode()) < 3_000_000


def test_ranges_say_what_they_cut_off_and_why() -> None:
    found = ranges_of(
        conv_0=tensor(-1, 2, 0.25, "clipped 25 % of values: 1.2 dB less noise expected"),
        conv_1=tensor(-1, 2, 1e-6),
        same=tensor(-1, 3),
    )
    page = render(int8_content(), found)
    text = text_of(page)
    assert "1 of these ranges cut off values that were seen" in text  # of the quantized ones
    assert "conv_0 yes -1 2 -1 3 25.0 % clipped 25 % of values: 1.2 dB less noise expected" in text
    assert "conv_1 no -1 2 -1 3 < 0.01 %" in text
    assert '"words":"clipped 25 % of values: 1.2 dB less noise expected"' in page
    assert '"words":"nothing cut off"' in page
    assert '"words":"\\u003c 0.01 % of the values cut off"' in page
    assert '"first":0' in page  # the one that cuts off most


def test_numbers_read_well() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert [significant(v) for v in (0, 0.0445, 1.206, 14.02, 1210.4)] == [
        *("0", "0.0445", "1.21", "14.0", "1,210")
    ]
    assert scaled(999_600, "B") == f"1.00{space}MB"
    assert scaled(512, "B") == f"512{space}B"
    assert [ratio(v) for v in (2.0141, 0.998, 1.0, 0.97)] == ["2.01x", "0.998x", "1.00x", "0.97x"]
    assert [share(v) for v in (0, 1e-6, 0.25)] == ["0", f"<{space}0.01{space}%", f"25.0{space}%"]


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("kind", ["int8", "float", "hostile"])
def test_opens_in_a_browser(kind: str, tmp_path: Path) -> None:
    pages = {
        "int8": lambda: render(int8_content(), ranges_of(conv_0=tensor(-1, 3))),
        "float": lambda: render(float_content(), None),
        "hostile": TestSafety().hostile,
    }
    figures = {"int8": 4, "float": 2, "hostile": 6}[kind]
    dom = opened(pages[kind](), tmp_path)
    assert f'<div id="figures-drawn" hidden="">{figures}</div>' in dom


CLICKS = """<script>
const rows = () => [...document.querySelectorAll("#calibration tbody tr")];
const shown = () => rows().filter((row) => !row.hidden).map((row) => row.cells[0].textContent);
const said = [];
const [tensor, , , high] = document.querySelectorAll("#calibration th button");
high.click(); high.click();
said.push(`sorted ${shown()[0]}`);
const input = document.querySelector("#calibration input[type=search]");
input.value = "T07 no"; input.dispatchEvent(new Event("input"));
said.push(`filtered ${shown().join()}`);
document.querySelector("#calibration tr:not([hidden]) td button").click();
said.push(`chosen ${document.getElementById("tensor").selectedOptions[0].text}`);
document.getElementById("theme").click();
said.push(`theme ${document.documentElement.dataset.theme}`);
const marker = document.createElement("pre");
marker.textContent = said.join("; ");
document.body.append(marker);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_tables_histogram_and_theme_answer_clicks(tmp_path: Path) -> None:
    many = {f"t{i:02}": tensor(-1, i / 10) for i in range(25)}
    page = render(int8_content(), ranges_of(**many)).replace("</body>", CLICKS)
    dom = opened(page, tmp_path)
    assert "<pre>sorted t24; filtered t07; chosen t07; theme dark</pre>" in dom


def test_roofs_bend_where_bandwidth_meets_the_peak() -> None:
    figure = roofline(int8_content()["roofline"])
    roofs = [t for t in figure["data"] if t["mode"] == "lines+text"]
    assert [t["text"][-1].split("  ")[0] for t in roofs] == ["fp32", "fp16, bf16", "int8"]
    assert roofs[-1]["x"][1] == pytest.approx(1.1e12 / 39e9)
    assert roofs[-1]["y"][1:] == [1.1e12, 1.1e12]
    before, after = (t for t in figure["data"] if t["mode"] == "markers")
    # what computes nothing has no place on a logarithmic axis
    assert (len(before["x"]), len(after["x"])) == (2, 1)
    assert (after["x"], after["y"]) == ([30.0], [7.5e9])


def test_plotly_gets_names_as_text_not_as_its_markup() -> None:
    row = {"tensor": "<a href='x'>", "operator": "<b>", "sqnr_db": 9.0, "cosine": 0.9}
    (text,) = layers([row])["data"][0]["text"]
    assert "<a" not in text and "&lt;a href=" in text and "<b>&lt;b&gt;</b>" in text
