"""A Triton model repository: `<name>/config.pbtxt` and `<name>/<version>/` with the engine."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from deploy.errors import BundleError, RecipeError
from deploy.files import sha256_of, write_aside
from deploy.packaging.config_pbtxt import config_text
from deploy.packaging.containers import (
    Container,
    container_for_openvino,
    container_for_tensorrt,
)
from deploy.packaging.free_batch import slow_when_free, with_free_batch
from deploy.packaging.options import PackageOptions
from deploy.packaging.served import Served, is_plain
from deploy.packaging.triton_check import problems_of_repository
from deploy.packaging.triton_config import MODELS, Batching, batching, computes_in, triton_config
from deploy.packaging.written import Written

_PORTS = "-p 8000:8000 -p 8001:8001 -p 8002:8002"


def triton(served: Served, folder: Path, options: PackageOptions) -> Written:
    """Fill an existing, empty folder with the repository of one model."""
    container = _container(served, options)
    model = folder / served.name
    version = model / str(options.version)
    version.mkdir(parents=True)
    why_fixed = ""
    if served.runtime == "openvino":
        served, why_fixed = with_free_batch(served, version)
    batches = batching(served, options, why_fixed)
    for name, source in served.files.items():
        if source.parent != version:
            shutil.copyfile(source, version / name)
    plugins = _copy_libraries(served, model, version, options)
    config = triton_config(served, options, batches)
    write_aside(model / "config.pbtxt", config_text(config).encode())
    gpu = "--gpus all " if served.runtime == "tensorrt" else ""
    # a Jetson's GPU is no PCI device that --gpus would find
    gpu = "--runtime nvidia " if served.jetpack else gpu
    load = f"--backend-config=tensorrt,plugins={';'.join(plugins)}" if plugins else ""
    served_with = f"tritonserver --model-repository={MODELS} {shlex.quote(load) if load else ''}"
    return Written(
        command=f"docker run --rm {gpu}{_PORTS} -v {{folder}}:{MODELS}:ro {container.image} "
        f"{served_with.strip()}",
        notes=tuple(_notes(served, container, batches, why_fixed)),
        facts={
            "container": {
                "image": container.image,
                "tensorrt": container.tensorrt,
                "openvino": container.openvino,
                "source": container.source,
            },
            "max_batch_size": batches.largest,
        },
    )


def recognizes(folder: Path) -> bool:
    """Whether a folder looks like a model repository."""
    return any(folder.glob("*/config.pbtxt"))


def check(folder: Path) -> list[str]:
    """What a server would refuse, or serve wrongly, one line each."""
    return problems_of_repository(folder)


def _container(served: Served, options: PackageOptions) -> Container:
    if served.runtime == "tensorrt":
        return container_for_tensorrt(served.tensorrt, options.triton_tag, served.jetpack)
    return container_for_openvino(options.triton_tag)


def _copy_libraries(
    served: Served, model: Path, version: Path, options: PackageOptions
) -> list[str]:
    """The plugin kernels beside the model; for TensorRT where the container finds them."""
    if served.runtime == "openvino":
        if len(served.libraries) > 1:
            names = ", ".join(path.name for path in served.libraries)
            raise BundleError(
                f"{served.bundle.folder}: needs {names}; Triton's OpenVINO backend loads one "
                "library, use --format docker"
            )
        for library in served.libraries:
            shutil.copyfile(library, version / library.name)
        return []
    given = {sha256_of(path): path for path in options.plugin_libraries}
    copied = []
    for row in served.settings["plugins"]:
        wanted, name = str(row.get("sha256")), Path(str(row.get("library"))).name
        if not is_plain(name):
            raise BundleError(f"{served.bundle.folder}: plugin library {name[:60]!r}; don't use it")
        if wanted not in given:
            raise RecipeError(
                f"the engine needs {name} (sha256 {wanted[:12]}), which finish.py built on the "
                "device; give that file with --plugin-library"
            )
        # a folder whose name isn't a number is no version: the server passes over it
        (model / "plugins").mkdir(exist_ok=True)
        shutil.copyfile(given[wanted], model / "plugins" / name)
        copied.append(f"{MODELS}/{served.name}/plugins/{name}")
    return copied


def _notes(served: Served, container: Container, batches: Batching, why_fixed: str) -> list[str]:
    notes = []
    if container.jetson:
        notes.append(
            f"{container.image}: TensorRT {container.tensorrt} is known of that month's image for "
            "other machines, not of this one for Jetsons; look with dpkg -l in it"
        )
    if why_fixed and not batches.largest:
        notes.append(f"requests take exactly the engine's shapes: {why_fixed}")
    if batches.padded:
        notes.append(
            f"every group is filled up to {batches.largest} samples: Triton's OpenVINO backend "
            "computes no smaller one, so a lone request costs as much as a full group"
        )
    elif served.runtime == "openvino" and not why_fixed:
        notes.append(
            "a request of any batch is computed as it comes; --max-batch N lets the server group "
            "requests, at the price that every group costs N samples"
        )
        notes += slow_when_free(served)
    if served.runtime == "openvino" and computes_in(served) == "f32":
        notes.append(
            "judged in f32; the backend has no parameter for that and takes bf16 on a CPU that has "
            "it (AMX, AVX512-BF16), whose numbers differ; --format ovms and docker keep f32"
        )
    tools = served.bundle.manifest["tools"]
    built = str(tools.get("openvino", "")) if isinstance(tools, dict) else ""
    older = served.runtime == "openvino" and _release(container.openvino) < _release(built)
    if older:
        has = f"OpenVINO {container.openvino}" if container.openvino else "another OpenVINO"
        notes.append(f"built with OpenVINO {built}, the container has {has}")
    if older and served.libraries:
        notes.append(f"{served.libraries[0].name} is compiled for OpenVINO {built} and no other")
    return notes


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
