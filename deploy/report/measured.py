"""The sections about what was measured: accuracy, speed and layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from deploy.report import units
from deploy.report.summary import Content, judged, limit, observed, on_target, slower, smaller
from deploy.report.table import Cell, Row, bullets, folded, name, number, paragraph, table
from deploy.report.task import agreed, figures, labelled, of_task, task_value

Rows = Sequence[Mapping[str, Any]]

_NAMED = 5
_PREDICTED = (
    ("reference_said", "float32"),
    ("engine_said", "Engine"),
    ("truth_said", "Truth"),
)
# how gates on a task's metric end
_LOSSES = (" drop (points)", " rise (points)")


def accuracy(content: Content) -> dict[str, str]:
    """How far the engine's outputs lie from float32, and the gates that judge it."""
    parity = content["parity"]
    disagreements = parity["disagreements"]
    kind = (parity.get("predictions") or {}).get("kind", "classify")
    what = "class" if kind == "classify" else "prediction"
    title = f"Samples with another {what} ({len(disagreements)} listed)"
    return {
        "judged": paragraph(
            f"The {judged(content)} against the untouched model in float32 on "
            f"{units.amount(parity['samples'], 'sample')} ({parity['about']})."
        ),
        "task": paragraph(_task(parity, judged(content))),
        "outputs": _outputs(parity["outputs"]),
        "gates": _gates(parity["gates"]),
        "worst": _samples("Lowest SQNR among the samples", parity["worst"]),
        "disagreements": _samples(title, disagreements),
    }


def speed(content: Content) -> dict[str, str]:
    """Latency of every candidate and the sizes on disk."""
    rows = content["measured"]["latency"]
    sizes = content["sizes"]
    stored: list[Row] = [
        ["model.onnx, as it came", number(units.size(sizes["model"]), sizes["model"]), ""],
        [
            sizes["what"],
            number(units.size(sizes["engine"]), sizes["engine"]),
            smaller(sizes["model"], sizes["engine"]),
        ],
    ]
    return {
        "speed_how": paragraph(_how(content)),
        "slower": paragraph(slower(content), "caution"),
        "latency": _latency(rows, content["summary"]["precision"]),
        "latency_figure": "latency" if rows else "",
        "sizes": table("Size", ["File", "#Bytes", "Compared"], stored),
    }


def layers(content: Content) -> dict[str, str]:
    """Where noise enters, and what the vendor really executes."""
    errors, executed = content["layer_errors"], content["layers"]
    counts = Counter(layer["precision"] for layer in executed).most_common()
    counts.sort(key=lambda pair: pair[0] in ("f32", "FP32"))
    words = [f"{count:,} of {len(executed):,} layers run in {kind}" for kind, count in counts[:1]]
    words += [f"{count:,} in {kind}" for kind, count in counts[1:]]
    rows: list[Row] = [
        [name(row["name"]), row["kind"], row["precision"], name(row["kernel"]), name(_joined(row))]
        for row in executed
    ]
    columns = ["Layer", "Kind", "Precision", "Kernel", "Made from"]
    whole = table("Executed layers", columns, rows, level=0)
    return {
        "layer_figure": "layers" if errors else "",
        "no_layer_figure": "" if errors else "yes",
        "entered": bullets(_entered(errors)),
        "lowest": _lowest(errors),
        "executed_words": paragraph(f"{', '.join(words)}." if words else ""),
        "executed": folded(f"All {len(rows):,} executed layers", whole) if rows else "",
        "not_executed": "" if rows else "yes",
    }


def _task(parity: Mapping[str, Any], what: str) -> str:
    task = parity["task"]
    said = agreed(parity.get("predictions"))
    if task is None and parity.get("labelled"):
        why = (
            "The samples carry labels, but no output is known to hold one score per class, so "
            "accuracy was not measured; --scores NAME says which does, or --task what else the "
            "model is for."
        )
        return f"{said} No label fits this task." if said else why
    if task is None:
        return f"{said} The samples carry no labels, so accuracy was not measured.".strip()
    error = f"with a standard error of {task['drop_error']:.2f}"
    text = (
        f"{of_task(task)} goes from {task_value(task, 'reference_pct')} in float32 to "
        f"{task_value(task, 'engine_pct')} in the {what}: a "
        f"{'rise' if task.get('rises') else 'drop'} of {task['drop']:.2f} points {error}, on "
        f"{labelled(task)}{figures(task)}."
    )
    limits = [g["limit"] for g in parity["gates"] if g["name"].endswith(_LOSSES)]
    if any(task["drop_error"] > abs(limit) for limit in limits):
        text += (
            " The standard error is larger than the limit on the drop: more labelled samples are "
            "needed to tell a real drop of that size from chance."
        )
    return f"{text} {said}".strip()


def _outputs(rows: Rows) -> str:
    columns = ["Output", "#SQNR", "#Cosine", "#Largest error", "#Largest value"]
    scored = any(row["top1_agreement_pct"] is not None for row in rows)
    return table(
        "Outputs",
        columns + ["#Top-1 agreement", "#Top-5 agreement"] * scored,
        [_output(row, scored) for row in rows],
    )


def _output(row: Mapping[str, Any], scored: bool) -> Row:
    cells = [
        name(row["name"]),
        number(units.decibel(row["sqnr_db"]), row["sqnr_db"]),
        number(f"{row['cosine']:.5f}", row["cosine"]),
        number(units.plain(row["max_abs"]), row["max_abs"]),
        number(units.plain(row["reference_max"]), row["reference_max"]),
    ]
    if scored:
        both = (row["top1_agreement_pct"], row["top5_agreement_pct"])
        cells += [Cell("") if v is None else number(units.percent(v), v) for v in both]
    return cells


def _gates(rows: Rows) -> str:
    if not rows:
        return paragraph("No gate was set: neither the target nor the recipe has one.")
    cells: list[Row] = [
        [
            row["name"],
            limit(row),
            number(observed(row), row["observed"]),
            Cell("met", looks="good") if row["passed"] else Cell("MISSED", looks="bad"),
            row["origin"],
        ]
        for row in rows
    ]
    return table("Gates", ["Gate", "#Limit", "#Observed", "Result", "Set by"], cells)


def _samples(title: str, rows: Rows) -> str:
    """Samples that stand out; columns that no task filled are left out."""
    own = [(key, word) for key, word in _PREDICTED if any(row.get(key) for row in rows)]
    classes = any(row["reference_class"] is not None for row in rows)
    labels = any(row["label"] is not None for row in rows)
    columns = ["Sample", "#SQNR", *["#float32 class", "#Engine class"] * classes]
    cells: list[Row] = []
    for row in rows:
        shown = [name(row["name"]), number(units.decibel(row["sqnr_db"]), row["sqnr_db"])]
        shown += [_class(row[key]) for key in ("reference_class", "engine_class") if classes]
        shown += [_class(row["label"])] * labels
        cells.append([*shown, *(name(row.get(key) or "") for key, _ in own)])
    return table(title, [*columns, *["#Label"] * labels, *(word for _, word in own)], cells)


def _class(value: int | None) -> Cell:
    return Cell("") if value is None else number(str(value), value)


def _how(content: Content) -> str:
    rows = content["measured"]["latency"]
    if not rows:
        return "Nothing was timed in this build."
    rounds = max(row["rounds"] for row in rows.values())
    machine = content["measured"]["machine"]
    clock = ", by the GPU's own clock" if any(r.get("of_device") for r in rows.values()) else ""
    text = (
        f"Measured on {machine}{clock}, one call at a time, {units.amount(rounds, 'round')}. All "
        "candidates were interleaved in one run, so their ratios can be trusted more than the "
        "milliseconds, which drift with whatever else the machine does."
    )
    if not on_target(content):
        text += f" This machine is not the target ({content['summary']['target_title']})."
    return text


def _latency(rows: Mapping[str, Mapping[str, float]], chosen: str) -> str:
    base = rows["fp32"]["median_ms"] if "fp32" in rows else None
    cells: list[Row] = []
    for key in sorted(rows, key=lambda key: (rows[key]["median_ms"], key)):
        row = rows[key]
        times = [number(units.ms(row[q]), row[q]) for q in ("median_ms", "p90_ms", "p99_ms")]
        if base:
            times.append(number(units.ratio(base / row["median_ms"]), base / row["median_ms"]))
        cells.append([f"{key} (this engine)" if key == chosen else key, *times])
    columns = ["Candidate", "#Median", "#p90", "#p99"]
    return table("Latency", columns + ["#Speed against fp32"] * bool(base), cells)


def _entered(rows: Rows) -> list[str]:
    """The tensors at which the noise, as a part of the signal, grows most."""
    noise = [10 ** (-row["sqnr_db"] / 10) for row in rows]
    grown = [(now - (noise[i - 1] if i else 0.0), i) for i, now in enumerate(noise)]
    worst = sorted(grown, key=lambda pair: (-pair[0], pair[1]))[:_NAMED]
    said = []
    for growth, i in worst:
        if growth <= 0:
            break
        before = units.decibel(rows[i - 1]["sqnr_db"]) if i else "the exact input"
        now = units.decibel(rows[i]["sqnr_db"])
        said.append(f"{rows[i]['tensor']} ({rows[i]['operator']}): {before} to {now}")
    return said


def _lowest(rows: Rows) -> str:
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["sqnr_db"], i))[:_NAMED]
    cells: list[Row] = [
        [
            name(rows[i]["tensor"]),
            rows[i]["operator"],
            number(units.decibel(rows[i]["sqnr_db"]), rows[i]["sqnr_db"]),
            number(f"{rows[i]['cosine']:.4f}", rows[i]["cosine"]),
        ]
        for i in order
    ]
    return table("Lowest SQNR along the graph", ["Tensor", "Operator", "#SQNR", "#Cosine"], cells)


def _joined(layer: Mapping[str, Any]) -> str:
    sources = [source for source in layer["fused_from"] if source != layer["name"]]
    return ", ".join(sources)
