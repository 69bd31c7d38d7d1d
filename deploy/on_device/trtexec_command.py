"""The trtexec commands that build, run and time what the Python bindings would.

Flags as NVIDIA/TensorRT's samples/common/sampleOptions.cpp of 8.5.2, 8.6.1, 10.3, 10.16 and 11.1
reads them: `--plugins` became `--staticPlugins` and `--buildOnly` became `--skipInference` in 8.6,
`--stronglyTyped` came in 10.0, and 11 has neither precision flags nor calibration.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.on_device.device_error import DeviceError, MissingLibraryError
from deploy.on_device.trt_plan import BuildPlan

# where JetPack, Debian's packages and NVIDIA's containers put it
_USUAL_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
_MIB = 1 << 20
# Linux takes no longer single argument (MAX_ARG_STRLEN)
_LONGEST_ARGUMENT = (1 << 17) - 1
_RUN_MS = 1000


class TrtexecFiles(NamedTuple):
    """Where trtexec reads the graph and the cache, and writes engine, layers and timing cache."""

    model: Path
    cache: Path
    engine: Path
    layers: Path
    timing_cache: Path


def find_trtexec(given: str = "") -> str:
    """The tool's path: the given one, the PATH's, or where JetPack has it.

    MissingLibraryError when there is none.
    """
    places = [given] if given else ["trtexec", *_USUAL_PLACES]
    for place in places:
        found = shutil.which(place)
        if found:
            return found
    raise MissingLibraryError(
        f"no trtexec at {', '.join(places)}; a Jetson has it with JetPack (apt install "
        "libnvinfer-bin), or give its path: --trtexec PATH"
    )


def build_command(
    tool: str, plan: BuildPlan, files: TrtexecFiles, version: Sequence[int]
) -> list[str]:
    """What builds the engine of a plan; DeviceError for what trtexec can't be told.

    version: the library's numbers, (8, 5, 2).
    """
    if plan.quantization == "implicit" and plan.use_ranges:
        raise DeviceError("trtexec takes no dynamic ranges; leave out --scales ranges")
    command = [tool, f"--onnx={files.model}", f"--saveEngine={files.engine}"]
    command += _typing_flags(plan, version)
    if plan.quantization == "implicit":
        command += _implicit_flags(plan, files)
    if plan.use_dla:
        command += [f"--useDLACore={plan.dla_core}", "--allowGPUFallback"]
    command += plugin_flags(plan.plugin_libraries, version)
    if plan.workspace_bytes:
        command.append(f"--memPoolSize=workspace:{plan.workspace_bytes / _MIB:.10g}")
    for place, flag in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
        shapes = {name: sizes[place] for name, sizes in plan.profiles.items()}
        command += shape_flags(flag, shapes)
    if not plan.tf32:
        command.append("--noTF32")
    command += [
        f"--timingCacheFile={files.timing_cache}",
        "--profilingVerbosity=detailed",
        f"--exportLayerInfo={files.layers}",
        "--skipInference" if tuple(version[:2]) >= (8, 6) else "--buildOnly",
    ]
    too_long = next((part for part in command if len(part) > _LONGEST_ARGUMENT), "")
    if too_long:
        raise DeviceError(
            f"{too_long.partition('=')[0]} has {len(too_long)} characters, more than Linux passes "
            f"in one argument ({_LONGEST_ARGUMENT}); use the Python bindings"
        )
    return command


def _typing_flags(plan: BuildPlan, version: Sequence[int]) -> list[str]:
    if version[0] >= 11 and plan.typing == "weak":
        raise DeviceError(
            f"TensorRT {version[0]}.{version[1]} lets the graph alone decide types, this folder is "
            "made for flags that do; build on the host for a target with this version"
        )
    if version[0] >= 11:
        return []
    if plan.typing == "strong":
        if version[0] < 10:
            raise DeviceError(
                f"TensorRT {version[0]}.{version[1]} has no strongly typed networks (10.0 brought "
                "them); build on the host for a target with this version"
            )
        return ["--stronglyTyped"]
    kinds = [plan.precision, plan.rest]
    return [f"--{kind}" for kind in ("int8", "fp8", "fp16", "bf16") if kind in kinds]


def _implicit_flags(plan: BuildPlan, files: TrtexecFiles) -> list[str]:
    wrong = [name for name in plan.layer_precisions if "'" in name or "," in name]
    if wrong:
        raise DeviceError(
            f"layer {wrong[0]!r} has a quote or comma, which trtexec's list can't hold; use the "
            "Python bindings, or rename it in the model"
        )
    listed = ",".join(f"{name}:{kind}" for name, kind in plan.layer_precisions.items())
    flags = [f"--calib={files.cache}"]
    if listed:
        # with a DLA trtexec itself sets "prefer", and refuses "obey" beside it
        constraint = "obey" if plan.obey and not plan.use_dla else "prefer"
        flags += [f"--precisionConstraints={constraint}", f"--layerPrecisions={listed}"]
    return flags


def plugin_flags(libraries: Sequence[str], version: Sequence[int]) -> list[str]:
    """A flag per plugin library."""
    flag = "--staticPlugins" if tuple(version[:2]) >= (8, 6) else "--plugins"
    return [f"{flag}={library}" for library in libraries]


def shape_flags(flag: str, shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """`--flag=input:1x3x224x224,…`; nothing without shapes."""
    if not shapes:
        return []
    rows = [f"{name}:{'x'.join(str(size) for size in sizes)}" for name, sizes in shapes.items()]
    return [f"{flag}={','.join(rows)}"]


def run_command(
    tool: str,
    plan: BuildPlan,
    engine: Path,
    version: Sequence[int],
    shapes: Mapping[str, Sequence[int]],
) -> list[str]:
    """What loads the engine and runs it; inputs, runs and outputs are added to it.

    shapes: of the dynamic inputs.
    """
    command = [tool, f"--loadEngine={engine}", *shape_flags("--shapes", shapes)]
    if plan.use_dla:
        command.append(f"--useDLACore={plan.dla_core}")
    return command + plugin_flags(plan.plugin_libraries, version)


def once_flags(inputs: Mapping[str, Path], outputs: Path) -> list[str]:
    """One inference of these raw input files, its outputs as JSON."""
    texts = [str(text) for pair in inputs.items() for text in pair]
    wrong = [text for text in texts if "'" in text or "," in text]
    if wrong:
        raise DeviceError(
            f"{wrong[0]!r} has a quote or comma, which trtexec's --loadInputs can't hold; use the "
            "Python bindings, or rename it"
        )
    listed = ",".join(f"{name}:{path}" for name, path in inputs.items())
    return [
        *(f"--loadInputs={listed}", f"--exportOutput={outputs}"),
        *("--iterations=1", "--warmUp=0", "--duration=0"),
    ]


def timing_flags(runs: int, version: Sequence[int]) -> list[str]:
    """So many inferences after a second of warming up, data staying on the device."""
    flags = [f"--iterations={runs}", f"--warmUp={_RUN_MS}", "--duration=0", "--percentile=90"]
    # 11 does both by itself and warns of the flags
    return flags if version[0] >= 11 else [*flags, "--noDataTransfers", "--useSpinWait"]


def as_typed(command: Sequence[str]) -> str:
    """The command as one would type it in a shell, its paths relative where they lie below."""
    here = f"{Path.cwd()}{os.sep}"
    return " ".join(shlex.quote(part.replace(here, "")) for part in command)
