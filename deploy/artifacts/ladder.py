"""The parity ladder: what every stage does to the outputs, and which node lost too much.

Written by the pipeline beside the engine's evidence, read by the report and `deploy parity`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.errors import BundleError
from deploy.files import json_bytes, write_aside

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TensorError:
    """One tensor against its twin.

    max_rel: the largest error over the tensor's largest value. counts: how many values are off by
    each decade of the tensor's root mean square: below 1e-8, 1e-8 to 1e-7, ... 10 and more.
    """

    tensor: str
    operator: str
    sqnr_db: float
    cosine: float
    max_abs: float
    max_rel: float
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class OutputLoss:
    """One output on one rung against the untouched model.

    limit_db, limit_from: the least SQNR that is accepted, and who says so; None where nobody does.
    """

    figures: TensorError
    limit_db: float | None = None
    limit_from: str = ""

    @property
    def passed(self) -> bool:
        return self.limit_db is None or self.figures.sqnr_db >= self.limit_db


@dataclass(frozen=True)
class Culprit:
    """The node at which a stage went wrong.

    observed_db, expected_db: SQNR of `tensor` out of the right values of the tensors in front of
    it, and the least of a sound stage. nodes: the smallest part that still fails, this node among
    them. why: in words, what was seen.
    """

    node: str
    operator: str
    tensor: str
    observed_db: float
    expected_db: float
    nodes: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Rung:
    """A stage's product.

    own_db: SQNR against the rung before, of the output nearest to its bound; allowed_db: what a
    sound stage reaches at least, allowed_why: how that is known. culprits: where it went wrong, the
    first node first.
    tensors: the tensors it shares with the rung before, against those; empty where not looked at.
    """

    name: str
    stage: str
    against: str
    outputs: tuple[OutputLoss, ...]
    own_db: float
    allowed_db: float
    allowed_why: str
    culprits: tuple[Culprit, ...] = ()
    tensors: tuple[TensorError, ...] = ()

    @property
    def worst_db(self) -> float:
        """SQNR against the untouched model, of the worst output."""
        return min(out.figures.sqnr_db for out in self.outputs)

    @property
    def sound(self) -> bool:
        """Whether the stage lost no more than such a stage may, whatever others lost."""
        return self.own_db >= self.allowed_db and not self.culprits

    @property
    def passed(self) -> bool:
        return self.sound and all(out.passed for out in self.outputs)


@dataclass(frozen=True)
class Ladder:
    """All rungs, from the untouched model on; samples: how many they were compared on."""

    samples: int
    about: str
    rungs: tuple[Rung, ...]

    @property
    def broken(self) -> tuple[Rung, ...]:
        """Rungs whose own stage lost more than it may."""
        return tuple(rung for rung in self.rungs if not rung.sound)

    @property
    def passed(self) -> bool:
        return all(rung.passed for rung in self.rungs)

    def added(self, rung: Rung) -> float:
        """The part of the noise on the last rung that comes in on this one; below 0 where a stage
        takes noise back."""
        at = self.rungs.index(rung)
        total = _noise(self.rungs[-1])
        return (_noise(rung) - (_noise(self.rungs[at - 1]) if at else 0.0)) / (total or 1.0)

    def drop_db(self, rung: Rung) -> float:
        """How much SQNR against the untouched model is lost from the rung before to this one."""
        at = self.rungs.index(rung)
        return self.rungs[at - 1].worst_db - rung.worst_db if at else 0.0

    def verdict(self) -> str:
        """One line: the stage that went wrong and its node, or where most is lost."""
        if self.broken:
            rung = self.broken[0]
            if rung.own_db >= rung.allowed_db:
                first = rung.culprits[0]
                return (
                    f"{rung.stage} went wrong: first at {first.node}, which reaches "
                    f"{first.observed_db:.1f} dB out of right inputs, a sound one "
                    f"{first.expected_db:.1f} dB; the outputs don't show it on these samples"
                )
            told = (
                f"{rung.stage} went wrong: {rung.own_db:.1f} dB against {rung.against}, a sound "
                f"stage reaches {rung.allowed_db:.1f} dB"
            )
            return f"{told}; first at {rung.culprits[0].node}" if rung.culprits else told
        missed = [(r, out) for r in self.rungs for out in r.outputs if not out.passed]
        if missed:
            rung, out = missed[0]
            return (
                f"{rung.name}: output {out.figures.tensor!r} reaches {out.figures.sqnr_db:.1f} dB, "
                f"needs {out.limit_db:g} ({out.limit_from}); every stage lost what such stages do"
            )
        if len(self.rungs) < 2:
            return f"{len(self.rungs)} stage compared"
        most = max(self.rungs[1:], key=self.added)
        return f"every stage as it should be; most is lost by {most.stage} ({most.worst_db:.1f} dB)"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            **asdict(self),
            "passed": self.passed,
            "verdict": self.verdict(),
            "broken": [rung.name for rung in self.broken],
        }

    def save(self, path: Path) -> None:
        """Write JSON: the same ladder gives the same bytes."""
        write_aside(path, json_bytes(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> Ladder:
        """Read what `save` wrote; BundleError when it isn't that."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema version {content['schema_version']!r}")
            return cls(
                content["samples"], content["about"], tuple(_rung(r) for r in content["rungs"])
            )
        except OSError as error:
            raise BundleError(f"{path}: {error.strerror}; build the bundle again") from None
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{path}: damaged ({error!r}); build the bundle again") from None


def _noise(rung: Rung) -> float:
    """Noise power over signal power, of the worst output."""
    return float(10 ** (-rung.worst_db / 10))


def _rung(row: Mapping[str, Any]) -> Rung:
    outputs = tuple(
        OutputLoss(_tensor(o["figures"]), o["limit_db"], o["limit_from"]) for o in row["outputs"]
    )
    culprits = tuple(Culprit(**{**c, "nodes": tuple(c["nodes"])}) for c in row["culprits"])
    tensors = tuple(map(_tensor, row["tensors"]))
    return Rung(**{**row, "outputs": outputs, "culprits": culprits, "tensors": tensors})


def _tensor(row: Mapping[str, Any]) -> TensorError:
    return TensorError(**{**row, "counts": tuple(row["counts"])})
