"""The 22 broken configurations on which Triton was tried, as changes to the one we write.

Each has the words our checker refuses it with. `server` says whether the real server refuses it
too (serving.md, A1): "no" loads and serves wrongly, "crash" takes the server down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Broken:
    name: str
    change: Callable[[str], str]
    refused: str
    server: Literal["parse", "poll", "load", "crash", "no"]


def added(text: str) -> Callable[[str], str]:
    return lambda config: f"{config}\n{text}\n"


def replaced(old: str, new: str, count: int = 1) -> Callable[[str], str]:
    def change(config: str) -> str:
        assert old in config, f"{old!r} is not in the configuration"
        return config.replace(old, new, count)

    return change


# of a configuration with max_batch_size 8 and dynamic batching for the digits example
BROKEN = [
    # protobuf's text format
    Broken("unknown_field", added("max_batch: 3"), 'no field named "max_batch"', "parse"),
    Broken("bad_enum", replaced("TYPE_FP32", "TYPE_FLOAT"), "TYPE_FLOAT", "parse"),
    Broken("scalar_twice", added("max_batch_size: 4"), 'multiple "max_batch_size"', "parse"),
    Broken("two_schedulers", added("sequence_batching { }"), "oneof", "parse"),
    # at poll
    Broken(
        "preferred_above_largest",
        replaced("dynamic_batching {", "dynamic_batching { preferred_batch_size: 16"),
        "preferred_batch_size 16, max_batch_size is 8",
        "poll",
    ),
    Broken(
        "batching_without_batch",
        replaced("max_batch_size: 8", "max_batch_size: 0"),
        "dynamic_batching with max_batch_size 0",
        "poll",
    ),
    Broken(
        "negative_batch",
        replaced("max_batch_size: 8", "max_batch_size: -1"),
        "max_batch_size -1",
        "poll",
    ),
    Broken(
        "other_name",
        replaced('name: "digits"', 'name: "numbers"'),
        "name 'numbers', its folder is 'digits'",
        "poll",
    ),
    Broken(
        "bad_priority",
        replaced(
            "dynamic_batching {", "dynamic_batching { priority_levels: 2 default_priority_level: 5"
        ),
        "default_priority_level 5 of 2",
        "poll",
    ),
    # at load
    Broken(
        "no_dims",
        replaced("  dims: 1\n  dims: 8\n  dims: 8\n", ""),
        "input 'image': no dims",
        "load",
    ),
    Broken(
        "zero_dims",
        replaced("  dims: 1\n  dims: 8", "  dims: 0\n  dims: 8"),
        "input 'image': dimension 0",
        "load",
    ),
    Broken(
        "no_data_type",
        replaced("  data_type: TYPE_FP32\n", ""),
        "input 'image': no data_type",
        "load",
    ),
    Broken(
        "version_not_there",
        replaced("versions: 1", "versions: 3"),
        "version_policy asks for version 3; there are: 1",
        "load",
    ),
    Broken(
        "gpu_without_gpu",
        replaced("KIND_CPU", "KIND_GPU"),
        "instance_group KIND_GPU; backend 'openvino' runs on KIND_CPU",
        "load",
    ),
    Broken(
        "warmup_dims",
        replaced("      dims: 1\n      dims: 8\n", "      dims: 1\n      dims: 9\n"),
        "dims [1, 9, 8], the input has [1, 8, 8]",
        "load",
    ),
    Broken(
        "warmup_name",
        replaced('key: "image"', 'key: "picture"'),
        "no input 'picture'",
        "load",
    ),
    Broken(
        "warmup_above_largest",
        replaced("batch_size: 1\n", "batch_size: 16\n"),
        "batch_size 16, max_batch_size is 8; Triton 2.51 crashes",
        "crash",
    ),
    Broken(
        "other_input",
        lambda config: config.replace('"image"', '"picture"'),
        "input 'picture' is not the model's; it has: image",
        "load",
    ),
    # refused by the backend itself, as our stand-in for it does
    Broken(
        "other_output_shape",
        replaced("  dims: 10\n", "  dims: 11\n"),
        "output 'logits': shape [8, 11], the model has [8, 10]",
        "load",
    ),
    # what loads and then serves wrongly
    Broken("negative_count", replaced("count: 1", "count: -2"), "instance_group count -2", "no"),
    Broken("no_backend", replaced('backend: "openvino"\n', ""), "no backend", "no"),
    Broken(
        "other_platform",
        added('platform: "tensorrt_plan"'),
        "platform 'tensorrt_plan' is not of backend 'openvino'",
        "no",
    ),
]
