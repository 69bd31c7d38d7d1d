"""Whether kernels of ours pay on this device: of two engines the faster one that passes."""

from __future__ import annotations

from typing import Any

from deploy.on_device.engine_trial import Trial
from deploy.on_device.latency_check import TIE


def with_plugins(ours: Trial, plain: Trial) -> tuple[bool, str]:
    """Whether the engine with plugins is the one to keep, and why; equal ones do without.

    The GPU's time decides where both have it: the host's has Python's in it.
    """
    if ours.error or plain.error:
        kept = not ours.error
        lost = plain if kept else ours
        return kept, f"no engine {lost.label}: {lost.error}"
    if not ours.passed or not plain.passed:
        kept = ours.passed
        lost = plain if kept else ours
        also = "" if ours.passed or plain.passed else "; nor does the one without them"
        return kept, f"the engine {lost.label} doesn't pass ({lost.problems[0]}){also}"
    old, new, of = _medians(ours.rows["latency"], plain.rows["latency"])
    figures = f"{new:.3f} ms with them, {old:.3f} ms without ({of})"
    if new < old * (1 - TIE):
        return True, f"{figures}, {100 * (1 - new / old):.0f} % less"
    if new <= old * (1 + TIE):
        return False, f"{figures}, equal within {100 * TIE:.0f} %"
    return False, f"{figures}, {100 * (new / old - 1):.0f} % more"


def _medians(ours: dict[str, Any], plain: dict[str, Any]) -> tuple[float, float, str]:
    """Without plugins, with them, and by which clock."""
    told = ours["gpu_median_ms"] and plain["gpu_median_ms"]
    key, of = ("gpu_median_ms", "GPU time") if told else ("median_ms", "wall time")
    return plain[key], ours[key], f"median {of}"


def choice_row(
    plugins: bool, reason: str, ours: Trial | None = None, plain: Trial | None = None
) -> dict[str, Any]:
    """What the report says of it; None for an engine that wasn't tried."""
    return {
        "chosen": "with plugins" if plugins else "without",
        "reason": reason,
        "with": _tried(ours),
        "without": _tried(plain),
    }


def _tried(trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    latency, parity = trial.rows["latency"] or {}, trial.rows["parity"] or {"outputs": []}
    worst: dict[str, Any] = min(
        parity["outputs"], key=lambda row: float(row["sqnr_db"]), default={}
    )
    return {
        "median_ms": latency.get("median_ms"),
        "gpu_median_ms": latency.get("gpu_median_ms"),
        "sqnr_db": worst.get("sqnr_db"),
        "simulated_sqnr_db": worst.get("simulated_sqnr_db"),
        "passed": trial.passed,
        "problems": [trial.error] if trial.error else list(trial.problems),
    }
