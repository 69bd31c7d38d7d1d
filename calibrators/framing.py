"""Where a picture lies in what a network is fed: all of it, or with padding around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MODES = ("stretch", "letterbox", "top-left", "pad-right")


@dataclass(frozen=True)
class Framed:
    """A picture of height x width pixels (after resizing) in a frame; what lies around it is
    padding."""

    frame: tuple[int, int]
    height: int
    width: int
    top: int = 0
    left: int = 0

    def padded(self, x: np.ndarray, value: float) -> np.ndarray:
        """[H, W, C] of the frame; float32 where the picture's type can't hold the value."""
        if x.shape[:2] == self.frame:
            return x
        dtype = x.dtype if value.is_integer() or x.dtype.kind == "f" else np.dtype(np.float32)
        y = np.full((*self.frame, x.shape[2]), value, dtype)
        y[self.top : self.top + self.height, self.left : self.left + self.width] = x
        return y

    def placed(self, corners: np.ndarray) -> np.ndarray:
        """Boxes in 0..1 of the picture (left, top, right, bottom) as parts of the frame.

        Two boxes overlap by the same share in both: it doesn't matter in which one compares.
        """
        high, wide = self.frame
        factor = np.array([self.width / wide, self.height / high] * 2)
        offset = np.array([self.left / wide, self.top / high] * 2)
        return np.asarray(corners * factor + offset)


def framed(size: tuple[int, int], frame: tuple[int, int], mode: str) -> Framed:
    """How a picture of `size` (height, width) fills a frame.

    stretch:   all of it, whatever becomes of the aspect ratio
    letterbox: enlarged or shrunk until it touches, each side rounded to the nearest pixel; in the
               middle, an odd row or column of padding at the bottom or right (YOLOv5 and newer)
    top-left:  the same size rounded down, in the corner (YOLOX)
    pad-right: of the frame's height, its width rounded up and at most the frame's, at the left
               (PaddleOCR); a line that is too long is squeezed
    """
    (height, width), (high, wide) = size, frame
    if mode == "stretch":
        return Framed(frame, high, wide)
    if mode == "pad-right":
        return Framed(frame, high, min(wide, math.ceil(width * high / height)))
    factor = min(high / height, wide / width)
    to_pixels = round if mode == "letterbox" else int
    # float round-off must not take a pixel of the side that fits exactly
    high_in, wide_in = (max(1, to_pixels(side * factor + 1e-9)) for side in size)
    if mode == "top-left":
        return Framed(frame, high_in, wide_in)
    return Framed(frame, high_in, wide_in, (high - high_in) // 2, (wide - wide_in) // 2)
