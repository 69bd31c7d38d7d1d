"""`deploy plugins`: what it lists, compiles and checks, and how it says what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deploy import registry
from deploy.cli import plugins
from deploy.errors import DeployError


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", [])


def called(*arguments: str | Path) -> Result:
    return CliRunner().invoke(plugins.command, [str(a) for a in arguments])


def refusal(*arguments: str | Path) -> DeployError:
    result = called(*arguments)
    assert isinstance(result.exception, DeployError), result.output
    return result.exception


def mine(root: Path, name: str = "my_shuffle", **changes: str) -> Path:
    """A channel shuffle of the user's, without kernels."""
    source = registry.path("plugin", "channel_shuffle").read_text(encoding="utf-8")
    folder = root / name
    folder.mkdir(parents=True)
    text = source.replace("ChannelShuffle", "MyShuffle")
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (folder / "op.py").write_text(text, encoding="utf-8")
    return root


def test_list(tmp_path: Path) -> None:
    result = called("list", "--plugin-path", mine(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)["plugins"]}
    assert set(rows) == {*registry.names("plugin")}
    assert rows["my_shuffle"]["parts"] == ["expansion", "NumPy truth"]
    assert rows["my_shuffle"]["folder"] == str(tmp_path / "my_shuffle")
    assert "xavier" in rows["shuffle_depthwise"]["targets"]
    assert "has: expansion, NumPy truth, OpenVINO kernel" in result.output


def test_list_goes_on_after_a_broken_one(tmp_path: Path) -> None:
    result = called("list", "--plugin-path", mine(tmp_path, numpy="no_numpy"))
    assert "shuffle_depthwise" in result.output
    assert isinstance(result.exception, DeployError)
    assert "my_shuffle/op.py" in str(result.exception)
    assert result.exception.exit_code == 2


def test_several_paths(tmp_path: Path) -> None:
    for name in ("one_op", "two_op"):
        mine(tmp_path / name, name)
    paths = [p for name in ("one_op", "two_op") for p in ("--plugin-path", tmp_path / name)]
    result = called("list", *paths)
    assert result.exit_code == 0, result.output
    assert "OneOp" in result.output
    assert "TwoOp" in result.output


def test_check_of_a_users_plugin(tmp_path: Path) -> None:
    result = called("check", "my_shuffle", "--plugin-path", mine(tmp_path), "--json")
    assert result.exit_code == 0, result.output
    findings = json.loads(result.stdout)["findings"]
    assert {f["what"]: f["outcome"] for f in findings} == {
        "shape rule": "ok",
        "expansion": "ok",
        "OpenVINO kernel": "not checked",
        "CUDA kernel": "not checked",
        "TensorRT glue": "not checked",
    }


def test_a_failed_check_is_an_error(tmp_path: Path) -> None:
    root = mine(tmp_path, **{"swapaxes(1, 2)": "swapaxes(1, 1)"})
    error = refusal("check", "my_shuffle", "--plugin-path", root)
    assert error.exit_code == 1
    assert str(error).startswith(
        "1 of 5 checks failed, the first: my_shuffle, expansion: differs from run() by"
    )


@pytest.mark.parametrize("command", [["check"], ["build", "--for", "openvino", "-o", "out"]])
def test_an_unknown_name(command: list[str]) -> None:
    error = refusal(*command, "chanel_shuffle")
    assert "unknown plugin 'chanel_shuffle' (did you mean 'channel_shuffle'?)" in str(error)


def test_build_needs_to_know_the_device() -> None:
    error = refusal("build", "--for", "tensorrt", "-o", "out")
    assert str(error) == "--for tensorrt without --target; give the NVIDIA device: --target orin"
    error = refusal("build", "--for", "tensorrt", "--target", "cpu", "-o", "out")
    assert "cpu is no NVIDIA device" in str(error)


def test_build_for_openvino(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = called("build", "channel_shuffle", "--for", "openvino", "-o", out, "--json")
    if result.exception is not None and "install" in str(result.exception):
        pytest.skip(f"OpenVINO extensions can't be compiled here: {result.exception}")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    assert made == {"output": [str(out / "libchannel_shuffle.so")], "plugins": ["channel_shuffle"]}
    assert (out / "libchannel_shuffle.so").is_file()


def test_build_of_a_plugin_without_a_kernel(tmp_path: Path) -> None:
    root = mine(tmp_path)
    error = refusal(
        "build", "my_shuffle", "--for", "openvino", "--plugin-path", root, "-o", tmp_path / "out"
    )
    assert "my_shuffle: has no ov.cpp, so no kernel for OpenVINO" in str(error)
