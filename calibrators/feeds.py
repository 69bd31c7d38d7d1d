"""From one raw array or image to what a model input takes: the checks every dataset shares."""

from __future__ import annotations

import dataclasses
import difflib
import operator
from collections.abc import Collection
from contextlib import suppress

import numpy as np
from PIL import Image

from calibrators.preprocess import Preprocess
from calibrators.samples import DatasetSpec, InputSpec


# a NumPy warning must not come before the check in _finished, which names the sample
@np.errstate(over="ignore", invalid="ignore")
def feed(raw: np.ndarray, spec: InputSpec, preprocess: Preprocess, where: str) -> np.ndarray:
    """The model's dtype and rank with a batch axis of length 1, for one stored sample.

    Preprocessing, when given, is applied to float inputs of rank 4 and takes raw to be [H, W, C]
    or [H, W]; without it raw must be ready to feed. `where` names the sample in messages.
    """
    x = np.asarray(raw)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{x.dtype} values at {where}; allowed: {spec.dtype}")
    if preprocess.given and takes_images(spec, preprocess):
        x = _preprocessed(x, preprocess, where)
    else:
        _check_cast(x, spec, where)
    return _finished(x, spec, where)


@np.errstate(over="ignore", invalid="ignore")
def feed_image(img: Image.Image, spec: InputSpec, preprocess: Preprocess, where: str) -> np.ndarray:
    """The same for an image; preprocess as `image_input` returned it."""
    try:
        x = preprocess.image(img)
    except ValueError as error:
        raise ValueError(f"{error} (at {where})") from error
    rows, columns = _rows_columns(preprocess)
    height, width = x.shape[rows - 1], x.shape[columns - 1]
    if spec.shape[rows] not in (None, height) or spec.shape[columns] not in (None, width):
        raise ValueError(
            f"{height}x{width} after preprocessing {where}; input {spec.name!r} takes"
            f" {_dims(spec.shape[rows : columns + 1], 'x')}: reach it with --resize or --crop"
        )
    return _finished(x, spec, where)


def image_input(spec: DatasetSpec) -> tuple[InputSpec, Preprocess]:
    """The one input that images feed, and how.

    When neither resize nor crop is given, images are resized exactly to the height and width of
    the input, where it has both; the aspect ratio is then not kept.
    """
    if len(spec.inputs) != 1:
        raise ValueError(
            f"{len(spec.inputs)} model inputs ({_names(spec)}); a folder of images feeds exactly"
            " one: store the samples by input name in a .npz"
        )
    only, pre = spec.inputs[0], spec.preprocess
    if not takes_images(only, pre):
        raise ValueError(
            f"{only.dtype} {_dims(only.shape)} for input {only.name!r}; images feed a float input"
            " of rank 4: store the samples in a .npz"
        )
    channels = only.shape[3] if pre.raw or pre.layout == "NHWC" else only.shape[1]
    if channels not in (None, pre.channels):
        raise ValueError(
            f"{pre.channels} channels of color {pre.color} in layout {pre.layout}; input"
            f" {only.name!r} takes {channels} in {_dims(only.shape)}:{_channel_hint(only, pre)}"
        )
    rows, columns = _rows_columns(pre)
    height, width = only.shape[rows], only.shape[columns]
    if pre.resize is None and pre.crop is None and height is not None and width is not None:
        pre = dataclasses.replace(pre, resize=(height, width))
    if pre.pads and pre.resize is None:
        raise ValueError(
            f"resize_mode {pre.resize_mode} fills a height and width, and input {only.name!r} takes"
            f" {_dims(only.shape)}; pass --resize HEIGHT,WIDTH"
        )
    return only, pre


def takes_images(spec: InputSpec, preprocess: Preprocess) -> bool:
    """Whether preprocessing is meant for this input: token ids beside an image are left alone."""
    fits = spec.dtype == np.uint8 if preprocess.raw else spec.dtype.kind == "f"
    return len(spec.shape) == 4 and fits


def check(spec: DatasetSpec) -> None:
    """Refuses what would be ignored: keys of no input, preprocessing without an image input."""
    allowed = [i.name for i in spec.inputs] + ["labels"]
    for name in spec.keys:
        if name not in allowed:
            raise ValueError(
                f"{name!r} in --data-key is no model input; allowed: {', '.join(allowed)}"
                f" (nearest: {nearest(name, allowed)!r})"
            )
    if spec.preprocess.given and not any(takes_images(i, spec.preprocess) for i in spec.inputs):
        shapes = ", ".join(f"{i.name} {i.dtype} {_dims(i.shape)}" for i in spec.inputs)
        raise ValueError(
            f"preprocessing is given, but the model takes {shapes}; it is for float inputs of"
            " rank 4: store the samples ready to feed"
        )


def find_key(spec: DatasetSpec, name: str, present: Collection[str], where: str) -> str:
    """The key of input `name` (or "labels") among those present in the data."""
    key = spec.keys.get(name, name)
    if key in present:
        return key
    if not present:
        raise ValueError(f"no arrays in {where}; it must hold {key!r}")
    taken = {spec.keys.get(i.name, i.name) for i in spec.inputs}
    free = [k for k in present if k not in taken and k not in ("labels", "label", "y", "split")]
    close = nearest(key, free or list(present))
    raise ValueError(
        f"keys {_some(present)} in {where}, none is {key!r}; nearest is {close!r}:"
        f" pass --data-key {name}={close} or rename it"
    )


def nearest(name: str, names: Collection[str]) -> str:
    """The most similar of the names."""
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def label(value: object, where: str) -> int:
    """A class number, from an integer or its decimal text."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, int | np.integer | np.ndarray) and not isinstance(value, bool):
        with suppress(TypeError):  # an array of one float or of several numbers is no index
            if (number := operator.index(value)) >= 0:
                return number
    shown = value.item() if isinstance(value, np.generic) else value
    raise ValueError(f"label {shown!r} at {where}; allowed: an integer >= 0")


def _preprocessed(x: np.ndarray, preprocess: Preprocess, where: str) -> np.ndarray:
    if x.ndim == 4 and x.shape[0] == 1:
        x = x[0]
    # 0..1 or 0..255? A guess would be right for one half of all users, and silent for the other
    if x.dtype.kind == "f" and preprocess.scale is None and not preprocess.raw:
        raise ValueError(
            f"{x.dtype} values at {where} and no scale; pass --scale 1 if they are 0..1 already,"
            f" --scale {1 / 255:.8f} if 0..255"
        )
    try:
        return preprocess.array(x)
    except ValueError as error:
        raise ValueError(f"{error} (at {where})") from error


def _check_cast(x: np.ndarray, spec: InputSpec, where: str) -> None:
    have, want = x.dtype, spec.dtype
    if have.kind == want.kind == "f" or have.newbyteorder("=") == want:
        return
    if want.kind in "iu" and have.kind in "iu" and np.can_cast(have, want, "safe"):
        return
    if want.kind == "f" and have.kind in "iu" and takes_images(spec, Preprocess()):
        hint = "pass --scale, --mean or --std to say how pixels become floats (--scale 1: as is)"
    else:
        hint = f"store {want}"
    raise ValueError(f"{have} values at {where}; input {spec.name!r} takes {want}: {hint}")


def _finished(x: np.ndarray, spec: InputSpec, where: str) -> np.ndarray:
    """A copy with batch axis and dtype: a generator may reuse its buffer for the next sample."""
    stored, rank = x.shape, len(spec.shape)
    if spec.whole and x.shape != spec.shape:
        raise ValueError(
            f"shape {_dims(stored)} at {where}; input {spec.name!r} takes {_dims(spec.shape)} as a"
            " whole, its first axis is no batch: store one such array per sample"
        )
    if x.ndim == rank - 1:
        x = x[None]
    elif x.ndim == rank and not spec.whole and x.shape[0] not in (1, spec.fixed or 1):
        raise ValueError(
            f"shape {_dims(stored)} at {where}; a sample has no batch axis or one of length 1,"
            f" input {spec.name!r} takes {_dims(spec.shape)}"
        )
    fits = x.ndim == rank and all(
        want in (None, have) for have, want in zip(x.shape[1:], spec.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"shape {_dims(stored)} at {where}; input {spec.name!r} takes {_dims(spec.shape)}"
            " (batch axis first): reshape or transpose the data"
        )
    y: np.ndarray = np.array(x, spec.dtype, order="C")
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        at = tuple(int(n) for n in np.argwhere(~np.isfinite(y))[0])
        raise ValueError(
            f"{y[at]} at {where}, element {list(at)}; a {y.dtype} input takes finite values:"
            " repair or drop that sample"
        )
    return y


def _rows_columns(preprocess: Preprocess) -> tuple[int, int]:
    return (1, 2) if preprocess.raw or preprocess.layout == "NHWC" else (2, 3)


def _channel_hint(spec: InputSpec, preprocess: Preprocess) -> str:
    other, axis = ("NHWC", 3) if preprocess.layout == "NCHW" else ("NCHW", 1)
    at = spec.shape[1 if preprocess.layout == "NCHW" else 3]
    if at == 1:
        return " pass --color GRAY"
    if at == 3:
        return " pass --color RGB"
    return f" pass --layout {other}" if spec.shape[axis] in (1, 3) else " store them in a .npz"


def _some(names: Collection[str]) -> str:
    more = [f"and {len(names) - 8} more"] if len(names) > 8 else []
    return ", ".join([*list(names)[:8], *more])


def _names(spec: DatasetSpec) -> str:
    return ", ".join(i.name for i in spec.inputs)


def _dims(shape: tuple[int | None, ...], joint: str = ", ") -> str:
    text = joint.join("?" if n is None else str(n) for n in shape)
    return text if joint == "x" else f"[{text}]"
