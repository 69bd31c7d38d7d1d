"""A folder for OpenVINO Model Server: `config.json` and `<name>/<version>/` with the IR."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from deploy.errors import BundleError, RecipeError
from deploy.files import json_bytes, write_aside
from deploy.packaging.free_batch import slow_when_free, with_free_batch
from deploy.packaging.options import PackageOptions
from deploy.packaging.ovms_check import MODELS, problems_of_config
from deploy.packaging.served import Served
from deploy.packaging.triton_config import computes_in
from deploy.packaging.written import Written

_CONFIG = "config.json"


def ovms(served: Served, folder: Path, options: PackageOptions) -> Written:
    """Fill an existing, empty folder with one model and its configuration."""
    if served.runtime != "openvino":
        raise BundleError(
            f"{served.bundle.folder}: a TensorRT engine; OpenVINO Model Server runs OpenVINO's, "
            "use --format triton"
        )
    if options.max_batch:
        raise RecipeError(
            f"--max-batch {options.max_batch}: OpenVINO Model Server doesn't group requests; leave "
            "it out, requests of any batch are taken"
        )
    version = folder / served.name / str(options.version)
    version.mkdir(parents=True)
    served, why_fixed = with_free_batch(served, version)
    for source in (*served.files.values(), *served.libraries):
        if source.parent != version:
            shutil.copyfile(source, version / source.name)
    write_aside(folder / _CONFIG, json_bytes(_config(served, options)))
    extensions = [f"{MODELS}/{served.name}/{options.version}/{p.name}" for p in served.libraries]
    if len(extensions) > 1:
        raise BundleError(
            f"{served.bundle.folder}: needs {len(extensions)} plugin libraries; the server loads "
            "one, use --format docker"
        )
    load = "".join(f" --cpu_extension {path}" for path in extensions)
    return Written(
        command=f"docker run --rm -p 9000:9000 -p 8000:8000 -v {{folder}}:{MODELS}:ro "
        f"openvino/model_server:{_tag(served)} --config_path {MODELS}/{_CONFIG} --port 9000 "
        f"--rest_port 8000{load}",
        notes=tuple(_notes(served, why_fixed)),
    )


def recognizes(folder: Path) -> bool:
    """Whether a folder looks like one for OpenVINO Model Server."""
    return (folder / _CONFIG).is_file()


def check(folder: Path) -> list[str]:
    """What the server would refuse, one line each."""
    return problems_of_config(folder)


def _config(served: Served, options: PackageOptions) -> dict[str, Any]:
    settings = served.settings
    hint = str(settings.get("performance_hint", "LATENCY"))
    plugin: dict[str, str] = {"PERFORMANCE_HINT": hint}
    if options.instances > 1:
        plugin = {"NUM_STREAMS": str(options.instances)}
    if computes_in(served):
        plugin["INFERENCE_PRECISION_HINT"] = computes_in(served)
    model = {
        "name": served.name,
        "base_path": f"{MODELS}/{served.name}",
        "target_device": str(settings.get("device", "CPU")),
        # a folder 2/ put beside takes over when it is complete
        "model_version_policy": {"latest": {"num_versions": 1}},
        "nireq": options.instances,
        "plugin_config": plugin,
    }
    return {
        "model_config_list": [{"config": model}],
        "monitoring": {"metrics": {"enable": True}},
    }


def _built_with(served: Served) -> str:
    tools = served.bundle.manifest["tools"]
    return str(tools.get("openvino", "")) if isinstance(tools, dict) else ""


def _tag(served: Served) -> str:
    """The server's release with that OpenVINO: its first two numbers, as the images are named."""
    found = re.match(r"\d+\.\d+", _built_with(served))
    return found.group() if found else "latest"


def _notes(served: Served, why_fixed: str) -> list[str]:
    notes = []
    if why_fixed:
        notes.append(f"requests take exactly the engine's shapes: {why_fixed}")
    else:
        notes += slow_when_free(served)
    built = _built_with(served)
    if built:
        notes.append(f"built with OpenVINO {built}; take a server of that release or a newer one")
    return notes
