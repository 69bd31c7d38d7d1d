"""Everything that can be known of a Triton repository before a server sees it."""

from __future__ import annotations

from pathlib import Path

from deploy.errors import BundleError, RecipeError, one_line
from deploy.packaging.config_pbtxt import parse_config
from deploy.packaging.model_name import checked_name
from deploy.packaging.openvino_ports import wrong_ports
from deploy.packaging.triton_rules import MODEL_FILES, broken_rules


def problems_of_repository(folder: Path) -> list[str]:
    """What is wrong in a model repository, one line each; empty for one that loads and serves."""
    models = sorted(p for p in folder.iterdir() if p.is_dir())
    if not models:
        return [f"{folder}: no model in it"]
    found = [f"{p}: a link; copy what it points to" for p in folder.rglob("*") if p.is_symlink()]
    return found or [
        f"{model.name}: {problem}" for model in models for problem in _problems_of_model(model)
    ]


def _problems_of_model(folder: Path) -> list[str]:
    path = folder / "config.pbtxt"
    if not path.is_file():
        return ["no config.pbtxt"]
    try:
        checked_name(folder.name)
        config = parse_config(path)
    except RecipeError as error:
        return [str(error)]
    except BundleError as error:
        return [one_line(str(error).removeprefix(f"{folder}/"))]
    versions = sorted(int(p.name) for p in folder.iterdir() if p.is_dir() and _is_version(p.name))
    found = broken_rules(config, folder, versions)
    if config.backend not in MODEL_FILES:
        return found
    file = config.default_model_filename or MODEL_FILES[config.backend]
    for version in versions:
        model = folder / str(version) / file
        if not model.is_file():
            found.append(f"version {version} has no {file}, which backend {config.backend!r} loads")
    if found:
        return found
    # a plan can only be read by the TensorRT that built it
    if config.backend == "openvino":
        for version in versions:
            found += [
                f"version {version}: {p}" for p in wrong_ports(config, folder / str(version) / file)
            ]
    return found


def _is_version(name: str) -> bool:
    """Triton takes folders named by a number from 1 up, without zeros in front."""
    return name.isascii() and name.isdigit() and not name.startswith("0")
