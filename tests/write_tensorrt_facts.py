"""Write tests/tensorrt_api.json anew from real bindings.

    python tests/write_tensorrt_facts.py BINDINGS

BINDINGS: a folder with all versions of `fetch_tensorrt_bindings.WHEELS`. Only what a build or a
run can reach is kept: no layer classes, no enums of operators, no Python plugins.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fetch_tensorrt_bindings import WHEELS
from stubbed_tensorrt import surface_of
from tensorrt_facts import TABLE

CLASSES = """Builder Dims Dims2 Dims3 Dims4 DimsHW EngineInspector IAlgorithmSelector IBuilderConfig
IConstantLayer ICudaEngine IErrorRecorder IExecutionContext IGpuAllocator IHostMemory
IInt8Calibrator IInt8EntropyCalibrator IInt8EntropyCalibrator2 IInt8LegacyCalibrator
IInt8MinMaxCalibrator ILayer ILogger INetworkDefinition IOptimizationProfile IOutputAllocator
IPluginCreator
IPluginCreatorInterface IPluginCreatorV3One IPluginRegistry IPluginV2 IPluginV2Ext IProfiler
IProgressMonitor IRuntimeConfig ISerializationConfig ITensor ITimingCache IVersionedInterface Logger
OnnxParser ParserError PluginField PluginFieldCollection Profiler Refitter Runtime
Weights"""
ENUMS = """BuilderFlag CalibrationAlgoType ComputeCapability CudaGraphStrategy DataType DeviceType
EngineCapability ErrorCode ExecutionContextAllocationStrategy HardwareCompatibilityLevel
ILogger.Severity LayerInformationFormat LayerType Logger.Severity MemoryPoolType
NetworkDefinitionCreationFlag OnnxParserFlag PluginFieldType PreviewFeature ProfilingVerbosity
QuantizationFlag RuntimePlatform SerializationFlag TacticSource TensorFormat TensorIOMode
TensorLocation TilingOptimizationLevel"""
MADE = (
    "by tests/write_tensorrt_facts.py from the real Python bindings of every version listed, each"
    " imported against stubs (tests/stubbed_tensorrt.py). names: what a name is from the first to"
    " the last version of an interval in the list's order (* = all): class(bases), enum, an enum"
    " member's value, ro|rw for a property, value, or the calls a function takes."
)


def facts(surface: dict[str, Any]) -> Iterator[tuple[str, str | int]]:
    """Every kept name of one version and what it is."""
    for name, members in surface["enums"].items():
        if name in ENUMS.split():
            yield name, "enum"
            yield from ((f"{name}.{member}", value) for member, value in members.items())
    for name, found in surface["classes"].items():
        if name in CLASSES.split():
            yield name, f"class({', '.join(found['bases'])})"
            yield from ((f"{name}.{member}", what) for member, what in found["members"].items())
    yield from surface["functions"].items()
    yield from surface["values"].items()


def table(surfaces: dict[str, dict[str, Any]]) -> dict[str, object]:
    """The facts of all versions merged: names -> {interval: what}."""
    versions = list(surfaces)
    known = {version: dict(facts(surface)) for version, surface in surfaces.items()}
    names = {}
    for name in sorted({name for found in known.values() for name in found}):
        what = [known[version].get(name) for version in versions]
        starts = [i for i, x in enumerate(what) if i == 0 or x != what[i - 1]]
        ends = [*(i - 1 for i in starts[1:]), len(versions) - 1]
        names[name] = {
            "*" if (a, b) == (0, len(versions) - 1) else f"{versions[a]}..{versions[b]}": what[a]
            for a, b in zip(starts, ends, strict=True)
            if what[a] is not None
        }
    return {"made": MADE, "versions": versions, "names": names}


def main(folder: Path) -> None:
    """Read every version and write the table, a name per line."""
    found = table({version: surface_of(folder / version) for version in WHEELS})
    names = found.pop("names")
    assert isinstance(names, dict)
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(what)}" for name, what in names.items())
    head = json.dumps(found, indent=1)[:-2]
    TABLE.write_text(f'{head},\n "names": {{\n{lines}\n }}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
