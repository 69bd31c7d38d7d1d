"""A build for an NVIDIA device: judged on this machine where the device isn't, and sent to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import registry
from deploy.analysis.vendor_layers import VendorLayer, in_words, vendor_layers
from deploy.artifacts.model import Model
from deploy.build import load_engine
from deploy.data import SampleSet
from deploy.errors import RecipeError
from deploy.files import sha256_of
from deploy.int8.fastest import Shipped
from deploy.int8.race import quantized_layers
from deploy.line import Built, Judged, Line
from deploy.nvidia.device_folder import Sent, Shipment, used_plugins, write_device_folder
from deploy.nvidia.dialect import (
    as_judged,
    as_shipped,
    described,
    on_its_gpu,
    simulated,
    without_plugins,
)
from deploy.nvidia.finish_script import finish_script
from deploy.nvidia.implicit import rewritten
from deploy.nvidia.settings import Rung
from deploy.on_device.int8_layers import int8_row
from deploy.precisions import in_words as kind_of
from deploy.progress import Progress
from deploy.target import QUANTIZED, Precision, Target

# made by the drivers of a PC's GPU, of a Jetson's (JetPack 5, 6), and of Windows' Linux
_DRIVERS = ("nvidiactl", "nvhost-ctrl-gpu", "nvgpu", "dxg")
# what this backend's compiler writes on a machine without the device
_ENGINE = "model.engine"


@dataclass(frozen=True)
class DeviceBuild:
    """folder: what is copied to the device. absent: why the engine doesn't run here. engine: the
    folder of an engine that was built here all the same; vendor: what became of each layer in it;
    moved: bytes its kernels move, and those of an fp16 engine, by precision. rung: how far the
    build was proven. eight_bits: of an engine in 8 bits that runs here, how many of its layers do,
    and which should and don't."""

    folder: Path
    absent: str
    engine: Path | None
    rung: Rung
    vendor: tuple[VendorLayer, ...] = ()
    moved: Mapping[str, int] = field(default_factory=dict)
    eight_bits: Mapping[str, Any] | None = None


def judged_as(target: Target, precision: Precision) -> tuple[Target, str]:
    """The target to judge engines with, and why the device isn't here; "" where it is, and for
    targets that need none."""
    if target.engine.nvidia is None:
        return target, ""
    backend = registry.module("backend", target.backend)
    if target.engine.nvidia.library == "tensorrt_rtx":
        backend.library()  # it builds without a GPU: what is missing is said before anything runs
    absent: str | None = no_gpu() or backend.why_not_here(target.engine)
    return (on_its_gpu(target), "") if absent is None else (simulated(target), absent)


def no_gpu(devices: Path = Path("/dev")) -> str:
    """That there is no NVIDIA GPU, said before any library is asked; "" where one may be."""
    found = any((devices / name).exists() for name in _DRIVERS)
    return "" if found else "no NVIDIA GPU on this machine"


def check_sizes(target: Target, loaded: Model, progress: Progress) -> None:
    """RecipeError for free sizes on a DLA, which has none; a caution where --batch does nothing."""
    nvidia, batch = target.engine.nvidia, target.engine.batch
    free = [spec for spec in loaded.inputs if None in spec.shape[1:]]
    batched = [spec for spec in loaded.inputs if spec.shape and spec.shape[0] is None]
    if nvidia is not None and nvidia.use_dla and (free or (batched and batch == "dynamic")):
        named = free[0] if free else batched[0]
        raise RecipeError(
            f"input {named} with target {target.name!r}: a DLA has no free sizes; fix them with "
            "--shape and --batch N, or build for the GPU of the device"
        )
    if batch == "dynamic" and not batched:
        progress.caution("--batch dynamic: no input has a free batch, so nothing is dynamic")


def around_samples(target: Target, loaded: Model, samples: SampleSet) -> Target:
    """The target with the samples' sizes, where an engine for it has to know some: inputs that are
    free in more than their batch."""
    nvidia = target.engine.nvidia
    free = [spec.name for spec in loaded.inputs if None in spec.shape[1:]]
    if nvidia is None or not free:
        return target
    feeds = next(iter(samples)).feeds
    sizes = {name: tuple(feeds[name].shape) for name in free}
    nvidia = nvidia.model_copy(update={"sizes": sizes})
    engine = target.engine.model_copy(update={"nvidia": nvidia})
    return target.model_copy(update={"engine": engine})


def device_build(
    line: Line,
    target: Target,
    absent: str,
    judged: Judged,
    graphs: dict[str, Model],
    shipped: Shipped | None,
) -> DeviceBuild:
    """The folder for the device, filled in a stage of the line; absent: as `judged_as` says."""
    built = judged.built
    chosen = target.model_copy(update={"engine": built.target.engine})
    implicit = None
    if built.precision == "int8" and target.quantization.form == "implicit" and shipped is not None:
        exact = graphs.get("equalized", graphs["fused"])
        implicit = described(built.graph, exact, shipped.ranges, chosen, shipped.exclude)
    source = implicit.model if implicit is not None else built.graph
    engine = _engine(line, source, chosen, judged)

    def sent(target: Target) -> Sent:
        model = as_shipped(source, target, built.precision)
        if implicit is None:
            return Sent(model)
        told = rewritten(implicit, model)
        return Sent(told.model, told)

    whole, plain = sent(chosen), sent(without_plugins(chosen))
    shipment = Shipment(
        source=line.source,
        target=chosen,
        precision=built.precision,
        sent=whole,
        plain=plain if used_plugins(whole.model) else None,
        judged=as_judged(built.graph, simulated(chosen), built.precision),
        evidence=judged.evidence,
        tolerance=judged.tolerance,
        scores=judged.scores,
        engine=engine / _ENGINE if engine else None,
        tools=line.work.tools,
    )
    key = {
        "model": [whole.model.sha256, plain.model.sha256],
        "target": chosen.model_dump(mode="json"),
        "cache": implicit.cache("8.5.2") + implicit.layer_precisions() if implicit else "",
        "script": finish_script(),
        "evidence": judged.evidence.name,
        "engine": sha256_of(engine / _ENGINE) if engine else "",
    }
    folder, reused = line.stage("device", key, lambda out: write_device_folder(out, shipment))
    count = sum(path.is_file() for path in folder.rglob("*"))
    line.done("device", f"{count} files to build, check and time it there", reused)
    shown: Rung = chosen.engine.nvidia.shown if chosen.engine.nvidia else "predicted"
    rung: Rung = "device" if not absent else "compiler" if engine else _at_most_api(shown)
    if engine is None:
        here = built.precision in QUANTIZED and not absent
        counted = _in_eight_bits(line, built, sent(built.target)) if here else None
        return DeviceBuild(folder, absent, engine, rung, eight_bits=counted)
    kept = {d.subject: d.reason for d in built.graph.decisions if d.outcome == "skipped"}
    made = _Compiled(engine, whole.model, kept)
    vendor, moved = _looked_into(line, graphs["fused"], chosen, made, built.precision)
    return DeviceBuild(folder, absent, engine, rung, vendor, moved)


def _in_eight_bits(line: Line, built: Built, sent: Sent) -> dict[str, Any]:
    """How many layers of the engine that was judged run in its 8 bits, and which of those that were
    to don't: TensorRT may choose otherwise."""
    named = dict.fromkeys(quantized_layers(sent.model), built.precision)
    asked = named if sent.implicit is None else sent.implicit.precisions
    with line.open(built) as engine:
        rows = [vars(layer) for layer in engine.layers()]
    found = {"kind": kind_of(built.precision), **int8_row(rows, asked, kind=built.precision)}
    line.done("layers", said_of_eight_bits(found), reused=False)
    return found


def said_of_eight_bits(found: Mapping[str, Any], most: int = 3) -> str:
    """How many layers run in 8 bits, and the first that were to and don't, with reasons."""
    count, others = found["layers_int8"], found["not_int8"]
    text = f"{count} of {count + found['layers_float']} layers run in {found['kind']}"
    if not others:
        return text
    named = [f"{row['name']} ({row['reason']})" for row in others[:most]]
    named += [f"{len(others) - most} more"] if len(others) > most else []
    return f"{text}; {len(others)} that were to don't: {', '.join(named)}"


def _engine(line: Line, graph: Model, target: Target, judged: Judged) -> Path | None:
    """The vendor's engine where its compiler needs no device; None elsewhere."""
    nvidia = target.engine.nvidia
    if nvidia is None or nvidia.library != "tensorrt_rtx":
        return None
    return line.engine(graph, target, judged.built.precision, "compile").folder


@dataclass(frozen=True)
class _Compiled:
    """An engine the vendor wrote here, of which graph, and why layers of that stay float."""

    folder: Path
    graph: Model
    kept: Mapping[str, str]


def _looked_into(
    line: Line, fused: Model, target: Target, made: _Compiled, precision: Precision
) -> tuple[tuple[VendorLayer, ...], dict[str, int]]:
    """What the compiler made of each layer, and the bytes its kernels move beside those of the
    fp16 engine: the one figure about speed that it gives without a device."""
    with load_engine(made.folder, target, precision) as engine:
        rows = vendor_layers(engine.layers(), made.graph, made.kept)
        moved: dict[str, int] = {precision: int(engine.properties()["bytes_moved"])}
    progress = line.job.progress
    if precision in QUANTIZED:
        progress.done("layers", in_words(rows, precision), reused=False)
        half = line.engine(fused, target, "fp16", "baseline")
        with line.open(half) as engine:
            moved["fp16"] = int(engine.properties()["bytes_moved"])
        if moved[precision] > moved["fp16"]:
            progress.caution(more_moved(moved))
    return tuple(rows), moved


def more_moved(moved: Mapping[str, int]) -> str:
    """Why 8 bits may be slower than fp16 in this compiler's engine."""
    precision = next(name for name in moved if name != "fp16")
    ours, half, kind = moved[precision], moved["fp16"], kind_of(precision)
    return (
        f"the {kind} engine's kernels move {ours / half:.1f}x the bytes of the fp16 engine's "
        f"({ours / 1e6:.2f} against {half / 1e6:.2f} MB): {kind} pays there only where arithmetic "
        "binds; build --fp16 too, and time both on the device"
    )


def _at_most_api(shown: Rung) -> Rung:
    """A compiler or device has seen this target, but not this build."""
    return "predicted" if shown == "predicted" else "api"
