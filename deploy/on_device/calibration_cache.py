"""A calibration cache's text: a header, then a scale per tensor in eight hexadecimal digits."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

from deploy.on_device.device_error import DeviceError


def cache_scales(text: str) -> dict[str, float]:
    """Scale per tensor, as float32; DeviceError when it isn't such a text.

    The digits are the big-endian float32; a tensor's name may hold colons itself.
    """
    header, *lines = text.splitlines() or [""]
    if not header.startswith("TRT-"):
        raise DeviceError(
            f"calibration cache begins with {header[:40]!r}, not TRT-<version>-<algorithm>; copy "
            "the folder again"
        )
    scales = {}
    for line in (line for line in lines if line.strip()):
        name, _, digits = line.rpartition(":")
        try:
            (scales[name],) = struct.unpack(">f", bytes.fromhex(digits.strip()))
        except (ValueError, struct.error):
            raise DeviceError(
                f"calibration cache line {line[:80]!r}: not `tensor: <8 hexadecimal digits>`; copy "
                "the folder again"
            ) from None
        if not 0 < scales[name] < math.inf:
            raise DeviceError(
                f"calibration cache line {line[:80]!r}: scale {scales[name]:g} of {name!r}, and a "
                "scale is a positive number; build the bundle again on the host"
            )
    return scales


def cache_with(text: str, more: Mapping[str, float]) -> str:
    """The cache with further tensors at its end."""
    lines = ["{}: {}".format(name, struct.pack(">f", scale).hex()) for name, scale in more.items()]
    return "\n".join([text.rstrip("\n"), *lines, ""])
