"""What a config.pbtxt has to hold besides being one: Triton 2.51's rules and the backends' own.

Each rule gives its complaints, with the values; a server would refuse the model at poll or load,
crash on it (a warm-up larger than the batch), or serve it wrongly without a word.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from deploy.packaging.triton_config import NOT_OPENVINO

# the file a backend loads, and the kinds of instance it takes
MODEL_FILES = {"openvino": "model.xml", "tensorrt": "model.plan"}
_KINDS = {"openvino": ("KIND_CPU", "KIND_AUTO"), "tensorrt": ("KIND_GPU", "KIND_AUTO")}
_PLATFORMS = {"tensorrt_plan": "tensorrt"}
_SWITCHES = ("YES", "NO")
# every instance holds threads, memory and, on a GPU, a context of its own
_MOST_INSTANCES = 64
_NUMBER = "a number from 0 up"
# openvino_backend db19304, README and openvino.cc: what its parameters may say
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "PERFORMANCE_HINT": ("LATENCY", "THROUGHPUT", "CUMULATIVE_THROUGHPUT"),
    "HINT_BF16": ("YES",),
    "SKIP_OV_DYNAMIC_BATCHSIZE": _SWITCHES,
    "ENABLE_BATCH_PADDING": _SWITCHES,
    "RESHAPE_IO_LAYERS": _SWITCHES,
    "INFERENCE_NUM_THREADS": (_NUMBER,),
    "COMPILATION_NUM_THREADS": (_NUMBER,),
    "NUM_STREAMS": ("AUTO", "NUMA", _NUMBER),
    "TARGET_DEVICE": (),
    "CPU_EXTENSION_PATH": (),
}


def broken_rules(config: Any, folder: Path, versions: list[int]) -> list[str]:
    """Complaints about a parsed config in its model folder, with the versions that lie there."""
    rules: tuple[Callable[[Any], Iterable[str]], ...] = (
        _backend,
        _ensemble,
        _batch_size,
        _dynamic_batching,
        _ports,
        _instances,
        _warmup,
        _parameters,
    )
    found = [complaint for rule in rules for complaint in rule(config)]
    return [*_name(config, folder), *found, *_versions(config, versions)]


def switched_on(config: Any, parameter: str) -> bool:
    """Whether a parameter of the OpenVINO backend says YES."""
    # asking a protobuf map for a key it lacks would add it
    if parameter not in config.parameters:
        return False
    return bool(config.parameters[parameter].string_value.upper() == "YES")


def enum_name(message: Any, field: str) -> str:
    """The name of an enum field's value."""
    kind = type(message).DESCRIPTOR.fields_by_name[field].enum_type
    value = kind.values_by_number.get(getattr(message, field))
    return str(value.name) if value is not None else str(getattr(message, field))


def _name(config: Any, folder: Path) -> Iterator[str]:
    if config.name != folder.name:
        yield f"name {config.name!r}, its folder is {folder.name!r}; both have to be the same"


def _backend(config: Any) -> Iterator[str]:
    if not config.backend:
        yield f"no backend; give one of {', '.join(sorted(MODEL_FILES))}"
    elif config.backend not in MODEL_FILES:
        yield f"backend {config.backend!r}; onnx-deploy packages for {', '.join(MODEL_FILES)}"
    elif config.platform and _PLATFORMS.get(config.platform) != config.backend:
        yield f"platform {config.platform!r} is not of backend {config.backend!r}; leave it out"
    if "/" in config.default_model_filename or config.default_model_filename.startswith("."):
        yield f"default_model_filename {config.default_model_filename!r} is not a plain file name"


def _ensemble(config: Any) -> Iterator[str]:
    if config.HasField("ensemble_scheduling"):
        yield (
            "ensemble_scheduling: an ensemble runs other models and has no engine of its own; give "
            "it a folder of its own and leave it out here"
        )


def _batch_size(config: Any) -> Iterator[str]:
    if config.max_batch_size < 0:
        yield f"max_batch_size {config.max_batch_size}; it is 0 or more"
    padded = switched_on(config, "ENABLE_BATCH_PADDING")
    if config.backend == "openvino" and config.max_batch_size > 1 and not padded:
        yield (
            f"max_batch_size {config.max_batch_size} without ENABLE_BATCH_PADDING: the OpenVINO "
            "backend fails every group that is smaller"
        )


def _dynamic_batching(config: Any) -> Iterator[str]:
    if not config.HasField("dynamic_batching"):
        return
    chosen, most = config.dynamic_batching, config.max_batch_size
    if most < 1:
        yield f"dynamic_batching with max_batch_size {most}; there is nothing to group"
    for size in chosen.preferred_batch_size:
        if not 1 <= size <= max(most, 1):
            yield f"preferred_batch_size {size}, max_batch_size is {most}"
    levels, default = chosen.priority_levels, chosen.default_priority_level
    if levels and not 1 <= default <= levels:
        yield f"default_priority_level {default} of {levels} priority_levels; levels start at 1"
    if default and not levels:
        yield f"default_priority_level {default} without priority_levels"
    for level in chosen.priority_queue_policy:
        if not 1 <= level <= levels:
            yield f"priority_queue_policy for level {level} of {levels}"


def _ports(config: Any) -> Iterator[str]:
    for kind, ports in (("input", config.input), ("output", config.output)):
        if not ports:
            yield f"no {kind}; every input and output is declared"
        names = [port.name for port in ports]
        for name in sorted({n for n in names if names.count(n) > 1}):
            yield f"{kind} {name!r} twice"
        for port in ports:
            yield from (f"{kind} {port.name!r}: {said}" for said in _port(port, config.backend))


def _port(port: Any, backend: str) -> Iterator[str]:
    if not port.name:
        yield "no name"
    kind = enum_name(port, "data_type")
    if kind == "TYPE_INVALID":
        yield "no data_type"
    elif backend == "openvino" and kind in NOT_OPENVINO:
        yield f"{kind}, which the OpenVINO backend doesn't take"
    if not port.dims:
        yield "no dims"
    for size in port.dims:
        if size < 1 and size != -1:
            yield f"dimension {size}; sizes are 1 or more, -1 is any"
    fixed = all(size > 0 for size in (*port.dims, *port.reshape.shape))
    if port.HasField("reshape") and fixed:
        counts = math.prod(port.dims), math.prod(port.reshape.shape)
        if counts[0] != counts[1]:
            yield f"dims hold {counts[0]} numbers, reshape holds {counts[1]}"


def _instances(config: Any) -> Iterator[str]:
    allowed = _KINDS.get(config.backend, ())
    for group in config.instance_group:
        kind = enum_name(group, "kind")
        # 0 is what an absent count reads as, and means 1
        if group.count < 0:
            yield f"instance_group count {group.count}; it is 1 or more"
        if group.count > _MOST_INSTANCES:
            yield (
                f"instance_group count {group.count}; at most {_MOST_INSTANCES} on a device, each "
                "holds threads and memory of its own"
            )
        if allowed and kind not in allowed:
            yield f"instance_group {kind}; backend {config.backend!r} runs on {allowed[0]}"
        if group.gpus and kind not in ("KIND_GPU", "KIND_AUTO"):
            yield f"instance_group {kind} with gpus {list(group.gpus)}"


def _warmup(config: Any) -> Iterator[str]:
    ports = {port.name: port for port in config.input}
    for warmup in config.model_warmup:
        where = f"model_warmup {warmup.name!r}"
        if warmup.batch_size > max(config.max_batch_size, 1):
            yield (
                f"{where}: batch_size {warmup.batch_size}, max_batch_size is "
                f"{config.max_batch_size}; Triton 2.51 crashes on it"
            )
        for name in sorted(set(warmup.inputs) - set(ports)):
            yield f"{where}: no input {name!r}; there are: {', '.join(sorted(ports))}"
        for name in sorted(set(ports) - set(warmup.inputs)):
            if not ports[name].optional:
                yield f"{where}: input {name!r} is missing"
        for name in sorted(set(ports) & set(warmup.inputs)):
            yield from (
                f"{where}: input {name!r}: {said}"
                for said in _warmup_input(warmup.inputs[name], ports[name])
            )


def _warmup_input(given: Any, port: Any) -> Iterator[str]:
    if given.WhichOneof("input_data_type") is None:
        yield "no data; give zero_data, random_data or input_data_file"
    file = Path(given.input_data_file)
    if file.is_absolute() or ".." in file.parts:
        yield f"input_data_file {given.input_data_file!r} leads out of the model's warmup folder"
    if enum_name(given, "data_type") != enum_name(port, "data_type"):
        yield f"{enum_name(given, 'data_type')}, the input is {enum_name(port, 'data_type')}"
    fits = len(given.dims) == len(port.dims) and all(
        size > 0 and wanted in (-1, size)
        for size, wanted in zip(given.dims, port.dims, strict=True)
    )
    if not fits:
        yield f"dims {list(given.dims)}, the input has {list(port.dims)}"


def _parameters(config: Any) -> Iterator[str]:
    if config.backend != "openvino":
        return
    for key in sorted(config.parameters):
        value = config.parameters[key].string_value
        if key not in _PARAMETERS:
            yield f"parameter {key!r}; the OpenVINO backend has: {', '.join(sorted(_PARAMETERS))}"
            continue
        allowed = _PARAMETERS[key]
        number = _NUMBER in allowed and value.isascii() and value.isdigit()
        if allowed and not number and value.upper() not in allowed:
            yield f"parameter {key} = {value!r}; it takes {', '.join(allowed)}"


def _versions(config: Any, versions: list[int]) -> Iterator[str]:
    if not versions:
        yield "no version folder; a model lies in a folder named 1, 2, …"
    chosen = config.version_policy
    for version in chosen.specific.versions:
        if version not in versions:
            there = ", ".join(map(str, versions)) or "none"
            yield f"version_policy asks for version {version}; there are: {there}"
    policy = chosen.WhichOneof("policy_choice")
    if policy == "latest" and chosen.latest.num_versions < 1:
        yield "version_policy latest with num_versions 0"
    if policy == "specific" and not chosen.specific.versions:
        yield "version_policy specific without versions"
