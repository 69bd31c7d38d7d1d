"""The graph as an NVIDIA device's parser gets it, and as this machine can judge it without one.

A weakly typed compiler takes a float32 graph and chooses types by its flags; a strongly typed one
computes every layer in the type the graph gives it. A cache describes INT8 beside a float graph,
which runs here only with the same numbers written into it as Q/DQ: the twin.
"""

from __future__ import annotations

from dataclasses import replace

from deploy.artifacts.model import Decision, Model
from deploy.artifacts.ranges import Ranges
from deploy.errors import BuildError
from deploy.floats.bf16_rounding import with_bf16_rounding
from deploy.floats.convert_float import convert_float
from deploy.floats.half_float8 import half_float8
from deploy.floats.half_rest import half_rest
from deploy.fuse import fuse
from deploy.nvidia.carried import carried, told_in
from deploy.nvidia.implicit import Implicit, implicit, rewritten
from deploy.placement import Exclude
from deploy.precisions import computed_in
from deploy.surgery.batch_size import with_fixed_batch
from deploy.surgery.graph import to_graph, to_model
from deploy.surgery.lower_opset import lower_to
from deploy.surgery.raw_input import cast_raw_inputs
from deploy.surgery.without_qdq import remove_qdq
from deploy.target import QUANTIZED, Precision, Target

# fusions by that name put operators into the graph that only a plugin's kernel runs
_PLUGIN = "plugin_"


def simulated(target: Target) -> Target:
    """The target as it is judged on this machine: ONNX Runtime runs the graph that is shipped, or
    its twin, without plugin kernels."""
    return without_plugins(twin(target)).model_copy(update={"backend": "reference"})


def twin(target: Target) -> Target:
    """The target with its INT8 as Q/DQ in the graph, where it is told beside it: the same numbers,
    and a graph that every stage can read."""
    form = target.quantization
    if form.form != "implicit":
        return target
    form = form.model_copy(update={"form": "qdq", "weight_form": "fp32"})
    return target.model_copy(update={"quantization": form})


def without_plugins(target: Target) -> Target:
    """The target without the fusions that need a plugin's kernel."""
    others = tuple(name for name in target.engine_fusions if not name.startswith(_PLUGIN))
    return target.model_copy(update={"engine_fusions": others})


def on_its_gpu(target: Target) -> Target:
    """The target on the device itself: kernels of ours are measured there before they are used."""
    plain = without_plugins(target)
    ours = tuple(name for name in target.engine_fusions if name not in plain.engine_fusions)
    update = {"host": True, "plugin_fusions": (*ours, *target.plugin_fusions)}
    return plain.model_copy(update=update)


def rest_of(target: Target, precision: Precision) -> Precision:
    """The float type of what isn't in 8 bits, as the target's inference_precision names it."""
    if precision not in QUANTIZED:
        return precision
    rest = computed_in(target, precision)
    return "fp32" if rest in QUANTIZED else rest


def as_shipped(model: Model, target: Target, precision: Precision) -> Model:
    """What the device's parser reads: opset and types it takes, plugin operators it has; what is
    told beside it follows.

    BuildError when an operator has no form in the newest opset the device reads.
    """
    told = told_in(model) if precision == "int8" else None
    plain = model if told is None else told.model
    made = _fused(_typed(_lowered(plain, target), target, precision), target)
    return made if told is None else carried(rewritten(told, made))


def as_judged(model: Model, target: Target, precision: Precision) -> Model:
    """What ONNX Runtime runs in its place: the same graph without plugin operators, its 16 bits
    written into it where the device's compiler would choose them, bfloat16 as rounded float32."""
    lowered = _lowered(model, target)
    typed = _typed(lowered, target, precision)
    if precision in ("fp16", "bf16") and typed is lowered:
        typed = convert_float(lowered, precision)
    return with_bf16_rounding(_fused(typed, target))


def described(
    twin: Model, exact: Model, ranges: Ranges, target: Target, exclude: Exclude
) -> Implicit:
    """INT8 as a cache beside the float graph, from the corrected Q/DQ twin.

    exact: the graph that was calibrated and quantized; exclude: what stayed float then.
    """
    graph = to_graph(twin)
    remove_qdq(graph)
    plain = to_model(graph, exact, ())
    # the same values by the same names: only biases differ from the graph that was calibrated
    source = replace(ranges.source, model_sha256=plain.sha256)
    rest = rest_of(target, "int8")
    if rest not in ("fp16", "fp32"):
        raise BuildError(f"target {target.name!r}: the rest of INT8 in {rest}; give f16 or f32")
    return implicit(plain, replace(ranges, source=source), target, rest=rest, exclude=exclude)


def for_its_compiler(
    twin: Model, exact: Model, ranges: Ranges, target: Target, exclude: Exclude
) -> Model:
    """A quantized graph as the target is told of it: Q/DQ as it is, else the float graph with its
    INT8 beside it. exact, exclude: as `described` takes them."""
    if target.quantization.form != "implicit":
        return twin
    return carried(described(twin, exact, ranges, target, exclude))


def _lowered(model: Model, target: Target) -> Model:
    """The model in an opset the device reads, with the batch size the engine is built for; itself
    where it is so."""
    highest, batch = target.quantization.highest_opset, target.engine.batch
    if batch != "dynamic":
        model = with_fixed_batch(model, batch)
    model = cast_raw_inputs(model)
    if highest is None or model.opset <= highest:
        return model
    graph = to_graph(model)
    obstacle = lower_to(graph, highest)
    if obstacle is not None:
        raise BuildError(
            f"{model.name}: opset {model.opset}, target {target.name!r} reads up to {highest}, and "
            f"{obstacle}; export the model with opset {highest}"
        )
    reason = f"opset {model.opset} becomes {highest}, the newest the device reads"
    done = Decision("build", "opset", "applied", model.name, reason)
    return to_model(graph, model, [*model.decisions, done])


def _typed(model: Model, target: Target, precision: Precision) -> Model:
    """The 16 bits a strongly typed compiler wants to see; the model itself for a weakly typed."""
    nvidia = target.engine.nvidia
    if nvidia is None or nvidia.typing != "strong":
        return model
    rest = rest_of(target, precision)
    if rest == "fp32":
        return model
    if precision == "fp8":
        made = half_float8(model)
    else:
        made = half_rest(model, rest) if precision == "int8" else convert_float(model, rest)
    if problem := too_new(made, rest, target):
        raise BuildError(problem)
    return made.derive(made.proto, [*model.decisions, *made.decisions])


def too_new(typed: Model, rest: Precision, target: Target) -> str:
    """That the device doesn't read the opset a graph in `rest` has to be written in; or ""."""
    highest = target.quantization.highest_opset
    if highest is None or typed.opset <= highest:
        return ""
    return (
        f"{typed.name}: {rest} needs opset {typed.opset} in the graph, target {target.name!r} "
        f"reads up to {highest}; build with --fp16"
    )


def _fused(model: Model, target: Target) -> Model:
    if not target.engine_fusions:
        return model
    made = fuse(model, target.engine_fusions)
    return made.derive(made.proto, [*model.decisions, *made.decisions])
