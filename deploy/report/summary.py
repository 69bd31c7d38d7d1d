"""The first screen: did it pass, how exact, how fast, how large, and how far that was proven."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from deploy.artifacts.precision import missed_gate
from deploy.bench import Comparison, compared
from deploy.report import units
from deploy.report.ladder import broken_stage
from deploy.report.table import bullets, paragraph
from deploy.report.task import labelled, of_task, task_value
from deploy.target import QUANTIZED

Content = Mapping[str, Any]


def summary(content: Content) -> dict[str, str]:
    """The values of page.html's summary; never a word that the content doesn't carry."""
    said, parity = content["summary"], content["parity"]
    passed = bool(said["passed"])
    tiles = [
        _accuracy(said["accuracy"], judged(content)),
        _agreement(said, parity),
        _speed(content),
        _size(content),
    ]
    return {
        "model": escape(said["model"]),
        "target": escape(f"{said['target']}, {said['precision']}"),
        "verdict": "Passed" if passed else "FAILED",
        "verdict_looks": "good" if passed else "bad",
        "built": escape(_built(content)),
        "lead": escape(_lead(content)),
        "missed": bullets(_missed(gate) for gate in parity["gates"] if not gate["passed"]),
        "tiles": "\n".join(_tile(*tile) for tile in tiles if tile is not None),
        "caution": paragraph(broken_stage(content), "caution")
        + paragraph(slower(content), "caution"),
        "warnings": bullets(map(_sentence, _cautions(content))),
        "evidence": bullets(said["evidence"]),
    }


def slower(content: Content) -> str:
    """One sentence when another precision is as fast as the engine that was built; else ""."""
    found = beside(content)
    if found is None:
        return ""
    precision = content["summary"]["precision"]
    text = found.words(precision)
    # a tie is news only for 8 bits, which costs accuracy
    if not text or (found.tie and precision not in QUANTIZED):
        return ""
    tried = (content["measured"]["tried"] or {}).get("tried", ())
    if missed := missed_gate(found.other, {row["name"]: row["outcome"] for row in tried}):
        return f"{text}, which {missed}"
    if on_target(content):
        return f"{text}: consider --{found.other}"
    return f"{text}: time both on the target, and consider --{found.other}"


def beside(content: Content) -> Comparison | None:
    """The engine against the fastest other candidate of the same run."""
    rows = content["measured"]["latency"]
    medians = {name: row["median_ms"] for name, row in rows.items()}
    return compared(medians, content["summary"]["precision"])


def at_least(gate: Mapping[str, Any]) -> bool:
    """Whether the limit is a lower one: what held lies above it, or what missed lies below."""
    if gate["observed"] == gate["limit"]:
        return not any(word in gate["name"] for word in (" drop ", " rise ", "disagreement"))
    return bool((gate["observed"] > gate["limit"]) == gate["passed"])


def limit(gate: Mapping[str, Any]) -> str:
    """The threshold in words."""
    return f"{'at least' if at_least(gate) else 'at most'} {gate['limit']:g}"


def observed(gate: Mapping[str, Any]) -> str:
    """Enough digits to tell it from the limit."""
    value, wanted = gate["observed"], gate["limit"]
    near = (d for d in (2, 4, 6) if value == wanted or round(value, d) != round(wanted, d))
    return f"{value:.{next(near, 9)}f}"


def on_target(content: Content) -> bool:
    """Whether the figures were measured on the target itself."""
    return bool(content["target"].get("host"))


def _cautions(content: Content) -> list[str]:
    """What the build warned of, without the parity ladder's verdict, which has its own place."""
    ladder = content.get("ladder") or {}
    return [
        text for text in content["summary"].get("cautions", []) if text != ladder.get("verdict")
    ]


def _sentence(text: str) -> str:
    # one that starts with a flag or a name keeps it as it is written
    first = text if text[:1] in "-'" else f"{text[:1].upper()}{text[1:]}"
    return first if first.endswith(".") else f"{first}."


def _built(content: Content) -> str:
    measured = content["measured"]
    created = str(measured["created"]).replace("T", " ").replace("+00:00", " UTC")
    return f"Built {created} on {measured['machine']}"


def _lead(content: Content) -> str:
    said, gates = content["summary"], content["parity"]["gates"]
    missed = sum(not gate["passed"] for gate in gates)
    device = content["device"]
    simulated = device is not None and device["absent"]
    what = "graph, simulated here," if simulated else "engine"
    engine = f"The {said['precision']} {what} for {said['target_title']}"
    if not gates:
        return f"{engine} was compared with float32; no gate was set, so nothing could be missed."
    if not missed:
        which = {1: "the one gate", 2: "both gates"}.get(len(gates), f"all {len(gates)} gates")
        return f"{engine} meets {which} that {'was' if len(gates) == 1 else 'were'} set."
    which = "the one gate" if len(gates) == 1 else f"{missed} of {len(gates)} gates"
    return f"{engine} misses {which} that {'was' if len(gates) == 1 else 'were'} set:"


def _missed(gate: Mapping[str, Any]) -> str:
    return f"{gate['name']}: observed {observed(gate)}, limit {limit(gate)} ({gate['origin']})"


def _tile(title: str, figure: str, text: str) -> str:
    return (
        f'<div class="tile"><dt>{escape(title)}</dt>'
        f"<dd><strong>{escape(figure)}</strong><span>{escape(text)}</span></dd></div>"
    )


def judged(content: Content) -> str:
    """What accuracy and gates are of: the engine, or the simulation where its device isn't."""
    device = content["device"]
    return "simulation" if device is not None and device["absent"] else "engine"


def _accuracy(task: Mapping[str, Any] | None, what: str) -> tuple[str, str, str] | None:
    if task is None:
        return None
    text = (
        f"float32 {task_value(task, 'reference_pct')} to {what} "
        f"{task_value(task, 'engine_pct')}: {'rise' if task.get('rises') else 'drop'} "
        f"{task['drop']:.2f} ± {task['drop_error']:.2f} "
        f"points on {labelled(task)}"
    )
    title = "Accuracy, top-1" if task.get("kind", "classify") == "classify" else of_task(task)
    return title, task_value(task, "engine_pct"), text


def _agreement(said: Mapping[str, Any], parity: Mapping[str, Any]) -> tuple[str, str, str]:
    scored = [o for o in parity["outputs"] if o["top1_agreement_pct"] is not None]
    text = f"SQNR on {units.amount(parity['samples'], 'sample')}"
    if len(parity["outputs"]) > 1:
        text += ", of the weakest output"
    for row in scored[:1]:
        text += f"; top-1 agreement {units.percent(row['top1_agreement_pct'])}"
        if row["top5_agreement_pct"] is not None:
            text += f", top-5 {units.percent(row['top5_agreement_pct'])}"
    own = parity.get("predictions")
    if own and own["kind"] != "classify":
        text += f"; {own['metric']} {units.percent(own['agreement_pct'])}"
    if said["accuracy"] is None:
        text += ". Accuracy was not measured"
    return "Fidelity to float32", units.decibel(said["sqnr_db"]), text


def _speed(content: Content) -> tuple[str, str, str] | None:
    rows = content["measured"]["latency"]
    precision = content["summary"]["precision"]
    if precision not in rows:
        return None
    found = beside(content)
    text = "median per call"
    if found is not None:
        other, times = found.other, found.times
        text += (
            f", {units.ratio(times)} the speed of {other}, the fastest other float engine"
            f" ({units.ms(rows[other]['median_ms'])})"
        )
        if precision in QUANTIZED:
            text = text.replace("other float", "float")
        if other != "fp32" and "fp32" in rows and precision != "fp32":
            text += (
                f"; {units.ratio(rows['fp32']['median_ms'] / rows[precision]['median_ms'])} fp32"
            )
    if not on_target(content):
        text += "; on this machine, not on the target"
    return "Latency", units.ms(rows[precision]["median_ms"]), text


def _size(content: Content) -> tuple[str, str, str]:
    model, engine = content["sizes"]["model"], content["sizes"]["engine"]
    built = content["sizes"]["what"] == "engine folder"
    return (
        "Engine on disk" if built else "Model for the device",
        units.size(engine),
        f"from {units.size(model)}, {smaller(model, engine)}",
    )


def smaller(model: int, engine: int) -> str:
    """How the engine's size compares with the model's, in words."""
    if not engine or not model:
        return "nothing to compare"
    if abs(model - engine) / model < 0.05:
        return "about the same size"
    if engine < model:
        return f"{units.ratio(model / engine)} smaller"
    return f"{units.ratio(engine / model)} the size"
