"""A Docker build context: the bundle, the light server, a Dockerfile and a compose file."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template

import deploy
from deploy.errors import BundleError, RecipeError
from deploy.files import write_aside
from deploy.packaging.docker_check import problems_of_context
from deploy.packaging.options import PackageOptions
from deploy.packaging.serve_requirements import serve_requirements
from deploy.packaging.served import Served
from deploy.packaging.written import Written

_ROOT = Path(deploy.__file__).parent
_TEMPLATES = _ROOT / "packaging" / "docker"
# all of this project that the light server imports
_SOURCES = (
    *("__init__.py", "errors.py", "files.py"),
    *("artifacts/__init__.py", "artifacts/bundle.py"),
    *("artifacts/stored_arrays.py", "artifacts/untrusted.py"),
)


def docker(served: Served, folder: Path, options: PackageOptions) -> Written:
    """Fill an existing, empty folder with what `docker build` needs and nothing else."""
    if served.runtime != "openvino":
        raise BundleError(
            f"{served.bundle.folder}: a TensorRT engine; the light server runs OpenVINO's, use "
            "--format triton"
        )
    if options.version != 1:
        raise RecipeError(
            f"--model-version {options.version}: an image holds one version; give the image a tag"
        )
    _copy_server(folder / "serve" / "source" / "deploy")
    tools = served.bundle.manifest["tools"]
    runtime = str(tools.get("openvino", "")) if isinstance(tools, dict) else ""
    wanted = "\n".join(serve_requirements(runtime)) + "\n"
    write_aside(folder / "serve" / "requirements.txt", wanted.encode())
    _copy_bundle(served, folder / "bundle")
    dockerfile = Template((_TEMPLATES / "Dockerfile.template").read_text(encoding="utf-8"))
    filled = dockerfile.substitute(
        name=served.name,
        precision=served.precision,
        manifest=served.bundle.manifest["manifest_sha256"],
        model=served.bundle.manifest["model"]["sha256"],
    )
    extra = _flags(options)
    if extra:
        filled = filled.replace('CMD ["--host", "0.0.0.0"]', f'CMD ["--host", "0.0.0.0", {extra}]')
    write_aside(folder / "Dockerfile", filled.encode())
    for name in ("docker-compose.yml", "prometheus.yml"):
        shutil.copyfile(_TEMPLATES / name, folder / name)
    return Written(
        command="docker compose --project-directory {folder} up --build",
        notes=tuple(_notes(served)),
    )


def recognizes(folder: Path) -> bool:
    """Whether a folder looks like a build context of ours."""
    return (folder / "Dockerfile").is_file() and (folder / "bundle").is_dir()


def check(folder: Path) -> list[str]:
    """What is missing or against the rules, one line each."""
    return problems_of_context(folder)


def _copy_server(target: Path) -> None:
    if not (_ROOT / "serving" / "__main__.py").is_file():
        raise BundleError(f"{_ROOT}: no light server there; install onnx-deploy whole")
    names = [*_SOURCES, *(f"serving/{p.name}" for p in sorted((_ROOT / "serving").glob("*.py")))]
    for name in names:
        made = target / name
        made.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, made)


def _copy_bundle(served: Served, target: Path) -> None:
    source = served.bundle.folder
    for name in ("manifest.json", *served.bundle.manifest["files"]):
        made = target / name
        made.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, made)


def _flags(options: PackageOptions) -> str:
    flags = []
    if options.max_batch:
        flags += ["--max-batch", str(options.max_batch)]
    if options.instances > 1:
        flags += ["--streams", str(options.instances)]
    return ", ".join(f'"{flag}"' for flag in flags)


def _notes(served: Served) -> list[str]:
    if not served.libraries:
        return []
    names = ", ".join(path.name for path in served.libraries)
    note = (
        f"the engine needs {names}: loading it runs its code, so the server asks for "
        "--allow-libraries; add it to CMD if you trust where the bundle comes from"
    )
    return [note]
