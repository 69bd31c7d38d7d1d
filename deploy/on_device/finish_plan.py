"""What is asked for on the command line and in the manifest, as the plan of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from deploy.on_device.device_error import DeviceError
from deploy.on_device.device_report import ENGINE_FILE
from deploy.on_device.manifest_check import Manifest
from deploy.on_device.plugin_build import PLUGIN_LIBRARY
from deploy.on_device.trt_plan import BuildPlan, usual_scales
from deploy.on_device.trtexec_command import TrtexecFiles, build_command


class FinishOptions(NamedTuple):
    """What the command line says. trtexec: None for the Python bindings, else a path or "".

    scales: cache, ranges or "" for the better one here. dla_core: None leaves it to the manifest.
    plugins: whether the engine has kernels of ours; None for what is faster here. root: where /etc,
    /proc and /sys are.
    """

    folder: Path
    trtexec: str | None = None
    scales: str = ""
    dla_core: int | None = None
    plugins: bool | None = None
    rebuild: bool = False
    runs: int = 200
    latency: bool = True
    allow: tuple[str, ...] = ()
    root: Path = Path("/")


def uses_dla(manifest: Manifest, options: FinishOptions) -> bool:
    """Whether layers go to a DLA first."""
    return bool(manifest.nvidia["use_dla"]) or options.dla_core is not None


def scales_way(manifest: Manifest, options: FinishOptions, way: str) -> str:
    """How INT8's scales go in, "cache" or "ranges"; "" where the graph has them. trtexec takes
    nothing but the cache."""
    if not manifest.implicit:
        return ""
    usual = "cache" if way == "trtexec" else usual_scales(uses_dla(manifest, options))
    return options.scales or usual


def plugins_wanted(manifest: Manifest, options: FinishOptions) -> tuple[bool | None, str]:
    """Whether the engine is to have plugins, and why; None where both engines have to be tried.

    A folder that names no plugins gives no reason.
    """
    if not manifest["plugins"]:
        return False, ""
    if options.plugins is not None:
        return options.plugins, f"asked for by --{'with' if options.plugins else 'without'}-plugins"
    if ENGINE_FILE in manifest.files and not options.rebuild:
        return True, "the host built this engine with them"
    if _plain_name("model.onnx") not in manifest.files:
        return True, "the folder has no graph without them to compare with"
    if not options.latency:
        return False, "--skip-latency times nothing, so nothing shows that they pay"
    return None, ""


def packed_file(manifest: Manifest, name: str, plugins: bool) -> str:
    """The file of that name for the graph with plugin operators, or for the one without:
    "model.onnx" or "model_plain.onnx"."""
    if plugins or not manifest["plugins"]:
        return name
    plain = _plain_name(name)
    if plain not in manifest.files:
        raise DeviceError(f"no {plain} in the folder; run without --without-plugins")
    return plain


def _plain_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    return f"{stem}_plain.{kind}"


def plan_of(manifest: Manifest, options: FinishOptions, way: str, plugins: bool) -> BuildPlan:
    """What the engine is built from, its plugin libraries not yet named."""
    nvidia = manifest.nvidia
    if options.dla_core is not None and not nvidia["use_dla"]:
        raise DeviceError(
            "--dla-core {}, and this folder is for the GPU of {}; build for its DLA target on the "
            "host".format(options.dla_core, manifest["target"]["title"])
        )
    if uses_dla(manifest, options) and (options.dla_core or 0) >= nvidia["dla_cores"]:
        raise DeviceError(
            f"DLA core {options.dla_core or 0}, and {manifest['target']['title']} has "
            f"{nvidia['dla_cores']}; leave out --dla-core or give a smaller number"
        )
    plan = BuildPlan(
        model=manifest.data(packed_file(manifest, "model.onnx", plugins)),
        precision=manifest["precision"],
        rest=manifest["rest"],
        quantization=manifest["quantization"],
        typing=nvidia["typing"],
        profiles={
            name: (shapes["min"], shapes["opt"], shapes["max"])
            for name, shapes in manifest["profiles"].items()
        },
        use_dla=uses_dla(manifest, options),
        dla_core=options.dla_core or 0,
        workspace_bytes=nvidia["workspace_bytes"],
        version_compatible=bool(nvidia.get("version_compatible")),
        hardware_compatible=bool(nvidia.get("hardware_compatible")),
        timing_cache=str(manifest.folder / "build" / "timing.cache"),
    )
    if manifest.implicit:
        cache = manifest.text(packed_file(manifest, "calibration.cache", plugins))
        listed = manifest.text(packed_file(manifest, "layer_precisions.txt", plugins))
        scales = scales_way(manifest, options, way)
        plan.tell_beside(cache, listed_precisions(listed), scales)
    return plan


def listed_precisions(text: str) -> dict[str, str]:
    """Precision per layer of a `layer:precision,…` list."""
    parts = (part.rpartition(":") for part in text.strip().split(",") if part)
    return {name: kind for name, _, kind in parts}


def check_trtexec(manifest: Manifest) -> None:
    """DeviceError where trtexec is asked for and can't build this engine."""
    library = manifest.nvidia["library"]
    if library != "tensorrt":
        raise DeviceError(f"trtexec is of tensorrt, this folder is for {library}; leave it out")


def printed_command(manifest: Manifest, options: FinishOptions) -> list[str]:
    """The build as a trtexec command for the folder's release; its engine is model.engine.

    Without plugins where both engines would be tried: their library has to be compiled first.
    """
    check_trtexec(manifest)
    plugins = bool(plugins_wanted(manifest, options)[0])
    plan = plan_of(manifest, options, "trtexec", plugins)
    if plugins:
        plan.plugin_libraries = [PLUGIN_LIBRARY]
    folder = manifest.folder
    engine = folder / ENGINE_FILE
    files = trtexec_files(manifest, plugins, engine, folder)
    version = tuple(int(part) for part in manifest.nvidia["versions"][0].split("."))
    return build_command(options.trtexec or "trtexec", plan, files, version)


def trtexec_files(manifest: Manifest, plugins: bool, engine: Path, scratch: Path) -> TrtexecFiles:
    """Where everything lies for trtexec; scratch: a folder for the layers and the timing cache."""
    folder, cache = manifest.folder, "calibration.cache"
    if manifest.implicit:
        cache = packed_file(manifest, cache, plugins)
    return TrtexecFiles(
        model=folder / packed_file(manifest, "model.onnx", plugins),
        cache=folder / cache,
        engine=engine,
        layers=scratch / "layers.json",
        timing_cache=scratch / "timing.cache",
    )
