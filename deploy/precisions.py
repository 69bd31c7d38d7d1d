"""What a precision means on a target: its form in 8 bits, the float type beside it, its name."""

from __future__ import annotations

from deploy.target import QUANTIZED, Precision, Target, Variant

_HINTS: dict[str, Precision] = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}


def quantized_as(target: Target, precision: Precision) -> Target:
    """The target as it quantizes at that precision: of fp8 its own placement and type."""
    if precision != "fp8" or target.float8 is None:
        return target
    form = {"activation_dtype": "float8e4m3fn", "activation_symmetric": True, "weight_bits": 8}
    whole = Variant(
        name="all", title="everything the placement takes", keep_float=target.float8.keep_float
    )
    update = {
        "placement": target.float8.placement,
        "quantization": target.quantization.model_copy(update=form),
        # float8 keeps the relative precision of every value: levelling channels gains nothing, and
        # shifting them away from 0 loses what they have there (MobileNetV2: 9 dB instead of 17)
        "equalizations": (),
        "variants": (whole.model_copy(update={"title": target.float8.why or whole.title}),),
    }
    return target.model_copy(update=update)


def computed_in(target: Target, precision: Precision) -> Precision:
    """The float type of what isn't in 8 bits: fp16 may be stored only, and beside INT8 there is a
    type of its own. The precision itself where the target leaves it to the vendor."""
    hint = target.engine.inference_precision.get(precision, "")
    return _HINTS.get(hint, precision)


def in_words(precision: str) -> str:
    """How people write it: "INT8", "FP8"; float types as they are."""
    return precision.upper() if precision in QUANTIZED else precision


def compared_precisions(target: Target, precision: str) -> list[Precision]:
    """What an engine is timed beside: float32, and the fastest float type the target has."""
    # fp16 is as fast on NVIDIA's, and keeps three bits more
    half: Precision = "fp16"
    if "bf16" in target.precisions and target.engine.nvidia is None:
        half = "bf16"
    wanted: list[Precision] = ["fp32", half]
    return [p for p in wanted if p in target.precisions and p != precision]
