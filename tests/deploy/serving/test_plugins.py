"""Engines with operators of their own, and settings that nobody checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked import infer_binary, over_grpc
from helpers import model_from
from serving_bundles import scaled, seal

from deploy import registry
from deploy.backends import ov
from deploy.errors import BundleError
from deploy.serving.bundle_check import check
from deploy.serving.compiled import Compiled
from deploy.target import EngineSettings


def test_kernels_of_the_bundle_run_when_they_are_allowed(
    start: Callable[..., Any], tmp_path: Path
) -> None:
    from plugin_folders import needs_compiler

    needs_compiler()
    text = """
    g (float[N,6,5,4] x) => (float[N,6,5,4] y) {
        y = onnx_deploy.ChannelShuffle<groups=3>(x)
    }
    """
    folder = tmp_path / "b"
    (folder / "engine").mkdir(parents=True)
    # "dynamic", since the graph's own batch is free
    settings = EngineSettings(inference_precision={"fp32": "f32"}, batch="dynamic")
    with ov.build(model_from(text, {}), settings, "fp32") as engine:
        engine.save(folder / "engine")
    written = {"backend": "ov", "precision": "fp32", "engine": settings.model_dump(mode="json")}
    (folder / "engine" / "settings.json").write_text(json.dumps(written))
    seal(folder)
    with pytest.raises(BundleError, match=r"libchannel_shuffle\.so: .*--allow-libraries"):
        start(folder)
    running = start(folder, allow_libraries=True)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 4)).astype(np.float32)
    wanted = registry.module("plugin", "channel_shuffle").run(x, groups=3)
    np.testing.assert_array_equal(infer_binary(running, x).tensor(), wanted)
    np.testing.assert_array_equal(over_grpc(running, x), wanted)


@pytest.mark.parametrize("key", ["threads", "streams", "dynamic_group"])
@pytest.mark.parametrize("value", ["many", -1, [2]])
def test_settings_that_are_no_numbers(tmp_path: Path, key: str, value: Any) -> None:
    folder = scaled(tmp_path / "b")
    path = folder / "engine" / "settings.json"
    settings = json.loads(path.read_text())
    settings["engine"][key] = value
    path.write_text(json.dumps(settings))
    seal(folder)
    with pytest.raises(BundleError, match=rf"settings\.json has {key} = "):
        Compiled(check(folder))
