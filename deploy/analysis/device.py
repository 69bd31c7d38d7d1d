"""A device as `deploy analyze` sees it: its roofline, whether or not it can be built for.

`--target NAME` is a target first, else a row `hardware/<name>.toml`, which has figures alone.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy import registry
from deploy.analysis.probe import Measured
from deploy.errors import RecipeError, nearest
from deploy.precisions import computed_in
from deploy.target import Precision, Roofline, Target
from deploy.validation import explain


class Hardware(BaseModel):
    """A row of hardware: figures, and nothing to build with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    roofline: Roofline
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Device:
    """A roofline with a name; `measured_on` is the machine's name where a probe measured it."""

    name: str
    title: str
    roofline: Roofline
    notes: tuple[str, ...] = ()
    target: Target | None = None
    measured_on: str = ""

    @classmethod
    def find(cls, name_or_path: str) -> Device:
        """The target or hardware row of that name or TOML file; RecipeError if there is none."""
        file = Path(name_or_path) if name_or_path.endswith(".toml") else None
        if name_or_path in registry.names("target") or (file and not _is_hardware(file)):
            return cls.of(Target.load(name_or_path))
        known = [*registry.names("target"), *registry.names("hardware")]
        if file is None and name_or_path not in known:
            raise RecipeError(
                f"unknown target {name_or_path!r}{nearest(name_or_path, known)}; there are: "
                f"{', '.join(sorted(set(known)))}"
            )
        return _hardware(file or registry.path("hardware", name_or_path))

    @classmethod
    def of(cls, target: Target) -> Device:
        """The device a target is for."""
        return cls(target.name, target.title, target.roofline, target.notes, target)

    def rest(self, precision: Precision) -> Precision:
        """The float type beside 8 bits, where there is a target to say it."""
        return computed_in(self.target, precision) if self.target else precision

    def measured(self, probe: Measured) -> Device:
        """The same device with this machine's own figures in place of the file's."""
        figures = {
            "peak_flops": probe.peak_flops,
            "bandwidth_bytes_per_s": probe.bandwidth_bytes_per_s,
            "on_chip_bytes": self.roofline.on_chip_bytes,
        }
        roofline = Roofline.model_validate(figures)
        return Device(self.name, self.title, roofline, (), self.target, probe.machine)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What it has a rate for, the widest first."""
        order: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
        return tuple(p for p in order if p in self.roofline.peak_flops)


def _is_hardware(file: Path) -> bool:
    """Whether a TOML file has figures alone; what can't be read is left to Target's messages."""
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return False
    return "roofline" in table and set(table) <= set(Hardware.model_fields)


def _hardware(file: Path) -> Device:
    try:
        row = Hardware.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise RecipeError(f"{file.name}: {explain(error, Hardware)}") from None
    return Device(file.stem, row.title, row.roofline, row.notes)
