from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.on_device.device_facts import clocks_now, command_output, device_facts

CLOCKS = {
    "cur_freq": "1377000000",
    "min_freq": "114750000",
    "max_freq": "1377000000",
    "governor": "nvhost_podgov",
}


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def xavier(root: Path) -> Path:
    gpu = {f"sys/class/devfreq/17000000.gv11b/{name}": f"{v}\n" for name, v in CLOCKS.items()}
    return written(
        root,
        {
            "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186\n",
            "proc/device-tree/model": "Jetson-AGX\0",
            "proc/device-tree/compatible": "nvidia,p2972-0000\0nvidia,tegra194\0",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "11.4.19"}}',
            "sys/class/thermal/thermal_zone1/type": "GPU-therm\n",
            "sys/class/thermal/thermal_zone1/temp": "41500\n",
            **gpu,
        },
    )


def jetson_tools(argv: Sequence[str]) -> str | None:
    return {
        "nvpmodel": "NV Fan Mode:quiet\nNV Power Mode: MODE_30W_ALL\n3\n",
        "dpkg-query": "5.1.2-b104",
        "jetson_clocks": "SOC family:tegra194  Machine:Jetson-AGX\nGPU MinFreq=114750000\n",
    }.get(argv[0])


def test_a_xavier(tmp_path: Path) -> None:
    facts = device_facts(xavier(tmp_path), jetson_tools)
    clocks = facts.pop("clocks")
    assert facts == {
        "name": "Jetson-AGX",
        "compute_capability": "7.2",
        "cuda": "11.4.19",
        "driver": "",
        "jetpack": "5.1.2-b104",
        "nvpmodel": "MODE_30W_ALL 3",
        "python": sys.version.split()[0],
    }
    assert clocks["devfreq"]["17000000.gv11b"] == {
        "cur_freq": 1377000000,
        "min_freq": 114750000,
        "max_freq": 1377000000,
        "governor": "nvhost_podgov",
    }
    assert clocks["jetson_clocks"][0].startswith("SOC family:tegra194")
    assert clocks["temperatures_c"] == {"GPU-therm": 41.5}


def test_without_the_package_jetson_linux_tells_its_release(tmp_path: Path) -> None:
    assert device_facts(xavier(tmp_path), lambda argv: None)["jetpack"] == "L4T 35.4.1"


def smi(argv: Sequence[str]) -> str | None:
    values = {
        "name": "NVIDIA H200",
        "driver_version": "570.124.06",
        "compute_cap": "9.0",
        "persistence_mode": "Enabled",
        "power.limit": "700.00",
        "power.draw": "[N/A]",
        "clocks.sm": "1980",
    }
    if argv[0] != "nvidia-smi":
        return None
    fields = argv[1].partition("=")[2].split(",")
    row = ", ".join(values.get(field, "[N/A]") for field in fields)
    return f"{row}\n{row}\n"


def test_a_card_in_a_pc(tmp_path: Path) -> None:
    facts = device_facts(tmp_path, smi)
    assert (facts["name"], facts["compute_capability"]) == ("NVIDIA H200", "9.0")
    assert facts["driver"] == "570.124.06"
    # what the card doesn't tell isn't there
    assert facts["clocks"] == {
        "nvidia_smi": {"persistence_mode": "Enabled", "power.limit": 700.0, "clocks.sm": 1980}
    }


def test_an_old_nvidia_smi_without_compute_cap(tmp_path: Path) -> None:
    def old(argv: Sequence[str]) -> str | None:
        return None if "compute_cap" in argv[1] else smi(argv)

    facts = device_facts(tmp_path, old)
    assert (facts["name"], facts["compute_capability"]) == ("NVIDIA H200", "")


def test_the_kernel_module_tells_the_driver(tmp_path: Path) -> None:
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC\n"
    written(tmp_path, {"proc/driver/nvidia/version": line})
    assert device_facts(tmp_path, lambda argv: None)["driver"] == "535.104.05"


def test_nothing_is_there(tmp_path: Path) -> None:
    facts = device_facts(tmp_path / "nowhere", lambda argv: None)
    assert {key: value for key, value in facts.items() if value} == {
        "python": sys.version.split()[0]
    }
    assert clocks_now(tmp_path / "nowhere", lambda argv: None) == {}


def test_unreadable_figures_stay_text(tmp_path: Path) -> None:
    written(tmp_path, {"sys/class/devfreq/gpu/cur_freq": "<busy>"})
    found = clocks_now(tmp_path, lambda argv: None)
    assert found == {"devfreq": {"gpu": {"cur_freq": "<busy>"}}}


def test_commands_that_cannot_run() -> None:
    assert command_output(("/nowhere/tool",)) is None
    assert command_output((sys.executable, "-c", "import sys; sys.exit(2)")) is None
    assert command_output((sys.executable, "-c", "print(7)")) == "7\n"
