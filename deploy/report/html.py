"""One page people read, self-contained: it opens offline, in any browser, years later.

page.html is the page, with `<!-- if name -->...<!-- end name -->` around what may be missing and
`$name` where a value goes; page.css and page.js go into it, and page_map.* for the precision map.
Values are escaped where they are made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from deploy.artifacts.audit import Audit
from deploy.artifacts.ranges import Ranges
from deploy.report import figures, precision_figures
from deploy.report.adjusted import adjusted
from deploy.report.audit import audit_section, growth
from deploy.report.calibration import calibration, graph_order
from deploy.report.changes import changes, reproduce
from deploy.report.device import device
from deploy.report.ladder import ladder_figure, ladder_section
from deploy.report.map_picture import drawn_map, precision_map
from deploy.report.measured import accuracy, layers, speed
from deploy.report.precision import kept, precision
from deploy.report.roofline import roofline
from deploy.report.summary import summary

_HERE = Path(__file__).parent
_BLOCK = re.compile(r"<!-- if (\w+) -->(.*?)<!-- end \1 -->\n?", re.DOTALL)


def render(content: dict[str, Any], ranges: Ranges | None, audited: Audit | None = None) -> str:
    """The whole report as one HTML file; the same content gives the same page."""
    values = {
        **summary(content),
        **precision(content, ranges),
        **accuracy(content),
        **ladder_section(content.get("ladder")),
        **speed(content),
        **precision_map(content),
        **layers(content),
        **device(content),
        **roofline(content),
        **calibration(content, ranges),
        **adjusted(content),
        **audit_section(audited),
        **changes(content),
        **reproduce(content, ranges),
        "drawn_from": embedded(_drawn(content, ranges, audited)),
    }
    return filled_page("page.html", values)


def filled_page(template: str, values: Mapping[str, str]) -> str:
    """A page beside this file with its values, the one look of all pages and their scripts."""
    parts = {
        "style": _part("page.css") + _part("page_map.css"),
        "script": _inside_script(_part("page.js") + _part("page_map.js")),
        "plotly": _inside_script(vendored_plotly()),
    }
    return Template(_kept(_part(template), values)).substitute({**values, **parts})


def vendored_plotly() -> str:
    """plotly.js-basic, MIT licence, as it stands beside this file."""
    return _part("plotly-basic.min.js")


def embedded(value: Any) -> str:
    """JSON that no HTML parser can leave: `<`, `>` and `&` only as escapes."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _drawn(
    content: Mapping[str, Any], ranges: Ranges | None, audited: Audit | None
) -> dict[str, Any]:
    """What page.js draws: a figure per element, and histograms, the most cut off tensor first."""
    rows = content["measured"]["latency"]
    drawn: dict[str, figures.Figure] = {}
    if rows:
        drawn["latency"] = figures.latency(rows, content["summary"]["precision"])
    if content.get("ladder"):
        drawn["ladder"] = ladder_figure(content["ladder"])
    if content["layer_errors"]:
        drawn["layers"] = figures.layers(content["layer_errors"])
    if content["roofline"]["built"]["layers"]:
        drawn["roofline"] = figures.roofline(content["roofline"])
    drawn |= _chosen(content)
    if audited is not None and audited.curve is not None:
        drawn["growth"] = growth(audited.curve)
    order = graph_order(content, ranges) if ranges is not None else []
    tensors = {name: ranges.tensors[name] for name in order} if ranges is not None else {}
    first = max(range(len(order)), key=lambda i: (tensors[order[i]].clipped, -i), default=0)
    return {
        "figures": drawn,
        "tensors": figures.tensors(tensors),
        "first": first,
        "map": drawn_map(content),
    }


def _chosen(content: Mapping[str, Any]) -> dict[str, figures.Figure]:
    """The figures about the choice of precision, where there was one."""
    tried, choice = content["measured"]["tried"], content["choice"]
    if tried is None or choice is None:
        return {}
    drawn = {"pareto": precision_figures.pareto(tried["tried"], tried["chosen"])}
    if choice["sensitivity"]:
        noise = choice["sensitivity"]
        drawn["sensitivity"] = precision_figures.sensitivity(noise, kept(content))
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _kept(page: str, values: Mapping[str, str]) -> str:
    """The page without the blocks whose value is empty; values are not in it yet."""

    def block(match: re.Match[str]) -> str:
        return _kept(match[2], values) if values[match[1]] else ""

    return _BLOCK.sub(block, page)


def _part(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _inside_script(code: str) -> str:
    """Code of ours that doesn't end its own element; inside strings the two mean the same."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
