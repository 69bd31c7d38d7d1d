"""Builds, checks and times the engine of a device/ folder on the device itself.

Run it in the folder: python3 finish.py
Needs Python 3.8, numpy, and TensorRT with pycuda or cuda-python; trtexec will do where TensorRT's
Python module is missing. Leaves model.engine and device_report.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.on_device.device_error import DeviceError
from deploy.on_device.device_report import REPORT_FILE, forget_report
from deploy.on_device.finish_plan import FinishOptions, printed_command
from deploy.on_device.finish_run import Finish
from deploy.on_device.manifest_check import WAIVERS, RefusedError, read_manifest
from deploy.on_device.trtexec_command import as_typed

# exit codes: all is well, no engine came out, the command line is wrong, a gate was missed
_OK, _FAILED, _USAGE, _GATE = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of a run: 0 ok, 1 failed, 3 a gate missed; SystemExit(2) for a wrong option."""
    options, only_print = _options(argv)
    try:
        return print_trtexec(options) if only_print else finish(options)
    except DeviceError as error:
        return _error(str(error), _GATE if isinstance(error, RefusedError) else _FAILED)
    except OSError as error:
        return _error(_of_the_system(error), _FAILED)
    except KeyboardInterrupt:
        return _error("interrupted; run it again", 130)


def finish(options: FinishOptions) -> int:
    """Everything, with a report whatever comes out of it; DeviceError where there's no manifest."""
    manifest = read_manifest(options.folder)
    forget_report(options.folder)
    run = Finish(options, manifest)
    name, target = manifest["model"]["name"], manifest["target"]
    print(f"{name}, {manifest['precision']}, for {target['name']} ({target['title']})", flush=True)
    code = _OK
    try:
        run.run()
    except DeviceError as error:
        run.report.problems.insert(0, str(error))
        code = _GATE if isinstance(error, RefusedError) else _FAILED
    except OSError as error:
        run.report.problems.insert(0, _of_the_system(error))
        code = _FAILED
    run.report.save(options.folder)
    problems = run.report.problems
    if problems:
        code = code or _GATE
        print(f"failed: {REPORT_FILE} has all of it")
        for problem in problems:
            print(f"  problem     {problem}")
        print("next: mend what is named above and run this again")
    else:
        print("next: copy this folder back and run: deploy import BUNDLE device/")
    return code


def print_trtexec(options: FinishOptions) -> int:
    """Print the build as a trtexec command, and run nothing of it."""
    print(as_typed(printed_command(read_manifest(options.folder), options)))
    return _OK


def _of_the_system(error: OSError) -> str:
    """A full disk, a read-only folder: the file and the system's words."""
    return f"{error.filename or 'this folder'}: {error.strerror or error}"


def _error(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _options(argv: Sequence[str] | None) -> tuple[FinishOptions, bool]:
    about = "Builds, checks and times this folder's engine on this device."
    parser = argparse.ArgumentParser(prog="finish.py", description=about)
    here = Path(__file__).resolve().parent
    parser.add_argument("folder", nargs="?", type=Path, default=here, help="default: the script's")
    parser.add_argument(
        "--trtexec", nargs="?", const="", metavar="PATH", help="build and run by it"
    )
    parser.add_argument(
        "--print-trtexec", action="store_true", help="only print the command that builds"
    )
    parser.add_argument(
        "--scales",
        choices=("cache", "ranges"),
        default="",
        help="how scales beside a float graph go in (cache on a DLA, ranges elsewhere)",
    )
    parser.add_argument("--dla-core", type=int, metavar="N", help="DLA core to build for")
    plugins = parser.add_mutually_exclusive_group()
    plugins.add_argument(
        "--with-plugins",
        dest="plugins",
        action="store_true",
        default=None,
        help="build with the kernels in plugins/ (else: the faster of both)",
    )
    plugins.add_argument(
        "--without-plugins", dest="plugins", action="store_false", help="use model_plain.onnx"
    )
    parser.add_argument("--rebuild", action="store_true", help="build, though an engine came along")
    parser.add_argument("--runs", type=int, default=200, metavar="N", help="inferences timed (200)")
    parser.add_argument("--skip-latency", action="store_true", help="don't time anything")
    parser.add_argument(
        "--allow", action="append", choices=sorted(WAIVERS), default=[], help="waive a refusal"
    )
    given = parser.parse_args(argv)
    if given.runs < 1:
        parser.error(f"--runs {given.runs}; give 1 or more")
    if given.dla_core is not None and given.dla_core < 0:
        parser.error(f"--dla-core {given.dla_core}; give 0 or more")
    if given.scales == "ranges" and (given.trtexec is not None or given.print_trtexec):
        parser.error("--scales ranges with trtexec, which takes a cache alone")
    options = FinishOptions(
        folder=given.folder.resolve(),
        trtexec=given.trtexec,
        scales=given.scales,
        dla_core=given.dla_core,
        plugins=given.plugins,
        rebuild=given.rebuild,
        runs=given.runs,
        latency=not given.skip_latency,
        allow=tuple(given.allow),
    )
    return options, given.print_trtexec
