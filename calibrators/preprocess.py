"""From a decoded image to the array a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from calibrators.framing import MODES, Framed, framed

_CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}
_LAYOUTS = ("NCHW", "NHWC")


@dataclass(frozen=True)
class Preprocess:
    """The steps, in this order: resize, crop, pad, color, scale, (x - mean) / std, layout.

    resize: (height, width) exactly, or one number for the shorter side, aspect ratio kept;
            bilinear, as Pillow does it (with antialiasing).
    resize_mode: how a picture fills (height, width): "stretch" changes its aspect ratio, the
            others of `calibrators.framing` keep it and pad with pad_value, 0..255 in every channel
            (PaddleOCR's padding of 0 behind (x / 255 - 0.5) / 0.5 is 127.5).
    crop:   (height, width), or one number for a square, taken from the centre; an odd margin
            leaves the extra row at the bottom, the extra column at the right.
    scale:  factor on the 0..255 values; None means 1/255.
    mean, std: one number, or one per channel in the order of `color`, after `scale`.
    raw:    stop before color order, scale, mean and std: uint8[H, W, C] for an engine that does
            these itself.
    """

    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float | None = None
    layout: str = "NCHW"
    color: str = "RGB"
    raw: bool = False
    resize_mode: str = "stretch"
    pad_value: float = 0.0

    def __post_init__(self) -> None:
        if self.layout not in _LAYOUTS:
            raise ValueError(f"{self.layout!r} is no layout; allowed: {', '.join(_LAYOUTS)}")
        if self.color not in _CHANNELS:
            raise ValueError(f"{self.color!r} is no color; allowed: {', '.join(_CHANNELS)}")
        _check_size("resize", self.resize)
        _check_size("crop", self.crop)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None:
                _check_count(name, values, self.channels, f"color {self.color}")
                if not all(math.isfinite(v) for v in values):
                    raise ValueError(f"{_text(values)} for {name}; allowed: finite numbers")
        if self.std is not None and 0 in self.std:
            raise ValueError(f"{_text(self.std)} for std has a 0; pass 1 to leave a channel as is")
        if self.scale is not None and (self.scale == 0 or not math.isfinite(self.scale)):
            raise ValueError(f"{self.scale} for scale; allowed: a finite number other than 0")
        self._check_padding()
        if self.resize is not None and self.crop is not None and len(self.resize) == 2:
            self._check_crop(self.resize[0], self.resize[1])

    @property
    def given(self) -> bool:
        """Whether anything was asked for, so that stored arrays are raw rather than ready."""
        return self != Preprocess()

    @property
    def channels(self) -> int:
        """How many channels an image has after `color`."""
        return _CHANNELS[self.color]

    @property
    def pads(self) -> bool:
        """Whether the aspect ratio is kept, and the rest filled up."""
        return self.resize_mode != "stretch"

    def framed(self, height: int, width: int) -> Framed:
        """Where a picture of that size lies in what is fed; ValueError where no size is given."""
        if self.resize is None:
            raise ValueError(f"no resize for resize_mode {self.resize_mode}; pass height,width")
        high, wide = self._resized_size(height, width)
        return framed((height, width), (high, wide), self.resize_mode)

    def image(self, img: Image.Image) -> np.ndarray:
        """float32[C, H, W], or [H, W, C] for NHWC: the image after every step.

        EXIF orientation is not applied and alpha is dropped, as training pipelines do.
        """
        # Pillow clips 16 and 32 bit images at 255 instead of scaling them
        if img.mode.startswith(("I", "F")):
            raise ValueError(f"mode {img.mode} has over 8 bits a channel; convert it to 8 first")
        return self.array(np.asarray(img.convert("RGB")))

    def array(self, x: np.ndarray) -> np.ndarray:
        """The same steps on x: [H, W, C] or [H, W], RGB or gray, 0..255.

        The channels x has are kept: only "GRAY" changes their number, only "BGR" their order.
        """
        if x.ndim == 2:
            x = x[..., None]
        if x.ndim != 3:
            raise ValueError(f"shape {list(x.shape)} is no image; allowed: [H, W, C] or [H, W]")
        pixels = self._gray(self._cropped(self._resized(x)))
        if self.pads:
            pixels = self.framed(x.shape[0], x.shape[1]).padded(pixels, float(self.pad_value))
        if not self.raw:
            return self.normalized(pixels)
        if pixels.dtype != np.uint8:
            raise ValueError(f"{pixels.dtype} array; an engine that takes raw images takes uint8")
        return np.ascontiguousarray(pixels)

    def normalized(self, pixels: np.ndarray) -> np.ndarray:
        """float32 in the layout, from [H, W, C] of the right size: color, scale, mean, std."""
        y: np.ndarray = self._ordered(pixels).astype(np.float32)
        y = y / np.float32(255) if self.scale is None else y * np.float32(self.scale)
        for name, values in (("mean", self.mean), ("std", self.std)):
            # without this, three means would broadcast a gray image to three channels
            _check_count(name, values, y.shape[2], "the array")
        if self.mean is not None:
            y = y - np.asarray(self.mean, np.float32)
        if self.std is not None:
            y = y / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(y.transpose(2, 0, 1) if self.layout == "NCHW" else y)

    def _resized(self, x: np.ndarray) -> np.ndarray:
        if self.resize is None and not self.pads:
            return x
        inside = self.framed(x.shape[0], x.shape[1])
        height, width = inside.height, inside.width
        if (height, width) == x.shape[:2]:
            return x
        img = _pillow(x, "resize")
        y = np.asarray(img.resize((width, height), Image.Resampling.BILINEAR))
        return y.reshape(height, width, x.shape[2])

    def _resized_size(self, height: int, width: int) -> tuple[int, int]:
        assert self.resize is not None
        if len(self.resize) == 2:
            return self.resize[0], self.resize[1]
        short = self.resize[0]
        if height <= width:
            return short, int(short * width / height)
        return int(short * height / width), short

    def _check_padding(self) -> None:
        if self.resize_mode not in MODES:
            raise ValueError(f"{self.resize_mode!r} is no resize_mode; allowed: {', '.join(MODES)}")
        if not 0 <= self.pad_value <= 255:
            raise ValueError(f"{self.pad_value} for pad_value; allowed: 0 to 255")
        if not self.pads:
            if self.pad_value:
                raise ValueError(
                    f"pad_value {self.pad_value:g} with resize_mode stretch, which pads nothing; "
                    f"pass one of {', '.join(MODES[1:])}"
                )
            return
        if self.resize is not None and len(self.resize) != 2:
            raise ValueError(
                f"{_text(self.resize)} for resize with resize_mode {self.resize_mode}; it fills "
                "height,width: pass both"
            )
        if self.crop is not None:
            raise ValueError(f"resize_mode {self.resize_mode} and a crop; pass one of the two")
        if self.raw and not float(self.pad_value).is_integer():
            raise ValueError(
                f"{self.pad_value} for pad_value; raw images are uint8: pass a whole number"
            )

    def _check_crop(self, height: int, width: int) -> tuple[int, int]:
        assert self.crop is not None
        high, wide = self.crop[0], self.crop[-1]
        if high > height or wide > width:
            raise ValueError(
                f"crop {high}x{wide} is larger than the image, {height}x{width} after resize;"
                " pass a smaller crop or a larger resize"
            )
        return high, wide

    def _cropped(self, x: np.ndarray) -> np.ndarray:
        if self.crop is None:
            return x
        high, wide = self._check_crop(x.shape[0], x.shape[1])
        top, left = (x.shape[0] - high) // 2, (x.shape[1] - wide) // 2
        return x[top : top + high, left : left + wide]

    def _gray(self, x: np.ndarray) -> np.ndarray:
        if self.color == "GRAY" and x.shape[2] != 1:
            return np.asarray(_pillow(x, "color GRAY").convert("L"))[..., None]
        return x

    def _ordered(self, x: np.ndarray) -> np.ndarray:
        if self.color == "BGR":
            if x.shape[2] != 3:
                raise ValueError(f"{x.shape[2]} channels in the array; color BGR takes 3")
            return x[..., ::-1]
        return x


def _pillow(x: np.ndarray, step: str) -> Image.Image:
    if x.dtype != np.uint8 or x.shape[2] not in (1, 3):
        raise ValueError(
            f"{x.dtype} array with {x.shape[2]} channels; {step} takes uint8 with 1 or 3"
        )
    return Image.fromarray(np.ascontiguousarray(x[..., 0] if x.shape[2] == 1 else x))


def _check_size(name: str, size: tuple[int, ...] | None) -> None:
    if size is not None and (len(size) not in (1, 2) or any(n <= 0 for n in size)):
        raise ValueError(f"{_text(size)} for {name}; allowed: one or two positive whole numbers")


def _check_count(name: str, values: tuple[float, ...] | None, channels: int, of: str) -> None:
    if values is not None and len(values) not in (1, channels):
        allowed = "1 number" if channels == 1 else f"1 or {channels} numbers"
        raise ValueError(f"{_text(values)} for {name}; {of} takes {allowed}")


def _text(values: tuple[float, ...]) -> str:
    return ", ".join(str(v) for v in values) or "nothing"
