"""A network as an engine: what TensorRT refuses, the type of every layer, and the bytes.

An engine's bytes are a line of JSON (for which TensorRT and GPU, inputs and outputs, layers) and
the ONNX model with the rounding of the chosen types in it.
"""

from __future__ import annotations

import json
from typing import Any

from onnx import TensorProto

from doubles.calibration import scales_of
from doubles.network_double import type_name
from doubles.simulate import rounded

MAGIC = b"engine of the double\n"
_MISSING = (
    "Missing scale and zero-point for tensor {}, expect fall back to non-int8 implementation for "
    "any layer consuming or producing given tensor"
)
# what has INT8 kernels
_INT8 = """ACTIVATION CONCATENATION CONSTANT CONVOLUTION DECONVOLUTION ELEMENTWISE FULLY_CONNECTED
IDENTITY MATRIX_MULTIPLY PARAMETRIC_RELU POOLING REDUCE RESIZE SCALE SHUFFLE SLICE PLUGIN_V2
PLUGIN_V3"""
_FLOATS = ("FLOAT", "HALF", "BF16")
FLOAT8 = int(TensorProto.FLOAT8E4M3FN)
_PRECISION_FLAGS = ("FP16", "INT8", "BF16", "FP8")


class RefusedError(Exception):
    """Why build_serialized_network gives None; what it logs as an error."""


def compile_network(builder: Any, network: Any, config: Any) -> bytes:
    """The engine's bytes, or RefusedError."""
    if not network._layers:
        raise RefusedError("Error Code 4: Internal Error (Network must have at least one output)")
    profile = _profile(network, config)
    on = {name for name, set_ in config._flags.items() if set_}
    quantized = any(step.kind in ("QUANTIZE", "DEQUANTIZE") for step in network._graph.steps)
    _check_types(network, on, quantized)
    if _holds_float8(network) and builder._sm() < 89:
        raise RefusedError(f"FP8 is not supported on SM {builder._sm()}; SM 89 brought it")
    _check_dla(builder, network, config, on, quantized)
    _check_hardware(builder, config)
    if not builder._gpu().devices and not builder._state.get("capabilities"):
        raise RefusedError("no GPU, and no compute capability to compile for was set")
    kinds = _kinds(builder, network, config, on, quantized)
    model = _as_computed(network, kinds)
    head = _head(builder, network, config, on, profile)
    head["layers"] = _layers(network, kinds)
    content: bytes = model.SerializeToString()
    return MAGIC + json.dumps(head).encode() + b"\n" + content


def _profile(network: Any, config: Any) -> dict[str, Any]:
    free = [v.name for v in network._graph.inputs if -1 in v.shape]
    if free and not config._profiles:
        raise RefusedError(
            "Error Code 4: Internal Error (Network has dynamic or shape inputs, but no optimization"
            " profile has been defined.)"
        )
    shapes = config._profiles[0]._shapes if config._profiles else {}
    for name in free:
        if name not in shapes:
            raise RefusedError(
                f"Error Code 4: Internal Error (input {name} has no shape in profile 0)"
            )
        fixed = next(v.shape for v in network._graph.inputs if v.name == name)
        if not all(_fits(shape, fixed) for shape in shapes[name]):
            raise RefusedError(
                f"Error Code 4: API Usage Error (profile of {name} doesn't fit {fixed})"
            )
    return {name: shapes[name] for name in free}


def _fits(shape: Any, fixed: Any) -> bool:
    pairs = zip(fixed, shape)  # noqa: B905, Python 3.8
    return len(shape) == len(fixed) and all(f in (-1, size) for f, size in pairs)


def _check_types(network: Any, on: Any, quantized: bool) -> None:
    chosen = [f for f in _PRECISION_FLAGS if f in on]
    if network._strongly_typed():
        if chosen:
            raise RefusedError(
                f"Error Code 3: API Usage Error (kSTRONGLY_TYPED with precision flag {chosen[0]}; "
                "the graph alone decides types)"
            )
        return
    if quantized and "INT8" not in on:
        raise RefusedError(
            "Error Code 4: Internal Error (Int8 precision has been set for a layer or layer output,"
            " but int8 is not configured in the builder)"
        )
    needed = {"INT8": "INT8", "HALF": "FP16", "BF16": "BF16"}
    for layer in network._layers:
        flag = needed.get(layer._precision)
        if flag and flag not in on:
            raise RefusedError(
                f"Error Code 4: Internal Error (fp16, bf16 or int8 precision has been set for layer"
                f" {layer._name}, but {flag} is not configured in the builder)"
            )


def _check_dla(builder: Any, network: Any, config: Any, on: Any, quantized: bool) -> None:
    if config._enums["default_device_type"].__dict__["name"] != "DLA":
        return
    cores = builder._gpu().dla_cores
    core = config._set_to("DLA_core", 0)
    if core >= cores:
        raise RefusedError(f"DLA core {core} was asked for; this device has {cores}")
    if not on & {"FP16", "INT8"}:
        raise RefusedError("Default DLA is enabled but layer precision is neither fp16 nor int8")
    if quantized:
        raise RefusedError(
            "DLA does not support explicit quantization: Q/DQ layers can't run on it"
        )
    away = [layer._name for layer in network._layers if not config._dla_takes(layer)]
    if away and "GPU_FALLBACK" not in on:
        raise RefusedError(f"DLA can't run layer {away[0]} and GPU fallback is not enabled")


def _check_hardware(builder: Any, config: Any) -> None:
    level = config._enums["hardware_compatibility_level"]
    name = level.__dict__["name"] if level is not None else "NONE"
    if name == "AMPERE_PLUS" and builder._gpu().sm < 80:
        raise RefusedError(f"hardware compatibility AMPERE_PLUS on SM {builder._gpu().sm}")


def _kinds(builder: Any, network: Any, config: Any, on: Any, quantized: bool) -> dict[int, str]:
    """INT8, HALF, BF16 or FLOAT per layer number."""
    floating = "HALF" if "FP16" in on else "BF16" if "BF16" in on else "FLOAT"
    if network._strongly_typed() or quantized:
        if quantized and config._set_to("int8_calibrator") is not None:
            builder._log("WARNING", "Calibrator won't be used in explicit quantization mode.")
        return {i: _explicit(network, i, floating) for i in range(len(network._layers))}
    scales = {}
    if "INT8" in on:
        scales = scales_of(builder, network, config)
        if not scales:
            raise RefusedError(
                "Error Code 2: Internal Error (Calibration failure occurred with no scaling factors"
                " detected. This could be due to no int8 calibrator or insufficient custom scales)"
            )
    network._scales = scales
    warned: dict[str, None] = {}
    found = {}
    for number, layer in enumerate(network._layers):
        kind = _implicit(layer, on, scales, warned)
        if kind != "INT8":
            asked = layer._precision
            kind = asked if asked in _FLOATS else floating
            if asked == "INT8" and "OBEY_PRECISION_CONSTRAINTS" in on:
                raise RefusedError(
                    f"Error Code 10: Internal Error (Could not find any implementation for node "
                    f"{layer._name}.)"
                )
        found[number] = kind if layer._step.kind != "CONSTANT" else "FLOAT"
    for name in warned:
        builder._log("WARNING", _MISSING.format(name))
    return found


def _implicit(layer: Any, on: Any, scales: dict[str, float], warned: dict[str, None]) -> str:
    """Whether a layer of a network without Q/DQ runs in INT8."""
    if (
        "INT8" not in on
        or layer._precision not in ("", "INT8")
        or layer._step.kind not in _INT8.split()
    ):
        return ""
    values = [v for v in [*layer._step.inputs, *layer._step.outputs] if v is not None]
    floats = [v for v in values if type_name(v.kind, 10) in _FLOATS]
    if not floats:
        return ""
    missing = [v.name for v in floats if v.name not in scales]
    warned.update(dict.fromkeys(missing))
    return "" if missing else "INT8"


def _explicit(network: Any, number: int, floating: str) -> str:
    """INT8 or FP8 where every float input comes out of a DQ, as the compiler fuses it."""
    steps = network._graph.steps
    step = steps[number]
    writers = {v.name: s for s in steps for v in s.outputs}
    inputs = [v for v in step.inputs if v is not None and type_name(v.kind, 10) in _FLOATS]
    before = [writers[v.name].kind for v in inputs if v.name in writers]
    if (
        step.kind in _INT8.split()
        and before
        and len(before) == len(inputs)
        and set(before) <= {"DEQUANTIZE", "CONSTANT"}
        and "DEQUANTIZE" in before
    ):
        codes = [w.inputs[0].kind for v in inputs for w in [writers.get(v.name)] if w and w.inputs]
        return "FP8" if FLOAT8 in codes else "INT8"
    return (
        "FLOAT"
        if network._strongly_typed() or step.kind in ("QUANTIZE", "DEQUANTIZE")
        else floating
    )


def _holds_float8(network: Any) -> bool:
    steps = network._graph.steps
    return any(v is not None and v.kind == FLOAT8 for s in steps for v in (*s.inputs, *s.outputs))


def _as_computed(network: Any, kinds: dict[int, str]) -> Any:
    """The ONNX graph with the types' rounding; Q/DQ that are there round by themselves."""
    steps = network._graph.steps
    explicit = any(s.kind == "QUANTIZE" for s in steps)
    of_node = {s.node: kinds[i] for i, s in enumerate(steps) if s.main}
    if explicit:
        of_node = {n: k if k not in ("INT8", "FP8") else "FLOAT" for n, k in of_node.items()}
    scales = getattr(network, "_scales", {})
    return rounded(network._graph.model, of_node, scales)


def _head(builder: Any, network: Any, config: Any, on: Any, profile: Any) -> dict[str, Any]:
    values = [("INPUT", v) for v in network._graph.inputs]
    values += [("OUTPUT", v) for v in network._graph.outputs]
    return {
        "version": builder._version,
        "sm": builder._sm(),
        "any_sm": config._enums["hardware_compatibility_level"] is not None
        and config._enums["hardware_compatibility_level"].__dict__["name"] == "AMPERE_PLUS",
        "any_version": "VERSION_COMPATIBLE" in on,
        "dla": config._set_to("DLA_core", 0)
        if config._enums["default_device_type"].__dict__["name"] == "DLA"
        else -1,
        "verbosity": config._enums["profiling_verbosity"].__dict__["name"],
        "profile": profile,
        "tensors": [
            {
                "name": network._tensor(v)._name,
                "source": v.source,
                "mode": mode,
                "type": network._tensor(v)._type,
                "shape": list(v.shape),
            }
            for mode, v in values
        ],
        "plugins": sorted(
            {n.op_type for n in network._graph.model.graph.node if n.domain == "onnx_deploy"}
        ),
    }


def _layers(network: Any, kinds: dict[int, str]) -> list[dict[str, Any]]:
    """What the inspector tells; an activation is part of the layer with weights in front of it."""
    steps = network._graph.steps
    readers: dict[str, list[int]] = {}
    for number, step in enumerate(steps):
        for value in step.inputs:
            if value is not None:
                readers.setdefault(value.name, []).append(number)
    outputs = {v.name for v in network._graph.outputs}
    gone = set()
    found = []
    for number, step in enumerate(steps):
        if number in gone or step.kind in ("CONSTANT", "QUANTIZE", "DEQUANTIZE"):
            continue
        parts = [step]
        while parts[-1].kind in ("CONVOLUTION", "MATRIX_MULTIPLY", "SCALE", "DECONVOLUTION"):
            name = parts[-1].outputs[0].name
            after = readers.get(name, [])
            if (
                len(after) != 1
                or name in outputs
                or steps[after[0]].kind not in ("ACTIVATION", "SCALE")
            ):
                break
            gone.add(after[0])
            parts.append(steps[after[0]])
        found.append(_row(parts, kinds[number]))
    return found


_LAYOUT = {"INT8": "Four wide channel vectorized row major Int8 format"}
_LAYOUT.update({"HALF": "Channel major FP16 format where channel % 8 == 0"})
_LAYOUT.update({"FP8": "Channel major FP8 format where channel % 16 == 0"})


def _row(parts: list[Any], kind: str) -> dict[str, Any]:
    first, last = parts[0], parts[-1]
    layout = _LAYOUT.get(kind, "Row major linear FP32")

    def told(values: list[Any]) -> list[dict[str, Any]]:
        return [
            {"Name": v.name, "Dimensions": list(v.shape), "Format/Datatype": layout}
            for v in values
            if v is not None
        ]

    name = " + ".join(part.name for part in parts)
    return {
        "Name": name,
        "LayerType": "CaskConvolution" if first.kind == "CONVOLUTION" else first.kind.title(),
        "Inputs": told(first.inputs),
        "Outputs": told(last.outputs),
        "ParameterType": first.kind.title(),
        "TacticName": f"double_{first.kind.lower()}_{kind.lower()}",
        "StreamId": 0,
        "Metadata": "\x1e".join(dict.fromkeys(m for part in parts for m in part.metadata)),
    }
