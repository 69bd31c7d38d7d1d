"""Image files as samples, decoded one at a time, with what is known of each."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from calibrators import feeds
from calibrators.samples import DatasetSpec, Sample
from calibrators.truths import Boxes, LabelMap, Text

# what Pillow raises on damaged files, depending on the format
_BROKEN = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class Row:
    """An image file and what is known of it. map: an image of class numbers."""

    name: str
    path: Path
    label: int | None = None
    split: str | None = None
    text: str | None = None
    map: Path | None = None
    boxes: Boxes | None = None


class Pictures:
    """A dataset of image files, in the order of the rows; ValueError where images don't fit."""

    def __init__(self, rows: Sequence[Row], spec: DatasetSpec) -> None:
        self._rows = rows
        self._spec, self._preprocess = feeds.image_input(spec)

    @property
    def splits(self) -> Sequence[str | None]:
        return [row.split for row in self._rows]

    def read(self, indices: Sequence[int]) -> Iterator[Sample]:
        for row in (self._rows[i] for i in indices):
            img = _decoded(row.path)
            array = feeds.feed_image(img, self._spec, self._preprocess, str(row.path))
            truth = _truth(row) if row.boxes is None else self._placed(row.boxes, img)
            yield Sample(row.name, {self._spec.name: array}, row.label, row.split, truth)

    def _placed(self, boxes: Boxes, img: Image.Image) -> Boxes:
        """Boxes in 0..1 of what is fed, where padding moves them."""
        if not self._preprocess.pads:
            return boxes
        inside = self._preprocess.framed(img.height, img.width)
        return replace(boxes, corners=inside.placed(boxes.corners))


def _decoded(path: Path) -> Image.Image:
    try:
        with Image.open(path) as img:
            img.load()
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"unreadable image {path} ({reason}); replace it or take it out"
        ) from error
    return img


def _truth(row: Row) -> Text | LabelMap | None:
    if row.text is not None:
        return Text(row.text)
    if row.map is None:
        return None
    classes = np.asarray(_decoded(row.map))
    if classes.ndim != 2:
        raise ValueError(
            f"{classes.shape[2]} channels in label map {row.map}; save the class numbers as one: a "
            "PNG with a palette or in gray"
        )
    return LabelMap(classes.astype(np.int64))
