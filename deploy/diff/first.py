"""Which of the differences between two bundles matter, the weightiest first, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deploy.report import units
from deploy.report.map_words import TYPES

# of the results, what a user of the engine would notice
_DECIBEL = 1.0
_SIZE = 0.05
_BREAK = 3.0
_NAMED = 3
# rows of what went in that have a sentence of their own
_SAID = (("model", "sha256"), ("target", "name"), ("recipe", "precision"))

Found = Mapping[str, Any]


def first(found: Found) -> list[dict[str, str]]:
    """Rows of {kind, looks, text}; looks is good, bad or empty. Never empty itself."""
    rows = [
        *_verdict(found),
        *_comparable(found),
        *_accuracy(found["results"]),
        *_latency(found),
        *_sqnr(found["results"]),
        *_size(found["results"]),
        *_types(found["decisions"]),
        *_inputs(found["inputs"]),
        *_ranges(found["decisions"]),
    ]
    if not rows:
        return [_row("nothing", "Nothing that counts differs.")]
    if not found["inputs"]["same_model"]:
        return [_row(row["kind"], row["text"]) for row in rows]
    return rows


def _row(kind: str, text: str, looks: str = "") -> dict[str, str]:
    return {"kind": kind, "looks": looks, "text": text}


def _verdict(found: Found) -> Iterator[dict[str, str]]:
    old, new = found["before"]["passed"], found["after"]["passed"]
    if old != new:
        said = "passed and the second failed" if old else "failed and the second passed"
        yield _row("verdict", f"The first {said} its gates.", "bad" if old else "good")
    missed = [g["name"] for g in found["results"]["gates"] if g["after"] and _newly(g)]
    if missed:
        yield _row("gates", f"Missed now: {_listed(missed)}.", "bad")


def _newly(gate: Found) -> bool:
    return not gate["after"]["passed"] and (gate["before"] is None or gate["before"]["passed"])


def _comparable(found: Found) -> Iterator[dict[str, str]]:
    went_in = found["inputs"]
    if not went_in["same_model"]:
        yield _row(
            "model", "Two different models: what came out shows two engines, not one that changed."
        )
    elif not went_in["same_samples"]:
        yield _row(
            "samples",
            "Judged on different samples: accuracy and SQNR can differ by that alone.",
        )
    for key, said in (("target", "For another device"), ("precision", "Another precision")):
        old, new = found["before"][key], found["after"][key]
        if old != new:
            yield _row(key, f"{said}: {old}, then {new}.")


def _accuracy(results: Found) -> Iterator[dict[str, str]]:
    task = results["accuracy"]
    if task is not None and task["beyond_noise"]:
        text = (
            f"Accuracy went from {units.percent(task['before'])} to "
            f"{units.percent(task['after'])}, more than chance explains (± {task['error']:.2f} "
            "points)."
        )
        yield _row("accuracy", text, "good" if task["change"] > 0 else "bad")


def _latency(found: Found) -> Iterator[dict[str, str]]:
    speed = found["results"]["latency"]
    if speed is None:
        return
    if not found["inputs"]["same_model"]:
        yield _row(
            "latency", f"Latency: {units.ms(speed['before'])} and {units.ms(speed['after'])}."
        )
    elif not found["inputs"]["same_machine"]:
        yield _row("latency", "Timed on different machines: the latencies don't compare.")
    elif speed["beyond_noise"]:
        times = speed["times"]
        how = f"{units.ratio(times)} the speed of the first"
        text = f"The second engine has {how}: {latency_words(speed)}."
        yield _row("latency", text, "good" if times > 1 else "bad")


def latency_words(speed: Found) -> str:
    """Both latencies, and what of their difference counts."""
    text = f"{units.ms(speed['before'])} and {units.ms(speed['after'])}"
    if speed["noise"] is None:
        return f"{text}, on different machines"
    if speed["ratios"] is None:
        return (
            f"{text}, of two runs without a common engine, which differ by up to "
            f"{100 * speed['noise']:.0f} % for no reason"
        )
    ratios = " and ".join(units.ratio(value) for value in speed["ratios"])
    how = f"{ratios} the speed of {speed['against']} in the same run"
    return f"{text}; {how}, noise {100 * speed['noise']:.0f} %"


def _sqnr(results: Found) -> Iterator[dict[str, str]]:
    if not results["comparable"]:
        return
    for row in results["outputs"]:
        if abs(row["change"]) >= _DECIBEL:
            text = (
                f"SQNR of {row['output']} went from {units.decibel(row['before'])} to "
                f"{units.decibel(row['after'])}"
            )
            start = _begins(results["layers"], row["change"])
            text += f"; along the graph it differs from {start} on." if start else "."
            yield _row("sqnr", text, "good" if row["change"] > 0 else "bad")


def _begins(layers: list[Found], change: float) -> str:
    """The first tensor that differs clearly, in the same direction; empty for none."""
    sign = 1 if change > 0 else -1
    return next((str(row["tensor"]) for row in layers if sign * row["change"] > _BREAK), "")


def _size(results: Found) -> Iterator[dict[str, str]]:
    old, new = results["size"]["before"], results["size"]["after"]
    if old and abs(new - old) / old >= _SIZE:
        text = f"Size: {units.size(old)} and {units.size(new)} ({units.ratio(new / old)})."
        yield _row("size", text, "good" if new < old else "bad")


def _types(decisions: Found) -> Iterator[dict[str, str]]:
    changed: dict[tuple[str, str], list[str]] = {}
    for row in decisions["types"]:
        changed.setdefault((row["before"], row["after"]), []).append(row["layer"])
    for (old, new), layers in changed.items():
        kinds = f"{TYPES.get(old, old)} to {TYPES.get(new, new)}"
        text = f"{units.amount(len(layers), 'layer')} went from {kinds}: {_listed(layers)}."
        yield _row("types", text)
    engines = decisions["engines"]
    if all(engines) and engines[0]["name"] != engines[1]["name"]:
        text = f"Another placement was chosen: “{engines[0]['name']}”, then “{engines[1]['name']}”."
        yield _row("placement", text)


def _inputs(inputs: Found) -> Iterator[dict[str, str]]:
    """What went in differently, one row per kind."""
    kinds: dict[str, list[str]] = {}
    for row in inputs["changed"]:
        if (row["what"], row["name"]) in _SAID:
            continue
        values = f"{row['before'] or 'none'} → {row['after'] or 'none'}"
        kinds.setdefault(row["what"], []).append(f"{row['name']}: {values}")
    for kind, rows in kinds.items():
        if kind != "machine":
            other = "Other" if kind in ("tools", "data") else "Another"
            yield _row(kind, f"{other} {kind}: {_listed(rows, '; ')}.")


def _ranges(decisions: Found) -> Iterator[dict[str, str]]:
    rows = decisions["ranges"]
    if rows:
        far = rows[0]
        text = (
            f"{units.amount(len(rows), 'range')} moved, that of {far['tensor']} farthest, by "
            f"{units.share(far['moved'])} of its width."
        )
        yield _row("ranges", text)


def _listed(names: list[str], joint: str = ", ") -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return joint.join(names[:_NAMED]) + more
