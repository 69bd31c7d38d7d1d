"""`deploy --help` against `python -c "import click"`: interleaved, as a ratio of medians.

    python benchmarks/startup.py

Must hold: the ratio is at most 2.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import describe

_ROUNDS = 40


def main() -> None:
    beside = Path(sys.executable).with_name("deploy")
    deploy = str(beside) if beside.is_file() else shutil.which("deploy")
    if deploy is None:
        sys.exit("no `deploy` beside this Python; pip install -e . first")
    commands = {
        "deploy --help": [deploy, "--help"],
        "import click": [sys.executable, "-c", "import click"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        subprocess.run(command, check=True, capture_output=True)
    for _ in range(_ROUNDS):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    print(describe())
    medians = {name: statistics.median(seen) for name, seen in times.items()}
    for name, median in medians.items():
        print(f"{name:<14} {median * 1e3:6.1f} ms (median of {_ROUNDS})")
    print(f"ratio          {medians['deploy --help'] / medians['import click']:6.2f} (at most 2)")


if __name__ == "__main__":
    main()
