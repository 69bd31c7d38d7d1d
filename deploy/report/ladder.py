"""The section about the parity ladder: what each stage did to the outputs, and where one broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from deploy.report import units
from deploy.report.figures import Figure
from deploy.report.table import (
    Cell,
    Row,
    bullets,
    filled,
    folded,
    name,
    number,
    paragraph,
    table,
    words,
)

Rows = Sequence[Mapping[str, Any]]

# identical tensors are reported as 200 dB, which would flatten everything else
_TOP_DB = 140.0
_WORST = 8
_DECADES = 11

_EMPTY = ("ladder", "ladder_words", "ladder_rungs", "ladder_culprits", "ladder_tensors")


def ladder_section(content: Mapping[str, Any] | None) -> dict[str, str]:
    """Values for page.html out of `Ladder.to_json()`; all empty without one: no section then."""
    if not content:
        return dict.fromkeys(_EMPTY, "")
    rungs = content["rungs"]
    looks = "" if content["passed"] else "caution"
    return {
        "ladder": "yes",
        "ladder_words": paragraph(_words(content), looks),
        "ladder_rungs": _rungs(rungs),
        "ladder_culprits": bullets(_culprits(rungs)),
        "ladder_tensors": "\n".join(filter(None, map(_tensors, rungs))),
    }


def broken_stage(content: Mapping[str, Any]) -> str:
    """For the first page: which stage went wrong, and where; empty where none did."""
    found = content.get("ladder")
    if not found or not found["broken"]:
        return ""
    told = str(found["verdict"])
    return f"{told[:1].upper()}{told[1:]}."


def ladder_figure(content: Mapping[str, Any]) -> Figure:
    """SQNR of every rung against the untouched model, and what its own stage keeps; the rung that
    broke in another colour, its node beside it."""
    rungs = content["rungs"][1:]
    broken = set(content["broken"])
    names = [rung["name"] for rung in rungs]
    total: Figure = {
        "type": "scatter",
        "mode": "lines+markers+text",
        "name": "against the untouched model",
        "x": names,
        "y": [_shown(_worst(rung)) for rung in rungs],
        "line": {"color": "--accent", "width": 1.5},
        "marker": {
            "size": [12 if n in broken else 8 for n in names],
            "color": ["--bad" if n in broken else "--accent" for n in names],
        },
        "text": [_node(rung) if rung["name"] in broken else "" for rung in rungs],
        # towards the middle: a long name must not leave the picture
        "textposition": [
            "top right" if i < len(names) / 2 else "top left" for i in range(len(names))
        ],
        "textfont": {"color": "--bad", "size": 11},
        "hovertext": [_hover(rung) for rung in rungs],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }
    allowed: Figure = {
        "type": "scatter",
        "mode": "markers",
        "name": "least that a sound stage keeps",
        "x": names,
        "y": [_shown(rung["allowed_db"]) for rung in rungs],
        "marker": {"symbol": "line-ew", "size": 18, "line": {"width": 2, "color": "--quiet"}},
        "hovertemplate": "%{x}: at least %{y:.1f} dB<extra></extra>",
    }
    layout = {
        "height": 340,
        "margin": {"l": 52, "r": 16, "t": 40, "b": 60},
        "xaxis": {"type": "category", "showgrid": False},
        "yaxis": {
            "title": {"text": "SQNR (dB), higher is better"},
            "range": [0, _TOP_DB * 1.1],
            "fixedrange": True,
        },
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "showlegend": True,
    }
    return {"data": [total, allowed], "layout": layout}


def _words(content: Mapping[str, Any]) -> str:
    verdict = str(content["verdict"])
    first = content["rungs"][0]["name"]
    truth = "the untouched model" if first == "source" else f"the {first} graph"
    about = f" ({content['about']})" if content["about"] else ""
    samples = units.amount(content["samples"], "sample")
    told = f"{verdict[:1].upper()}{verdict[1:]}. Every rung against {truth} on {samples}{about}."
    return f"{told} {_correction(content['rungs'])}".rstrip()


def _correction(rungs: Rows) -> str:
    """What corrections gave back, or took; empty without them."""
    at = next((i for i, rung in enumerate(rungs) if rung["stage"] == "correct"), None)
    if not at:
        return ""
    before, after = _worst(rungs[at - 1]), _worst(rungs[at])
    verb = "gained" if after >= before else "lost"
    by = units.decibel(abs(after - before))
    return (
        f"Corrections {verb} {by}: {units.decibel(before)} before them, "
        f"{units.decibel(after)} after."
    )


def _rungs(rungs: Rows) -> str:
    columns = ["Rung", "Stage", "Verdict", "#Against the model", "#Own stage", "#At least"]
    columns += ["Why so much", "#Cosine", "#Largest error"]
    cells: list[Row] = []
    for rung in rungs[1:]:
        out = min(rung["outputs"], key=lambda o: float(o["figures"]["sqnr_db"]))["figures"]
        verdict, looks = _verdict(rung)
        cells.append(
            [
                name(rung["name"]),
                rung["stage"],
                Cell(verdict, looks=looks),
                number(units.decibel(out["sqnr_db"]), out["sqnr_db"]),
                number(units.decibel(rung["own_db"]), rung["own_db"]),
                number(units.decibel(rung["allowed_db"]), rung["allowed_db"]),
                words(rung["allowed_why"]),
                number(f"{out['cosine']:.6f}", out["cosine"]),
                number(units.plain(out["max_abs"]), out["max_abs"]),
            ]
        )
    return table("Stages", *filled(columns, cells))


def _verdict(rung: Mapping[str, Any]) -> tuple[str, str]:
    if rung["culprits"] or rung["own_db"] < rung["allowed_db"]:
        return "wrong", "bad"
    missed = [o for o in rung["outputs"] if _missed(o)]
    return ("below its gate", "bad") if missed else ("sound", "good")


def _missed(output: Mapping[str, Any]) -> bool:
    limit = output["limit_db"]
    return limit is not None and output["figures"]["sqnr_db"] < limit


def _culprits(rungs: Rows) -> list[str]:
    return [
        f"{rung['stage']}: {culprit['node']} ({culprit['operator']}): {culprit['why']}"
        for rung in rungs
        for culprit in rung["culprits"][:_WORST]
    ]


def _tensors(rung: Mapping[str, Any]) -> str:
    """The tensors of a rung that are furthest from the rung before, with their errors by size."""
    rows = sorted(rung["tensors"], key=lambda row: float(row["sqnr_db"]))[:_WORST]
    # scaled on purpose: inner values say nothing of the stage
    if not rows or rung["name"] == "equalized":
        return ""
    columns = ["Tensor", "Operator", "#SQNR", "#Cosine", "#Largest error", "#Of largest value"]
    columns += ["Errors by size, below 1e-8 to 10 and more"]
    cells: list[Row] = [
        [
            name(row["tensor"]),
            row["operator"],
            number(units.decibel(row["sqnr_db"]), row["sqnr_db"]),
            number(f"{row['cosine']:.6f}", row["cosine"]),
            number(units.plain(row["max_abs"]), row["max_abs"]),
            number(units.plain(row["max_rel"]), row["max_rel"]),
            _bars(row["counts"]),
        ]
        for row in rows
    ]
    count = units.amount(len(rung["tensors"]), "tensor")
    whole = table(f"Lowest of {count}, {rung['name']}", columns, cells, level=0)
    return folded(f"{rung['name']}: the lowest of {count} against {rung['against']}", whole)


def _bars(counts: Sequence[int]) -> str:
    """A histogram that fits into a cell: one block per decade."""
    top = max(counts, default=0)
    if not top:
        return ""
    blocks = " ▁▂▃▄▅▆▇█"
    return "".join(blocks[0 if c == 0 else 1 + round(7 * c / top)] for c in counts[:_DECADES])


def _worst(rung: Mapping[str, Any]) -> float:
    return min(float(out["figures"]["sqnr_db"]) for out in rung["outputs"])


def _shown(value: float) -> float:
    return max(0.0, min(value, _TOP_DB))


def _node(rung: Mapping[str, Any]) -> str:
    return escape(rung["culprits"][0]["node"]) if rung["culprits"] else ""


def _hover(rung: Mapping[str, Any]) -> str:
    own = f"own {units.decibel(rung['own_db'])}, at least {units.decibel(rung['allowed_db'])}"
    return escape(f"{rung['name']} ({rung['stage']}): {units.decibel(_worst(rung))}; {own}")
