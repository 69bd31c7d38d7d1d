"""OpenVINO engines with plugin operators: the kernels travel with the engine, and are checked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import MODELS, feeds_for, model_from, run, weight
from plugin_folders import copied, forget, needs_compiler

from deploy import registry
from deploy.artifacts.model import Model
from deploy.backends import ov
from deploy.build import SETTINGS, build, load_engine
from deploy.errors import BuildError
from deploy.files import sha256_of
from deploy.load import load, read
from deploy.metrics import sqnr_db
from deploy.target import EngineSettings, Target

pytestmark = pytest.mark.slow

FLOAT = EngineSettings(inference_precision={"fp32": "f32"})


@pytest.fixture(autouse=True)
def _compiler() -> None:
    needs_compiler()


def two_plugins() -> Model:
    text = """
    g (float[N,6,5,4] x) => (float[N,6,5,4] y) {
        r = Relu(x)
        s = onnx_deploy.ChannelShuffle<groups=3>(r)
        y = onnx_deploy.ShuffleDepthwise<groups=2, pads=[1,1,1,1]>(s, w)
    }
    """
    return model_from(text, {"w": weight(6, 1, 3, 3)})


def wanted(x: np.ndarray) -> np.ndarray:
    shuffle, depthwise = (
        registry.module("plugin", name) for name in ("channel_shuffle", "shuffle_depthwise")
    )
    s = shuffle.run(np.maximum(x, 0), groups=3)
    return np.asarray(depthwise.run(s, weight(6, 1, 3, 3), groups=2, pads=[1] * 4))


def saved(folder: Path) -> Path:
    folder.mkdir(parents=True)
    with ov.build(two_plugins(), FLOAT, "fp32") as engine:
        engine.save(folder)
    return folder


def test_the_engine_holds_its_kernels(tmp_path: Path) -> None:
    folder = saved(tmp_path / "e")
    names = {"model.xml", "model.bin", "engine.json"}
    assert {p.name for p in folder.iterdir()} == names | {
        "libchannel_shuffle.so",
        "libshuffle_depthwise.so",
    }
    rows = json.loads((folder / "engine.json").read_text())["libraries"]
    assert [(row["plugin"], row["file"]) for row in rows] == [
        ("channel_shuffle", "libchannel_shuffle.so"),
        ("shuffle_depthwise", "libshuffle_depthwise.so"),
    ]
    assert 'type="ShuffleDepthwise" version="onnx_deploy"' in (folder / "model.xml").read_text()


def test_a_moved_engine_runs_in_another_process(tmp_path: Path) -> None:
    saved(tmp_path / "e").rename(tmp_path / "moved")
    x = weight(1, 6, 5, 4, seed=3)
    np.save(tmp_path / "x.npy", x)
    # no compiler there, and no plugin folder
    code = (
        "import sys, numpy as np\nfrom pathlib import Path\n"
        "from deploy import registry\nfrom deploy.backends import ov\n"
        "from deploy.target import EngineSettings\n"
        "registry.plugin_roots = lambda: []\n"
        "root = Path(sys.argv[1])\n"
        "settings = EngineSettings(inference_precision={'fp32': 'f32'})\n"
        "with ov.load(root / 'moved', settings, 'fp32') as engine:\n"
        "    np.save(root / 'y.npy', engine.run({'x': np.load(root / 'x.npy')})['y'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env={"PATH": ""}, check=False
    )
    assert done.returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted(x), rtol=1e-5, atol=1e-5)


def test_a_model_without_plugins_has_no_libraries(tmp_path: Path) -> None:
    model = model_from("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    with ov.build(model, FLOAT, "fp32") as engine:
        engine.save(tmp_path)
    assert "libraries" not in json.loads((tmp_path / "engine.json").read_text())


class TestRefused:
    def test_a_changed_library(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "e")
        library = folder / "libchannel_shuffle.so"
        library.write_bytes(library.read_bytes() + b"\0")
        reason = r"libchannel_shuffle\.so: its sha256 is [0-9a-f]{12}…, the engine was built with"
        with pytest.raises(BuildError, match=reason):
            ov.load(folder, FLOAT, "fp32")

    def test_a_missing_library(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "e")
        (folder / "libchannel_shuffle.so").unlink()
        with pytest.raises(BuildError, match=r"libchannel_shuffle\.so: the engine needs this"):
            ov.load(folder, FLOAT, "fp32")

    def test_a_library_that_openvino_cannot_load(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "e")
        described = json.loads((folder / "engine.json").read_text())
        (folder / "libchannel_shuffle.so").write_bytes(b"not a library")
        described["libraries"][0]["sha256"] = sha256_of(folder / "libchannel_shuffle.so")
        (folder / "engine.json").write_text(json.dumps(described))
        with pytest.raises(
            BuildError, match=r"OpenVINO can't load this plugin: .*build the engine"
        ):
            ov.load(folder, FLOAT, "fp32")

    def test_a_path_out_of_the_folder(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "e")
        (folder / "libchannel_shuffle.so").rename(tmp_path / "libchannel_shuffle.so")
        described = json.loads((folder / "engine.json").read_text())
        described["libraries"][0]["file"] = "../libchannel_shuffle.so"
        (folder / "engine.json").write_text(json.dumps(described))
        with pytest.raises(BuildError, match=r"e/libchannel_shuffle\.so: the engine needs this"):
            ov.load(folder, FLOAT, "fp32")

    def test_an_operator_that_no_folder_has(self) -> None:
        model = model_from(
            "g (float[N,6] x) => (float[N,6] y) { y = onnx_deploy.ChanelShuffle(x) }"
        )
        reason = r"no plugin for operator 'ChanelShuffle' \(did you mean 'ChannelShuffle'\?\)"
        with pytest.raises(BuildError, match=reason):
            ov.build(model, FLOAT, "fp32")

    def test_a_plugin_without_a_kernel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        forget(monkeypatch)
        copied(tmp_path, "my_shuffle")
        registry.add_plugin_path(tmp_path)
        model = model_from(
            "g (float[N,6] x) => (float[N,6] y) { y = onnx_deploy.MyShuffle<groups=2>(x) }"
        )
        with pytest.raises(BuildError, match=r"my_shuffle: has no ov\.cpp"):
            ov.build(model, FLOAT, "fp32")


def test_two_kernels_of_one_operator_in_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that was changed is compiled again, and an older engine keeps its own."""
    forget(monkeypatch)
    folder = copied(tmp_path / "mine", "my_shuffle", kernel=True)
    registry.add_plugin_path(tmp_path / "mine")
    model = model_from(
        "g (float[1,6] x) => (float[1,6] y) { y = onnx_deploy.MyShuffle<groups=3>(x) }"
    )
    x = np.arange(6, dtype=np.float32).reshape(1, 6)
    outputs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with ov.build(model, FLOAT, "fp32") as engine:
            outputs.append(engine.run({"x": x})["y"].reshape(-1).tolist())
            engine.save(tmp_path / name)
        kernel = folder / "ov.cpp"
        text = kernel.read_text()
        moved = "plane - c + (c % groups) * per_group + c / groups"
        assert (moved in text) is (name == "first")
        kernel.write_text(text.replace(moved, "plane + 0 * c * groups * per_group"))
    assert outputs == [[0, 2, 4, 1, 3, 5], [0, 1, 2, 3, 4, 5]]
    with ov.load(tmp_path / "first", FLOAT, "fp32") as engine:
        assert engine.run({"x": x})["y"].reshape(-1).tolist() == outputs[0]


def test_a_target_whose_engine_fusions_name_a_plugin(tmp_path: Path) -> None:
    path = MODELS / "shufflenetv1_0.5g3_cifar10.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}: this test needs ../shared/assets")
    model = load(read(path))
    cpu = Target.load("cpu")
    target = cpu.model_copy(update={"engine_fusions": ("plugin_shuffle_depthwise",)})
    folder = tmp_path / "engine"
    folder.mkdir()
    build(model, target, "fp32", folder)
    settings = json.loads((folder / SETTINGS).read_text())
    assert "libshuffle_depthwise.so" in settings["files"]
    assert [row["rule"] for row in settings["rewritten"]] == ["plugin_shuffle_depthwise"] * 16
    feeds = feeds_for(model, batch=1)
    with load_engine(folder, target, "fp32") as engine:
        got = engine.run(feeds)
    for name, value in run(model, feeds).items():
        assert sqnr_db(value, got[name]) > 100
