"""A device/ folder with plugins: the graph with an operator of ours, and the one without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from device_folder import MODEL, device_report, write_device
from doubles import installed
from helpers import model_from, weight

from deploy.on_device.finish_main import main

PLUGINS = [{"folder": "channel_shuffle", "op": "ChannelShuffle", "version": "1"}]
# five channels in five groups stay in their order, so the outputs are those of the graph without
OURS = "[relu] r = Relu(c)\n    [shuffle] y = onnx_deploy.ChannelShuffle <groups = 5> (r)"
# of one layer, two as OURS, and three
FAST = "[relu] y = Relu(c)"
EQUAL = "[relu] r = Relu(c)\n    [abs] y = Abs(r)"
SLOW = (
    "[relu] r = Relu(c)\n    [turn] t = Transpose <perm = [0, 1, 3, 2]> (r)\n"
    "    [back] y = Transpose <perm = [0, 1, 3, 2]> (t)"
)


def graph(tail: str, gain: float = 1.0) -> bytes:
    weights = {"w": gain * weight(5, 3, 3, 3), "b": weight(5, seed=1)}
    return model_from(MODEL.replace("[relu] y = Relu(c)", tail), weights).serialized


def device(
    folder: Path, plain: bytes | None = None, ours: bytes | None = None, **changes: Any
) -> Path:
    """A folder with both graphs; the one without plugins is slower if none is given."""
    files = {
        "model.onnx": ours or graph(OURS),
        "model_plain.onnx": plain or graph(SLOW),
        "plugins/channel_shuffle/kernel.cu": b"//",
    }
    for name in changes.pop("leave_out", ()):
        del files[name]
    return write_device(folder, plugins=PLUGINS, extra_files=files, **changes)


def finish(folder: Path, *flags: str, code: int = 0) -> dict[str, Any]:
    """The report of a run that times a few inferences."""
    with installed("8.5.2", 72):
        assert main([str(folder), "--runs", "20", *flags]) == code
    return device_report(folder)
