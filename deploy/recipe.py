"""What the user asked for, from a TOML file and flags, validated once.

Every field is a TOML key and a flag of the same name (`max_drop` is `--max-drop`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from calibrators.preprocess import Preprocess
from deploy import registry
from deploy.errors import DeployError, RecipeError
from deploy.target import Precision
from deploy.validation import explain


class OutputGate(BaseModel):
    """Thresholds of one output, in place of the target's: a regression head isn't a class score."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_sqnr_db: float | None = Field(default=None, allow_inf_nan=False)
    min_cosine: float | None = Field(default=None, ge=-1, le=1)


class Recipe(BaseModel):
    """All the choices of one build; what is None is decided by the target.

    data, eval_data: dataset URIs; eval_data defaults to data's test split or unused samples.
    samples, eval_samples: at most so many, spread evenly over the data.
    batch_size: samples read and handed over together; the ranges don't depend on it.
    fold_input: the engine takes raw uint8 images and does scale, mean, std and layout itself.
    effort: fast quantizes as it is; default equalizes, corrects, and chooses among placements by
    measured time; best also leaves the noisiest layers in float.
    search_s: seconds for timing candidates; 0 takes the target's own placement.
    keep_float: layers by name, or kinds of them, that stay out of INT8.
    approximate: activations replaced by cheaper ones ("swish"): not exact, judged by the gates.
    int8_weights, int4_weights: store weights as integers and compute in float; dynamic also
    quantizes activations while running.
    workers: Dask workers that calibrate and judge; never changes a result.
    plugin_path: folders of the user's plugins, or folders of such.
    fusion_path: files with fusions of the user's; the target says where they run.
    shape: per input, one entry per dimension; None keeps that dimension dynamic.
    task: how predictions are judged: "auto" (classes, where an output is sure to hold scores),
    "none", or a file of deploy/tasks; task_option: what that task wants to know.
    scores: the output that holds one score per class, where it isn't clear.
    outputs: per output its own thresholds, in place of the target's and of min_sqnr_db.
    resize_mode, pad_value: how a picture fills `resize`, see calibrators.framing.
    max_drop: percentage points, of the task's metric with labels, of agreement with float32
    without.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    target: str = "cpu"
    precision: Precision | None = None
    data: str | None = None
    eval_data: str | None = None
    data_key: dict[str, str] = {}
    samples: int = Field(default=300, ge=1)
    eval_samples: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=8, ge=1)
    calibrator: str = "auto"
    effort: Literal["fast", "default", "best"] = "default"
    search_s: float = Field(default=20, ge=0, allow_inf_nan=False)
    keep_float: tuple[str, ...] = ()
    approximate: tuple[str, ...] = ()
    int8_weights: bool = False
    int4_weights: bool = False
    dynamic: bool = False
    workers: str | None = None
    ranges: str | None = None
    plugin_path: tuple[str, ...] = ()
    fusion_path: tuple[str, ...] = ()
    shape: dict[str, tuple[int | None, ...]] = {}
    batch: Annotated[int, Field(ge=1)] | Literal["dynamic"] | None = None
    task: str = "auto"
    task_option: dict[str, str | int | float | bool] = {}
    scores: str | None = None
    max_drop: float | None = Field(default=None, ge=0, le=100)
    min_sqnr_db: float | None = Field(default=None, allow_inf_nan=False)
    outputs: dict[str, OutputGate] = {}
    resize: tuple[int, ...] | None = None
    resize_mode: Literal["stretch", "letterbox", "top-left", "pad-right"] = "stretch"
    pad_value: float = Field(default=0.0, ge=0, le=255)
    crop: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR", "GRAY"] = "RGB"
    fold_input: bool = False

    @field_validator("resize", "crop", "mean", "std", mode="before")
    @classmethod
    def _number_is_a_list_of_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int | float) else value

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, value: str) -> str:
        allowed = ["auto", "none", *registry.names("task")]
        if value not in allowed:
            raise ValueError(f"should be one of {', '.join(allowed)}")
        return value

    @field_validator("workers")
    @classmethod
    def _workers_can_be_parsed(cls, value: str | None) -> str | None:
        # imported here: a recipe without workers needs no cluster
        from deploy.cluster.workers import Workers

        if value is not None:
            try:
                Workers.parse(value)
            except DeployError as error:
                raise ValueError(str(error)) from None
        return value

    @field_validator("shape", mode="before")
    @classmethod
    def _question_mark_is_dynamic(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {
            name: [None if d in ("?", -1) else d for d in dims]
            if isinstance(dims, list | tuple)
            else dims
            for name, dims in value.items()
        }

    @classmethod
    def read(cls, file: str | None, flags: Mapping[str, Any]) -> Recipe:
        """The TOML file's keys, overridden by the flags that were given (not None)."""
        table = _toml(Path(file)) if file else {}
        given = {key: value for key, value in flags.items() if value is not None}
        source = file or "flags"
        try:
            recipe = cls.model_validate(table | given)
            recipe.preprocess()
        except ValidationError as error:
            raise RecipeError(f"{source}: {explain(error, cls)}") from None
        except ValueError as error:
            raise RecipeError(f"{source}: {error}") from None
        for folder in recipe.plugin_path:
            registry.add_plugin_path(Path(folder))
        for rule in recipe.fusion_path:
            registry.add_fusion_path(Path(rule))
        return recipe

    def preprocess(self) -> Preprocess:
        """How raw images become the model's input; ValueError for an impossible combination."""
        return Preprocess(
            resize=self.resize,
            crop=self.crop,
            mean=self.mean,
            std=self.std,
            scale=self.scale,
            layout=self.layout,
            color=self.color,
            raw=self.fold_input,
            resize_mode=self.resize_mode,
            pad_value=self.pad_value,
        )


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give an existing recipe file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
