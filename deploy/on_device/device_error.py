"""What goes wrong where TensorRT runs; each message says what was seen and what to do next."""

from __future__ import annotations


class DeviceError(Exception):
    """Something about the device, its libraries or the files given to them; one line or a few."""


class MissingLibraryError(DeviceError):
    """A Python module that TensorRT or the GPU's memory is reached through isn't installed."""


class NoDeviceError(DeviceError):
    """The libraries are there, and no NVIDIA GPU that they can use."""


# what importing a vendor's module ends in: it is missing, a library of it doesn't load, or it and
# numpy are of different times
UNIMPORTABLE = (ImportError, OSError, AttributeError, RuntimeError)
