"""A task's figures in words: what is predicted, between the two and against labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.report import units

Row = Mapping[str, Any]


def of_task(task: Row) -> str:
    """The metric as a sentence begins with it; bundles from before other tasks know one."""
    metric = str(task.get("metric", "top-1 accuracy"))
    return metric[0].upper() + metric[1:]


def task_value(task: Row, key: str) -> str:
    """A value of the metric, with its unit."""
    return units.percent(task[key]) if task.get("unit", "%") == "%" else f"{task[key]:.2f}"


def labelled(task: Row) -> str:
    """How much the metric is of, such as "500 labelled pairs"."""
    return units.amount(task["samples"], f"labelled {task.get('counted', 'sample')}")


def figures(row: Row) -> str:
    """What else was measured, as the rest of a sentence; of float32 and the engine, or of both."""
    return "".join(f"; {_figure(each)}" for each in row.get("figures", ()))


def agreed(predictions: Row | None) -> str:
    """How far both predict the same, as a sentence; "" for classes, which a table shows."""
    if not predictions or predictions["kind"] == "classify":
        return ""
    metric = predictions["metric"]
    return (
        f"{metric[0].upper()}{metric[1:]} with float32 is "
        f"{units.percent(predictions['agreement_pct'])} on "
        f"{units.amount(predictions['samples'], 'sample')}{figures(predictions)}."
    )


def _figure(each: Row) -> str:
    values = [each[key] for key in ("reference", "engine") if each[key] is not None]
    if each["unit"] == "%":
        shown = [units.percent(value) for value in values]
    else:
        shown = [f"{v:,}" if isinstance(v, int) else f"{v:.4f}" for v in values]
    return f"{each['name']} {' to '.join(shown)}"
