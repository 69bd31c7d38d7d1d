"""A device as data: what the engine is built for, read from a TOML file and validated once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from deploy import registry
from deploy.errors import RecipeError
from deploy.nvidia.settings import Nvidia
from deploy.validation import explain

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
# what needs ranges: activations and weights in 8 bits
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineSettings(_Table):
    """How the vendor engine is compiled and run.

    batch: the batch size built into the engine, or "dynamic".
    inference_precision: per precision, the float type of what isn't int8; "" is the vendor's own.
    threads, streams: 0 lets the vendor choose.
    dynamic_group: activations in front of integer weights are quantized while running, in groups of
    so many; 0 lets the vendor choose.
    cache_dir: folder of compiled blobs, empty for none; it shortens loading, not running.
    nvidia: what TensorRT builds with, for its devices.
    """

    device: str = "CPU"
    batch: int | Literal["dynamic"] = Field(default=1)
    performance_hint: Literal["LATENCY", "THROUGHPUT"] = "LATENCY"
    threads: int = Field(default=0, ge=0)
    streams: int = Field(default=0, ge=0)
    dynamic_group: int = Field(default=0, ge=0)
    cache_dir: str = ""
    inference_precision: dict[Precision, Literal["", "f32", "f16", "bf16"]] = {}
    nvidia: Nvidia | None = None

    @model_validator(mode="after")
    def _positive_batch(self) -> EngineSettings:
        if self.batch != "dynamic" and self.batch < 1:
            raise ValueError(f'batch = {self.batch}; give a size from 1 up, or "dynamic"')
        return self


class Quantization(_Table):
    """The form 8 bits take on the device: what the placement emits.

    form: "qdq" writes QuantizeLinear/DequantizeLinear into the graph, "implicit" leaves the graph
    float and describes INT8 beside it (a calibration cache and a precision per layer).
    weight_per_channel: one scale per output channel, or one per tensor.
    weight_form: "stored" as integers behind a DequantizeLinear, or "fp32" in front of a Q/DQ pair.
    bias_form: "fp32", or "int32" in steps of activation scale times weight scale.
    highest_opset: the newest operator set the vendor reads; none where it reads all.
    """

    form: Literal["qdq", "implicit"] = "qdq"
    activation_dtype: Literal["uint8", "int8", "float8e4m3fn"] = "uint8"
    activation_symmetric: bool = False
    weight_bits: int = Field(default=8, ge=2, le=8)
    weight_per_channel: bool = True
    weight_form: Literal["stored", "fp32"] = "stored"
    bias_form: Literal["fp32", "int32"] = "fp32"
    highest_opset: int | None = Field(default=None, ge=13)

    @model_validator(mode="after")
    def _the_one_implicit_form(self) -> Quantization:
        own = (self.activation_dtype, self.activation_symmetric, self.weight_bits)
        if self.form == "implicit" and not (own == ("int8", True, 8) and self.weight_per_channel):
            raise ValueError(
                f'form = "implicit" with {own[0]} activations, symmetric = {own[1]}, {own[2]}-bit '
                "weights; TensorRT's cache means int8, symmetric, 8 bits, one scale per channel"
            )
        return self


class Float8(_Table):
    """How FP8 is placed, where the device has it: the rest of its form is always the same.

    keep_float: kinds of layers as `deploy.layer_kinds` names them; why: the reason for it.
    """

    placement: str
    keep_float: tuple[str, ...] = ()
    why: str = ""


class WeightOnly(_Table):
    """How weights are stored where activations stay float.

    symmetric: without zero points. groups: sizes tried for 4 bits. layers: operators that are
    compressed; narrow: those of them that take 4 bits.
    """

    symmetric: bool = True
    groups: tuple[int, ...] = (128, 64, 32)
    layers: tuple[str, ...] = ("MatMul", "Gemm", "Conv", "Gather")
    narrow: tuple[str, ...] = ("MatMul", "Gemm")


class Variant(_Table):
    """A way to place INT8 that is tried by measuring: what it leaves in float.

    keep_float: kinds of layers as `deploy.layer_kinds` names them. rest: the float type of what
    isn't INT8; "" is the target's own.
    """

    name: str
    title: str
    keep_float: tuple[str, ...] = ()
    rest: Literal["", "f32", "f16", "bf16"] = ""


class Roofline(_Table):
    """Peak rates in FLOP/s (an INT8 operation counts as one), bytes/s and bytes."""

    peak_flops: dict[Precision, Annotated[float, Field(gt=0)]]
    bandwidth_bytes_per_s: float = Field(gt=0)
    on_chip_bytes: int = Field(gt=0)


class Tolerance(_Table):
    """What parity accepts, each line optional: below or above it the build fails with exit 3.

    min_sqnr_db: signal to quantization noise of every output, over all samples.
    min_cosine: cosine similarity of every output, over all samples.
    min_agreement_pct: top-1 agreement with float32, where the output is a classifier's.
    max_drop_pct: accuracy points lost where labels exist, points of disagreement otherwise.
    negligible_abs: an output with no larger error than this counts as equal, whatever its SQNR:
    a sigmoid's far tail is all rounding.
    """

    min_sqnr_db: float | None = None
    min_cosine: float | None = None
    min_agreement_pct: float | None = Field(default=None, ge=0, le=100)
    max_drop_pct: float | None = Field(default=None, ge=0, le=100)
    negligible_abs: float = Field(default=1e-6, ge=0)


class Target(_Table):
    """A device: backend, precision, fusions in order, roofline figures, tolerances.

    fusions run on the float graph, quantized_fusions on the one with Q/DQ, engine_fusions on either
    before it is compiled, plugin_fusions too, in an engine that has to be faster than without.
    equalizations, corrections: for INT8, in order. variants: placements to measure, the best first.
    """

    name: str
    title: str
    backend: str
    placement: str
    instruction_set: str
    host: bool = False
    fusions: tuple[str, ...]
    quantized_fusions: tuple[str, ...] = ()
    engine_fusions: tuple[str, ...] = ()
    plugin_fusions: tuple[str, ...] = ()
    equalizations: tuple[str, ...] = ()
    corrections: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = Field(
        default=(Variant(name="all", title="everything the placement takes"),), min_length=1
    )
    default_precision: Precision
    precisions: tuple[Precision, ...] = Field(min_length=1)
    notes: tuple[str, ...] = ()
    engine: EngineSettings = EngineSettings()
    quantization: Quantization = Quantization()
    float8: Float8 | None = None
    weights: WeightOnly = WeightOnly()
    roofline: Roofline
    tolerances: dict[Precision, Tolerance] = {}

    @model_validator(mode="after")
    def _variants_have_names_of_their_own(self) -> Target:
        names = [variant.name for variant in self.variants]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two variants are named {twice!r}; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _float8_says_where(self) -> Target:
        if "fp8" not in self.precisions:
            return self
        nvidia = self.engine.nvidia
        if self.float8 is None:
            raise ValueError("precisions with fp8 and no [float8]; it names the placement")
        if nvidia is None or nvidia.typing != "strong" or self.quantization.form != "qdq":
            raise ValueError(
                "precisions with fp8: only a strongly typed NVIDIA target with Q/DQ in its graph "
                'has it; leave it out, or give typing = "strong" and form = "qdq"'
            )
        return self

    @classmethod
    def load(cls, name_or_path: str) -> Target:
        """The target of that name, or of that TOML file; RecipeError if there is none."""
        table, source = _read(name_or_path)
        try:
            target = cls.model_validate(table)
        except ValidationError as error:
            raise RecipeError(f"{source}: {explain(error, cls)}") from None
        _check_names(target, source)
        return target

    def tolerance(self, precision: Precision) -> Tolerance:
        """What parity accepts at that precision; nothing is gated where the file gives none."""
        return self.tolerances.get(precision, Tolerance())


def with_batch(target: Target, batch: int | Literal["dynamic"] | None) -> Target:
    """The target with another batch size; None leaves its own."""
    if batch is None:
        return target
    engine = target.engine.model_copy(update={"batch": batch})
    return target.model_copy(update={"engine": engine})


def offered(target: Target, precision: Precision) -> Precision:
    """That precision; RecipeError when the target doesn't have it."""
    if precision not in target.precisions:
        raise RecipeError(
            f"{precision} is not offered by target {target.name!r}; it has: "
            f"{', '.join(target.precisions)}"
        )
    return precision


def _read(
    name_or_path: str, folder: Path = Path(), seen: tuple[Path, ...] = ()
) -> tuple[dict[str, Any], str]:
    """The TOML table with what it `extends` merged in, and where it was read.

    A name is a built-in target, a path ending in .toml is relative to `folder`.
    """
    if name_or_path.endswith(".toml"):
        path = (folder / name_or_path).resolve()
        if not path.is_file():
            raise RecipeError(
                f"{name_or_path}: no such target file; `deploy targets` lists the built-in ones"
            )
    else:
        path = registry.path("target", name_or_path)
    if path in seen:
        raise RecipeError(f"{path.name}: extends itself; name another target")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{name_or_path}: not valid TOML: {error}") from None
    table.setdefault("name", path.stem)
    parent = table.pop("extends", None)
    if parent is None:
        return table, path.name
    if not isinstance(parent, str):
        raise RecipeError(f"{path.name}: extends = {parent!r}; give the name of one target")
    return _merge(_read(parent, path.parent, (*seen, path))[0], table), path.name


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def _check_names(target: Target, source: str) -> None:
    for kind, names in (
        ("backend", [target.backend]),
        ("placement", [target.placement, *([target.float8.placement] if target.float8 else [])]),
        ("fusion", [*target.fusions, *target.quantized_fusions, *target.engine_fusions]),
        ("fusion", list(target.plugin_fusions)),
        ("equalization", list(target.equalizations)),
        ("correction", list(target.corrections)),
    ):
        for name in names:
            try:
                registry.path(kind, name)
            except RecipeError as error:
                yours = "; --fusion-path takes one of yours" if kind == "fusion" else ""
                raise RecipeError(f"{source}: {error}{yours}") from None
    if target.default_precision not in target.precisions:
        allowed = ", ".join(target.precisions)
        raise RecipeError(
            f"{source}: default_precision = {target.default_precision!r} is not in precisions: "
            f"{allowed}"
        )
    for precision in target.precisions:
        if precision not in target.roofline.peak_flops:
            raise RecipeError(f"{source}: roofline.peak_flops has no rate for {precision}; add one")
