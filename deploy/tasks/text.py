"""Text read by a CTC network: character error rate, between the two and against transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from calibrators.samples import Sample
from calibrators.truths import Text as Transcript
from deploy.artifacts.model import TensorSpec
from deploy.artifacts.parity import Figure, Predictions, SampleParity, TaskParity
from deploy.errors import CalibrationError, RecipeError
from deploy.task import Outputs, TaskResult, Term
from deploy.task_options import Options, checked, jackknifed, output_named, truth_of

_SHOWN = 60

# edits and length of float32 against the transcript, edits of the engine
Row = tuple[int, int, int]


class _Options(Options):
    """output: float[N, steps, characters] or float[steps, N, characters]: a score per character.

    dictionary: a file with a character per line, in the order of the scores. blank: the score that
    stands for no character, -1 for the last. space: the scores have a space behind the
    dictionary's characters. ignore_case, ignore_space: what doesn't count as an error.
    """

    output: str | None = None
    dictionary: str
    blank: int = 0
    space: bool = False
    ignore_case: bool = False
    ignore_space: bool = False


@dataclass(frozen=True)
class Text:
    """Greedy decoding: the best character of every step, repeats and blanks left out."""

    output: str
    options: _Options
    characters: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, outputs: Sequence[TensorSpec], options: Mapping[str, Any]) -> Self:
        if "dictionary" not in options:
            raise RecipeError(
                "--task text needs the characters: --task-option dictionary=FILE, one per line in "
                "the order of the scores"
            )
        chosen = checked(_Options, options, "text")
        name = output_named(outputs, chosen.output, _is_steps, "scores of float[N, steps, chars]")
        characters = [*_read(Path(chosen.dictionary)), *([" "] if chosen.space else [])]
        scores = next(spec.shape[2] for spec in outputs if spec.name == name)
        if scores is not None and scores != len(characters) + 1:
            raise RecipeError(
                f"{chosen.dictionary}: {_count(characters, chosen.space)} and the blank make "
                f"{len(characters) + 1}, but output {name!r} has {scores} scores a step; give "
                "the model's own dictionary, and --task-option space=true where a space comes last"
            )
        blank = chosen.blank % (len(characters) + 1)
        characters.insert(blank, "")
        return cls(name, chosen, tuple(characters))

    def term(
        self, found: SampleParity, sample: Sample, reference: Outputs, engine: Outputs
    ) -> Term:
        exact, ours = self.read(reference[self.output]), self.read(engine[self.output])
        truth = truth_of(sample, Transcript, "text")
        left, right = self._folded(exact), self._folded(ours)
        between = (edits(left, right), max(len(left), len(right)))
        known = None
        if truth is not None:
            wanted = self._folded(truth.text)
            known = (edits(wanted, left), len(wanted), edits(wanted, right))
        shown = replace(
            found,
            reference_said=exact[:_SHOWN],
            engine_said=ours[:_SHOWN],
            truth_said="" if truth is None else truth.text[:_SHOWN],
        )
        return Term(shown, left == right, (between, known))

    def read(self, scores: np.ndarray) -> str:
        """The text of one sample."""
        steps = scores[0] if scores.shape[0] == 1 else scores[:, 0]
        best = steps.argmax(axis=-1)
        if steps.shape[-1] != len(self.characters):
            raise CalibrationError(
                f"output {self.output!r} has {steps.shape[-1]} scores a step, the dictionary and "
                f"the blank make {len(self.characters)}; give the model's own dictionary"
            )
        first = np.append(True, best[1:] != best[:-1])
        return "".join(self.characters[k] for k in best[first])

    def _folded(self, text: str) -> str:
        if self.options.ignore_space:
            text = "".join(text.split())
        return text.lower() if self.options.ignore_case else text

    def result(self, terms: Sequence[Term]) -> TaskResult:
        between = [term.values[0] for term in terms]
        wrong, length = (sum(column) for column in zip(*between, strict=True))
        exact = 100 * sum(term.agrees for term in terms) / len(terms)
        figures = (Figure("lines read alike", None, exact),)
        agreement = 100.0 - (100 * wrong / length if length else 0.0)
        said = Predictions("text", "character agreement", agreement, len(terms), figures)
        known = [term.values[1] for term in terms if term.values[1] is not None]
        return TaskResult(said, _scored(known) if known else None)


def _scored(known: Sequence[Row]) -> TaskParity:
    before, after = _error_rates(known)
    right = [100 * sum(row[side] == 0 for row in known) / len(known) for side in (0, 2)]
    return TaskParity(
        len(known),
        before,
        after,
        after - before,
        jackknifed(known, _rise),
        "text",
        "character error rate",
        rises=True,
        figures=(Figure("exact lines", right[0], right[1]),),
    )


def _error_rates(known: Sequence[Row]) -> tuple[float, float]:
    """Edits per 100 characters of the transcripts, of float32 and of the engine."""
    length = max(sum(row[1] for row in known), 1)
    return 100 * sum(row[0] for row in known) / length, 100 * sum(row[2] for row in known) / length


def _rise(known: Sequence[Row]) -> float:
    before, after = _error_rates(known)
    return after - before


def edits(a: str, b: str) -> int:
    """How many characters have to be put in, taken out or replaced (Levenshtein 1966)."""
    if len(b) > len(a):
        a, b = b, a
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


def _is_steps(spec: TensorSpec) -> bool:
    return len(spec.shape) == 3 and spec.dtype.kind == "f"


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; give an existing dictionary") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from None
    return [line.removesuffix("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def _count(characters: Sequence[str], space: bool) -> str:
    own = len(characters) - space
    return f"{own} characters{', a space' if space else ''}"
