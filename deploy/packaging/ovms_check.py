"""config.json of an OpenVINO Model Server against what that server takes, and against the files.

The keys are those of model_server 2026.4 (its schema refuses every other); `base_path` is required
here, though the server also knows models that are graphs and have none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deploy.errors import RecipeError, one_line
from deploy.packaging.model_name import checked_name

# where the folder lies in the container
MODELS = "/models"
_LARGEST_BYTES = 2**20
_TOP = (
    *("model_config_list", "mediapipe_config_list", "pipeline_config_list"),
    *("custom_loader_config_list", "custom_node_library_config_list", "monitoring"),
)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_shape(value: Any) -> bool:
    return isinstance(value, str | dict)


# key -> what it may hold, and that in words
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": (lambda v: isinstance(v, str), "a text"),
    "base_path": (lambda v: isinstance(v, str), "a text"),
    "graph_path": (lambda v: isinstance(v, str), "a text"),
    "subconfig": (lambda v: isinstance(v, str), "a text"),
    "batch_size": (lambda v: _is_count(v) or isinstance(v, str), "a number or a text"),
    "shape": (_is_shape, "a text or a table"),
    "layout": (_is_shape, "a text or a table"),
    "model_version_policy": (lambda v: isinstance(v, dict), "a table"),
    "nireq": (_is_count, "a number from 0 up"),
    "target_device": (lambda v: isinstance(v, str), "a text"),
    "plugin_config": (lambda v: isinstance(v, dict), "a table"),
    "allow_cache": (lambda v: isinstance(v, bool), "true or false"),
    "custom_loader_options": (lambda v: isinstance(v, dict), "a table"),
}
_HINTS = ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT")
# they were in earlier releases; 2026.4 refuses a configuration with one of them
_REMOVED = (
    *("stateful", "low_latency_transformation", "max_sequence_number"),
    "idle_sequence_cleanup",
)


def problems_of_config(folder: Path) -> list[str]:
    """What the server would refuse in `config.json` or miss in the folder, one line each."""
    path = folder / "config.json"
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            return [f"config.json: {path.stat().st_size} bytes"]
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return [f"config.json: unreadable ({one_line(error)})"]
    links = [f"{p}: a link; copy what it points to" for p in folder.rglob("*") if p.is_symlink()]
    return links or [f"config.json: {said}" for said in _content(content, folder)]


def _content(content: Any, folder: Path) -> Iterator[str]:
    if not isinstance(content, dict) or not isinstance(content.get("model_config_list"), list):
        yield "no model_config_list"
        return
    for key in sorted(set(content) - set(_TOP)):
        yield f"key {key!r}; there are: {', '.join(_TOP)}"
    names = []
    for index, row in enumerate(content["model_config_list"]):
        where = f"model_config_list[{index}]"
        if (
            not isinstance(row, dict)
            or set(row) != {"config"}
            or not isinstance(row["config"], dict)
        ):
            yield f"{where}: not a table with config alone"
            continue
        yield from (f"{where}: {said}" for said in _model(row["config"], folder))
        names.append(row["config"].get("name"))
    for name in sorted({str(n) for n in names if names.count(n) > 1}):
        yield f"two models are named {name!r}"
    if "monitoring" in content:
        yield from _monitoring(content["monitoring"])


def _model(config: dict[str, Any], folder: Path) -> Iterator[str]:
    for key in ("name", "base_path"):
        if key not in config:
            yield f"no {key}"
    for key, value in sorted(config.items()):
        if key in _REMOVED:
            yield f"key {key!r} was removed from the server in 2026.4"
        elif key not in _KEYS:
            yield f"key {key!r}; there are: {', '.join(_KEYS)}"
        elif not _KEYS[key][0](value):
            yield f"{key} = {value!r}; it is {_KEYS[key][1]}"
    yield from _policy(config.get("model_version_policy"))
    yield from _hint(config.get("plugin_config"))
    if isinstance(config.get("name"), str):
        try:
            checked_name(config["name"])
        except RecipeError as error:
            yield str(error)
    base = config.get("base_path")
    if isinstance(base, str):
        yield from _files(base, folder)


def _policy(policy: Any) -> Iterator[str]:
    if not isinstance(policy, dict):
        return
    allowed = {"all", "latest", "specific"}
    if len(policy) != 1 or not set(policy) <= allowed:
        yield f"model_version_policy {sorted(policy)}; give one of all, latest, specific"


def _hint(plugin: Any) -> Iterator[str]:
    hint = plugin.get("PERFORMANCE_HINT", _HINTS[0]) if isinstance(plugin, dict) else _HINTS[0]
    if hint not in _HINTS:
        yield f"plugin_config.PERFORMANCE_HINT = {str(hint)[:60]!r}; it takes {', '.join(_HINTS)}"


def _files(base: str, folder: Path) -> Iterator[str]:
    """The version folders of a model that lies in this folder; another path is the user's own."""
    inside = base.removeprefix(f"{MODELS}/")
    parts = Path(inside).parts
    if ".." in parts:
        yield f"base_path {base!r} leads out of {MODELS}"
    elif base.startswith(f"{MODELS}/"):
        model = folder / inside
        versions = [p for p in model.glob("*") if p.is_dir() and p.name.isdigit()]
        if not versions:
            yield f"base_path {base!r}: no version folder in {inside}/"
        for version in versions:
            for file in ("model.xml", "model.bin"):
                if not (version / file).is_file():
                    yield f"base_path {base!r}: version {version.name} has no {file}"


def _monitoring(value: Any) -> Iterator[str]:
    metrics = value.get("metrics") if isinstance(value, dict) else None
    if not isinstance(metrics, dict) or not isinstance(metrics.get("enable"), bool):
        yield "monitoring holds metrics, a table with enable = true or false"
    elif set(metrics) - {"enable", "metrics_list"}:
        yield f"monitoring.metrics: {sorted(set(metrics) - {'enable', 'metrics_list'})}"
