"""Plugin folders as a user would have them."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import pytest

from deploy import registry
from deploy.errors import MissingBackendError
from deploy.plugin.build import build_openvino


def copied(root: Path, name: str, *, kernel: bool = False, **changes: str) -> Path:
    """A channel shuffle under another name; `changes` replaces text in op.py, old=new as pairs of
    `before` and `after`."""
    op = "".join(part.capitalize() for part in name.split("_"))
    source = registry.path("plugin", "channel_shuffle").parent
    folder = root / name
    folder.mkdir(parents=True)
    text = (source / "op.py").read_text(encoding="utf-8").replace("ChannelShuffle", op)
    if changes:
        assert changes["before"] in text
        text = text.replace(changes["before"], changes["after"])
    (folder / "op.py").write_text(text, encoding="utf-8")
    if kernel:
        cpp = (source / "ov.cpp").read_text(encoding="utf-8").replace("ChannelShuffle", op)
        (folder / "ov.cpp").write_text(cpp, encoding="utf-8")
    return folder


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this test add folders of its own."""
    monkeypatch.setattr(registry, "_added", [])


def needs_compiler() -> None:
    """Skip where OpenVINO extensions can't be compiled."""
    reason = _lacking()
    if reason:
        pytest.skip(f"OpenVINO extensions can't be compiled here: {reason}")


@functools.cache
def _lacking() -> str:
    with tempfile.TemporaryDirectory() as folder:
        try:
            build_openvino("channel_shuffle", Path(folder))
        except MissingBackendError as error:
            return str(error)
    return ""
