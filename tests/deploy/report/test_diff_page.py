"""The page about two bundles: complete, escaped, whole without a network, the same every time."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import opened
from diffed import compared, content
from report_content import EVIL, latency, ranges_of, tensor, text_of

from deploy.report.diff import render
from deploy.report.html import vendored_plotly

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A build, and one that is slower, noisier, of other tools and with a layer in bf16."""
    other = content()
    other["tools"] = {"openvino": "2027.1.0"}
    other["measured"]["latency"]["int8"] = latency(1.2)
    other["layer_errors"][1]["sqnr_db"] = 9.0
    other["parity"]["outputs"][0]["sqnr_db"] = 9.0
    other["graph_map"]["nodes"][0]["type"] = "bf16"
    other["decisions"] = other["decisions"][1:]
    ranges = ranges_of(a=tensor(-1, 3)), ranges_of(a=tensor(-1, 2))
    return compared(tmp_path_factory.mktemp("diff"), content(), other, ranges)


@pytest.fixture(scope="module")
def page(found: dict[str, Any]) -> str:
    return render(found)


class TestSections:
    def test_what_matters_first_stands_first(self, page: str) -> None:
        text = text_of(page)
        first = text.index("worse The second engine has 0.79x the speed of the first")
        assert first < text.index("worse SQNR of y went from 15.2 dB to 9.0 dB")
        assert first < text.index("1 layer went from INT8 to bf16: conv_0.")

    def test_results_decisions_and_inputs(self, page: str) -> None:
        text = text_of(page)
        assert "y 15.2 dB 9.0 dB -6.2 dB" in text
        assert "SQNR of 'y' (dB) met: 15.20, limit 8 met: 15.20, limit 8" in text
        assert "conv_1 14.1 dB 9.0 dB -5.1 dB" in text
        assert "conv_0 Conv INT8 bf16" in text
        assert "fuse fold_affine 1 0 1 1 first: bn_0" in text
        assert "a -1 to 3 -1 to 2 25.0 %" in text
        assert "tools openvino 2026.4.1 2027.1.0" in text
        assert "Accuracy 81.50 % and 81.50 %: +0.00 points, within what chance explains" in text

    def test_two_of_the_same(self, tmp_path: Path) -> None:
        text = text_of(render(compared(tmp_path, content(), content())))
        assert "Nothing that counts differs." in text
        assert "The same model, data, recipe, target, machine and tools." in text
        assert "No difference that can be told from noise." in text
        assert "Every layer that both have is of the same type in both." in text

    def test_without_errors_per_layer_there_is_no_figure(self, tmp_path: Path) -> None:
        one, two = content(), content()
        one["layer_errors"] = []
        page = render(compared(tmp_path, one, two))
        assert 'id="figure-layers"' not in page
        assert "no errors per layer to compare" in text_of(page)


class TestSafety:
    def hostile(self, folder: Path) -> str:
        one, two = content(), content()
        for number, found in enumerate((one, two)):
            found["summary"]["model"] = found["summary"]["target"] = f"{EVIL}{number}"
            found["measured"]["machine"] = found["measured"]["created"] = f"{EVIL}{number}"
            found["tools"] = {EVIL: f"{EVIL}{number}"}
            found["recipe"] = {EVIL: {EVIL: f"{EVIL}{number}"}}
            found["parity"]["gates"][0]["name"] = found["parity"]["outputs"][0]["name"] = EVIL
            found["parity"]["outputs"][0]["sqnr_db"] = 10.0 * (number + 1)
            found["layer_errors"] = [
                {"tensor": EVIL, "operator": EVIL, "sqnr_db": 10.0 * (number + 1), "cosine": 1.0}
            ]
            found["decisions"] = [
                {**found["decisions"][0], "subject": f"{EVIL}{i}", "rule": EVIL, "stage": EVIL}
                for i in range(number + 1)
            ]
            node = found["graph_map"]["nodes"][0]
            node |= {"name": EVIL, "operator": EVIL, "reason": EVIL, "type": f"{EVIL}{number}"}
            found["graph_map"]["nodes"][1]["name"] = f"{EVIL}{number}"
            found["sizes"]["what"] = EVIL
            found["measured"]["tried"] = {"chosen": f"{EVIL}{number}", "reason": EVIL}
        ranges = ranges_of(**{EVIL: tensor(-1, 3)}), ranges_of(**{EVIL: tensor(-1, 2)})
        found = compared(folder, one, two, ranges)
        found["before"]["folder"] = EVIL
        return render(found)

    def test_names_are_escaped_everywhere(self, tmp_path: Path) -> None:
        page = self.hostile(tmp_path)
        assert "<img" not in page.replace(vendored_plotly(), "")
        assert page.count("</script>") == 3
        assert EVIL in text_of(page)

    def test_nothing_is_loaded_from_anywhere(self, page: str) -> None:
        own = page.replace(vendored_plotly(), "")
        sections = set(re.findall(r'<section id="(\w+)"', own))
        assert set(re.findall(r'href="#([^"]*)"', own)) == sections | {"content"}
        assert "src=" not in own and "http" not in own.replace("http-equiv", "")
        assert "default-src 'none'" in own

    def test_the_same_differences_the_same_page(self, found: dict[str, Any], page: str) -> None:
        assert render(found) == page

    @pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
    @pytest.mark.parametrize("kind", ["plain", "hostile"])
    def test_opens_in_a_browser(self, kind: str, page: str, tmp_path: Path) -> None:
        dom = opened(page if kind == "plain" else self.hostile(tmp_path), tmp_path)
        assert '<div id="figures-drawn" hidden="">1</div>' in dom
