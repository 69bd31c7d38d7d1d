"""config.pbtxt of one model: batching, instances, warm-up and the backend's own parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.artifacts.model import TensorSpec
from deploy.errors import BundleError, RecipeError
from deploy.packaging.config_pbtxt import new_config
from deploy.packaging.options import PackageOptions
from deploy.packaging.served import Served

# where the repository lies in the container
MODELS = "/models"
# Triton's name of each type; what the OpenVINO backend lacks besides is in _NOT_OPENVINO
TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
}
# openvino_backend db19304, openvino_utils.cc: ModelConfigDataTypeToOpenVINOElement
NOT_OPENVINO = ("TYPE_FP64", "TYPE_BF16", "TYPE_STRING")


@dataclass(frozen=True)
class Batching:
    """largest: max_batch_size; 0 means that a request is computed alone, in whatever batch it came.
    padded: the backend fills up every group to the largest batch."""

    largest: int
    padded: bool = False


def batching(served: Served, options: PackageOptions, why_fixed: str) -> Batching:
    """How requests may be grouped, so that the backend computes every one of them rightly.

    Triton's OpenVINO backend compiles for exactly max_batch_size samples and pads smaller groups
    (openvino_backend db19304, openvino.cc: ov::set_batch, ENABLE_BATCH_PADDING). A lone request
    would cost as much as a full group, so requests aren't grouped unless asked for. TensorRT runs
    every batch of its profile as it is.

    why_fixed: why an engine of batch 1 couldn't be given a free one.
    """
    asked = options.max_batch
    if served.runtime == "tensorrt":
        free = all(spec.shape and spec.shape[0] is None for spec in served.inputs)
        largest = served.largest_batch if free else 0
        if asked > largest:
            has = f"up to {largest}" if largest else "a fixed batch"
            raise RecipeError(f"--max-batch {asked}: the engine's profile takes {has}; give less")
        return Batching(asked or largest)
    if served.free_batch:
        return Batching(asked, padded=asked > 1)
    fixed = _fixed_batch(served)
    if asked and asked != fixed:
        reason = f": {why_fixed}" if why_fixed else ""
        raise RecipeError(
            f"--max-batch {asked}: the engine takes a batch of {fixed or 1}{reason}; leave it out, "
            "or build with --batch dynamic"
        )
    return Batching(fixed, padded=fixed > 1) if fixed > 1 else Batching(0)


def _fixed_batch(served: Served) -> int:
    """The batch an engine was built for, where it stands in front of every input and output."""
    batch = served.settings.get("batch")
    specs = (*served.inputs, *served.outputs)
    if isinstance(batch, int) and all(s.shape and s.shape[0] == batch for s in specs):
        return batch
    return 0


def triton_config(served: Served, options: PackageOptions, batches: Batching) -> Any:
    """The ModelConfig message for a bundle's engine."""
    config = new_config()
    config.name = served.name
    config.backend = served.runtime
    config.max_batch_size = batches.largest
    config.version_policy.specific.versions.append(options.version)
    _add_ports(config.input, served.inputs, served, batches)
    _add_ports(config.output, served.outputs, served, batches)
    group = config.instance_group.add(count=options.instances)
    gpu = served.runtime == "tensorrt"
    group.kind = (
        type(group)
        .DESCRIPTOR.fields_by_name["kind"]
        .enum_type.values_by_name["KIND_GPU" if gpu else "KIND_CPU"]
        .number
    )
    if batches.largest > 1:
        # without a delay a request waits only while others are computed
        config.dynamic_batching.SetInParent()
    if served.runtime == "openvino":
        for key, value in _parameters(served, options, batches).items():
            config.parameters[key].string_value = value
    _add_warmup(config, served, batches)
    return config


def _add_ports(ports: Any, specs: Sequence[TensorSpec], served: Served, batches: Batching) -> None:
    for spec in specs:
        kind = TYPES[spec.dtype.name]
        if served.runtime == "openvino" and kind in NOT_OPENVINO:
            raise BundleError(
                f"{served.bundle.folder}: {spec.name} is {spec.dtype}, which Triton's OpenVINO "
                "backend doesn't take; cast it in the model"
            )
        dims = [-1 if d is None else d for d in spec.shape]
        if batches.largest:
            dims = dims[1:]
        if not dims:
            # Triton has no empty shape: a number per sample is declared as [1] and reshaped
            port = ports.add(name=spec.name, dims=[1])
            port.reshape.SetInParent()
        else:
            port = ports.add(name=spec.name, dims=dims)
        port.data_type = _data_type(port, kind)


def _data_type(message: Any, kind: str) -> int:
    return int(
        type(message).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_name[kind].number
    )


def _parameters(served: Served, options: PackageOptions, batches: Batching) -> dict[str, str]:
    """What the bundle's engine was compiled with, as far as the backend has a parameter for it."""
    settings = served.settings
    found = {}
    if options.instances > 1:
        # as many at a time as there are instances; LATENCY would give each all cores in turn
        found["NUM_STREAMS"] = str(options.instances)
    else:
        hint = settings.get("performance_hint")
        found["PERFORMANCE_HINT"] = str(hint) if hint in ("LATENCY", "THROUGHPUT") else "LATENCY"
        if _count(settings, "streams"):
            found["NUM_STREAMS"] = str(_count(settings, "streams"))
    if _count(settings, "threads"):
        found["INFERENCE_NUM_THREADS"] = str(_count(settings, "threads"))
    if computes_in(served) == "bf16":
        found["HINT_BF16"] = "YES"
    device = str(settings.get("device", "CPU"))
    if device != "CPU":
        found["TARGET_DEVICE"] = device
    if batches.padded:
        found["ENABLE_BATCH_PADDING"] = "YES"
    if served.libraries:
        library = served.libraries[0].name
        found["CPU_EXTENSION_PATH"] = f"{MODELS}/{served.name}/{options.version}/{library}"
    return found


def computes_in(served: Served) -> str:
    """The float type the engine was judged with: "f32", "bf16", "" for the vendor's default."""
    table = served.settings.get("inference_precision")
    return str(table.get(served.precision, "")) if isinstance(table, dict) else ""


def _count(settings: dict[str, Any], key: str) -> int:
    value = settings.get(key)
    return value if isinstance(value, int) and 0 < value <= 4096 else 0


def _add_warmup(config: Any, served: Served, batches: Batching) -> None:
    """One request of zeros, so that the first real one finds everything allocated."""
    warmup = config.model_warmup.add(name="one sample", batch_size=1)
    for spec in served.inputs:
        shape = served.samples[spec.name]
        dims = shape[1:] if batches.largest else shape
        row = warmup.inputs[spec.name]
        row.dims.extend(dims or (1,))
        row.data_type = _data_type(row, TYPES[spec.dtype.name])
        # not random: an index into a table has to stay inside it
        row.zero_data = True
