"""What this device is and how it is clocked; whatever can't be found out is left out.

Nothing here can fail a run: a file that isn't there, a tool that isn't installed or wants root is
a fact that is missing.
"""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

_COMMAND_LIMIT_S = 20
# chips by the device tree's `compatible`: developer.nvidia.com/cuda-gpus; Thor is 10.1 in CUDA 12's
# count, 11.0 in CUDA 13's
_TEGRA_CAPABILITY = {
    "nvidia,tegra194": "7.2",
    "nvidia,tegra234": "8.7",
    "nvidia,tegra264": "11.0",
}
_DEVFREQ = ("cur_freq", "min_freq", "max_freq", "governor")
_SMI_FACTS = ("name", "driver_version")
_SMI_CLOCKS = (
    *("persistence_mode", "power.limit", "power.draw", "temperature.gpu"),
    *("clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem"),
)


class Command(Protocol):
    """A command's standard output; None when it can't be run or fails."""

    def __call__(self, argv: Sequence[str]) -> str | None: ...


def command_output(argv: Sequence[str]) -> str | None:
    """Standard output of a command; None when it isn't there, fails or takes too long."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_COMMAND_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def device_facts(root: Path = Path("/"), command: Command = command_output) -> dict[str, Any]:
    """Name, compute capability, CUDA, driver, JetPack, power mode and clocks; "" where unknown.

    root: where /etc, /proc and /sys are.
    """
    smi = _nvidia_smi(command, _SMI_FACTS)
    capability = _nvidia_smi(command, ("compute_cap",))
    tree = _text(root / "proc/device-tree/model")
    return {
        "name": smi.get("name") or tree,
        "compute_capability": capability.get("compute_cap") or _tegra_capability(root),
        "cuda": _cuda(root, command),
        "driver": smi.get("driver_version") or _kernel_driver(root),
        "jetpack": _jetpack(root, command),
        "nvpmodel": _power_mode(command),
        "clocks": clocks_now(root, command),
        "python": platform.python_version(),
    }


def clocks_now(root: Path = Path("/"), command: Command = command_output) -> dict[str, Any]:
    """Clocks as they are at this moment: Jetson's device frequencies in Hz and jetson_clocks's
    lines, or nvidia-smi's figures in MHz, W and degrees Celsius; only what there is."""
    found: dict[str, Any] = {}
    frequencies = {}
    for folder in _folders(root / "sys/class/devfreq"):
        row = {name: _text(folder / name) for name in _DEVFREQ}
        frequencies[folder.name] = {name: _number(text) for name, text in row.items() if text}
    if frequencies:
        found["devfreq"] = frequencies
    shown = command(("jetson_clocks", "--show"))
    if shown:
        found["jetson_clocks"] = [line.strip() for line in shown.splitlines() if line.strip()]
    smi = _nvidia_smi(command, _SMI_CLOCKS)
    if smi:
        found["nvidia_smi"] = {name: _number(value) for name, value in smi.items()}
    degrees = _temperatures(root)
    if degrees:
        found["temperatures_c"] = degrees
    return found


def _nvidia_smi(command: Command, fields: Sequence[str]) -> dict[str, str]:
    """The first GPU's figures; an old driver that doesn't know a field gives none."""
    argv = ("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    lines = (command(argv) or "").splitlines()
    values = [value.strip() for value in lines[0].split(",")] if lines else []
    if len(values) != len(fields):
        return {}
    known = dict(zip(fields, values))
    return {name: value for name, value in known.items() if not value.startswith("[")}


def _tegra_capability(root: Path) -> str:
    compatible = _text(root / "proc/device-tree/compatible")
    chips = (sm for chip, sm in _TEGRA_CAPABILITY.items() if chip in compatible)
    return next(chips, "")


def _cuda(root: Path, command: Command) -> str:
    for name in ("version.json", "version.txt"):
        text = _text(root / "usr/local/cuda" / name)
        found = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', text) or re.search(
            r"CUDA Version ([\d.]+)", text
        )
        if found:
            return found.group(1)
    found = re.search(r"release ([\d.]+)", command(("nvcc", "--version")) or "")
    return found.group(1) if found else ""


def _kernel_driver(root: Path) -> str:
    text = _text(root / "proc/driver/nvidia/version")
    found = re.search(r"Kernel Module[^\n]*?\s(\d+\.\d+(?:\.\d+)?)\s", text + " ")
    return found.group(1) if found else ""


def _jetpack(root: Path, command: Command) -> str:
    """JetPack's version where its package is installed, else Jetson Linux's: "L4T 35.4.1"."""
    query = ("dpkg-query", "--showformat=${Version}", "--show", "nvidia-jetpack")
    installed = (command(query) or "").strip()
    if installed:
        return installed
    text = _text(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return f"L4T {found.group(1)}.{found.group(2)}" if found else ""


def _power_mode(command: Command) -> str:
    text = command(("nvpmodel", "-q")) or ""
    found = re.search(r"NV Power Mode:\s*(\S+)\s*(\d*)", text)
    return " ".join(part for part in found.groups() if part) if found else ""


def _temperatures(root: Path) -> dict[str, float]:
    found = {}
    for zone in _folders(root / "sys/class/thermal"):
        kind, reading = _text(zone / "type"), _number(_text(zone / "temp"))
        if kind and isinstance(reading, (int, float)):
            found[kind] = reading / 1000
    return found


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError:
        return ""
    return data.decode("utf-8", "replace").replace("\0", " ").strip()


def _number(text: str) -> int | float | str:
    """The number a text spells, or the text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
