"""The calibration cache: a range per tensor, and the hashes of everything it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calibrators.ranges import Range
from deploy.errors import CalibrationError
from deploy.files import json_bytes, write_aside

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Picture:
    """A small histogram for people: bars of equal width starting at `start`."""

    start: float
    width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TensorRange:
    """What quantization uses (`range`), what was seen, and how it was distributed.

    clipped: share of the values outside `range` widened to hold zero; reason: the calibrator's,
    in words, or empty.
    """

    range: Range
    seen: Range
    picture: Picture
    clipped: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class Source:
    """Where ranges come from: hashes of the model and of every sample, and the settings."""

    model_sha256: str
    sample_sha256: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Ranges:
    """A range for every float activation, keyed by its ONNX tensor name.

    infinite: those that have none, as they held Inf, and on how many samples; layers at them stay
    float.
    """

    tensors: Mapping[str, TensorRange]
    source: Source
    infinite: Mapping[str, int] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write JSON: the same ranges give the same bytes."""
        tensors = {
            name: {
                "low": t.range.low,
                "high": t.range.high,
                "seen_low": t.seen.low,
                "seen_high": t.seen.high,
                "clipped": t.clipped,
                "reason": t.reason,
                "histogram": {
                    "start": t.picture.start,
                    "width": t.picture.width,
                    "counts": list(t.picture.counts),
                },
            }
            for name, t in self.tensors.items()
        }
        content = {
            "schema_version": SCHEMA_VERSION,
            "model_sha256": self.source.model_sha256,
            "sample_sha256": list(self.source.sample_sha256),
            "settings": dict(self.source.settings),
            "tensors": tensors,
        }
        if self.infinite:
            content["infinite"] = dict(self.infinite)
        content["content_sha256"] = _content_hash(content)
        write_aside(path, json_bytes(content))

    @classmethod
    def load(cls, path: Path) -> Ranges:
        """Read what `save` wrote; CalibrationError when it isn't that."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CalibrationError(f"{path}: {error.strerror}; give a ranges.json") from None
        except ValueError as error:
            raise CalibrationError(
                f"{path}: not a ranges file ({error}); calibrate again"
            ) from None
        return _parse(content, path)

    def why_not(self, source: Source) -> str | None:
        """Why these ranges don't belong to that model, data and settings; None when they do."""
        mine = self.source
        if mine.model_sha256 != source.model_sha256:
            return (
                f"made from model {mine.model_sha256[:12]}, this one is {source.model_sha256[:12]}"
            )
        names = sorted({*mine.settings, *source.settings})
        changed = [n for n in names if mine.settings.get(n) != source.settings.get(n)]
        if changed:
            return (
                f"made with {_setting(mine, changed)}, this build has {_setting(source, changed)}"
            )
        if mine.sample_sha256 != source.sample_sha256:
            count = len(set(mine.sample_sha256) ^ set(source.sample_sha256))
            return f"made from other samples ({count} differ)"
        return None


def _share(value: Any) -> float:
    if not isinstance(value, float | int) or not 0 <= value <= 1:
        raise ValueError(f"clipped {value!r} is no share")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"reason {value!r} is no text")
    return value


def _setting(source: Source, names: list[str]) -> str:
    return ", ".join(f"{name} = {source.settings.get(name, 'nothing')}" for name in names)


def _content_hash(content: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in content.items() if key != "content_sha256"}
    return hashlib.sha256(json_bytes(kept)).hexdigest()


def _parse(content: Any, path: Path) -> Ranges:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise CalibrationError(
            f"{path}: schema version {version!r}, this onnx-deploy reads {SCHEMA_VERSION}; "
            "calibrate again"
        )
    try:
        if content.get("content_sha256") != _content_hash(content):
            raise CalibrationError(f"{path}: changed since it was written; calibrate again")
        tensors = {
            name: TensorRange(
                Range(t["low"], t["high"]),
                Range(t["seen_low"], t["seen_high"]),
                Picture(
                    t["histogram"]["start"],
                    t["histogram"]["width"],
                    tuple(t["histogram"]["counts"]),
                ),
                _share(t["clipped"]),
                _text(t["reason"]),
            )
            for name, t in content["tensors"].items()
        }
        source = Source(
            content["model_sha256"], tuple(content["sample_sha256"]), dict(content["settings"])
        )
        infinite = {str(name): int(count) for name, count in content.get("infinite", {}).items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CalibrationError(f"{path}: damaged ({error!r}); calibrate again") from None
    return Ranges(tensors, source, infinite)
