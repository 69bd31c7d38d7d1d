"""What a sample is known to be, beyond a class number: what task metrics compare with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects in a picture.

    corners: float64[N, 4], left, top, right, bottom in 0..1 of the picture that is fed, its padding
    included, so that no resizing moves them. classes: int64[N]. crowd: bool[N], a region of many
    objects: a detection there is neither right nor wrong.
    """

    corners: np.ndarray
    classes: np.ndarray
    crowd: np.ndarray

    def content(self) -> bytes:
        return b"".join(x.tobytes() for x in (self.corners, self.classes, self.crowd))


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A class for every pixel: int64[H, W], of any size."""

    classes: np.ndarray

    def content(self) -> bytes:
        return f"{self.classes.shape}".encode() + self.classes.astype(np.int64).tobytes()


@dataclass(frozen=True)
class Text:
    """What is written in a picture, or said in a recording."""

    text: str

    def content(self) -> bytes:
        return self.text.encode()


@dataclass(frozen=True)
class PairScore:
    """How alike people find two samples: both carry the same pair and score."""

    pair: str
    score: float

    def content(self) -> bytes:
        return f"{self.pair} {self.score!r}".encode()


Truth = Boxes | LabelMap | Text | PairScore

# in messages, by type
WORDS = {Boxes: "boxes", LabelMap: "label maps", Text: "transcripts", PairScore: "pair scores"}


def digest(truth: Truth) -> str:
    """The hash of a truth, for telling one sample from another."""
    return hashlib.sha256(truth.content()).hexdigest()[:16]
