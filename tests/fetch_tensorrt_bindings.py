"""Fetch real TensorRT Python bindings for the opt-in tests: names and signatures, no library.

    python tests/fetch_tensorrt_bindings.py DEST --accept-nvidia-license [VERSION ...]
    TENSORRT_BINDINGS=DEST python -m pytest tests/deploy/on_device/test_contract.py

The wheels are under NVIDIA's licence (LICENSE.txt in each): downloading them means accepting it,
and nothing of them may be committed or given away. They come from the package index that pip is
configured for, DEST/<major.minor.patch>/ gets the Python files and the extension; of the 549 MB
of 8.5.2.2 only these stay. Importing them needs the Python of `PYTHON` below and a C compiler, see
`stubbed_tensorrt`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PYTHON = "3.10"  # the newest that every version below has a wheel for
WHEELS = {
    "8.5.2": "tensorrt==8.5.2.2",  # the first of the bindings' own wheels is 8.6.1
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.0.1": "tensorrt-cu12-bindings==10.0.1",
    "10.1.0": "tensorrt-cu12-bindings==10.1.0",
    "10.2.0": "tensorrt-cu12-bindings==10.2.0",
    "10.3.0": "tensorrt-cu12-bindings==10.3.0",
    "10.4.0": "tensorrt-cu12-bindings==10.4.0",
    "10.5.0": "tensorrt-cu12-bindings==10.5.0",
    "10.6.0": "tensorrt-cu12-bindings==10.6.0",
    "10.7.0": "tensorrt-cu12-bindings==10.7.0",
    "10.8.0": "tensorrt-cu12-bindings==10.8.0.43",
    "10.9.0": "tensorrt-cu12-bindings==10.9.0.34",
    "10.10.0": "tensorrt-cu12-bindings==10.10.0.31",
    "10.11.0": "tensorrt-cu12-bindings==10.11.0.33",
    "10.12.0": "tensorrt-cu12-bindings==10.12.0.36",
    "10.13.3": "tensorrt-cu12-bindings==10.13.3.9",
    "10.14.1": "tensorrt-cu12-bindings==10.14.1.48.post1",
    "10.15.1": "tensorrt-cu12-bindings==10.15.1.29",
    "10.16.1": "tensorrt-cu12-bindings==10.16.1.11",
    "11.0.0": "tensorrt-cu12-bindings==11.0.0.114",
    "11.1.0": "tensorrt-cu12-bindings==11.1.0.106",
    "11.2.1": "tensorrt-cu12-bindings==11.2.1.2",
    "11.3.0": "tensorrt-cu12-bindings==11.3.0.99",
    "11.4.0": "tensorrt-cu12-bindings==11.4.0.106",
    "rtx-1.7.1": "tensorrt-rtx-cu12-bindings==1.7.1.116",
}
TESTED = ("8.5.2", "8.6.1", "10.3.0", "10.13.3", "10.16.1", "11.4.0", "rtx-1.7.1")
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux_2_28_x86_64")


def fetch(version: str, dest: Path, python: str = PYTHON) -> Path:
    """The folder DEST/<version> with that version's bindings; CalledProcessError if pip fails."""
    folder = dest / version
    with tempfile.TemporaryDirectory(dir=dest) as wheels:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            wheels,
        ]
        command += ["--only-binary=:all:", "--python-version", python]
        command += [f"--platform={platform}" for platform in _PLATFORMS]
        subprocess.run([*command, WHEELS[version]], check=True)
        (wheel,) = Path(wheels).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith((".py", "/tensorrt.so", "/tensorrt_rtx.so")) or "info/" in name:
                    archive.extract(name, folder)
    return folder


def main() -> None:
    """Parse the command line and fetch."""
    about, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("dest", type=Path, help="an empty folder outside the repository")
    parser.add_argument("versions", nargs="*", default=TESTED, help=f"of {', '.join(WHEELS)}")
    parser.add_argument("--accept-nvidia-license", action="store_true")
    given = parser.parse_intermixed_args()
    if not given.accept_nvidia_license:
        parser.error("read NVIDIA's TensorRT licence, then pass --accept-nvidia-license")
    given.dest.mkdir(parents=True, exist_ok=True)
    for version in given.versions:
        print(fetch(version, given.dest))


if __name__ == "__main__":
    main()
