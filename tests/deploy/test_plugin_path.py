"""Plugin folders of the user's: found like the built-in ones, never in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from helpers import model_from, run
from plugin_folders import copied, forget

from deploy import registry
from deploy.artifacts.model import Model
from deploy.errors import ModelError, RecipeError
from deploy.plugin.ops import expand_plugins, op_types, plugin_module
from deploy.recipe import Recipe
from deploy.work import tool_versions


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch)


def shuffle_model(op: str, *, opset: int = 17) -> Model:
    text = f"g (float[N,6,2,3] x) => (float[N,6,2,3] y) {{ y = onnx_deploy.{op}<groups=3>(x) }}"
    return model_from(text, opset=opset)


@pytest.mark.parametrize("given", ["", "my_shuffle"])
def test_a_folder_of_plugins_or_one_plugin(given: str, tmp_path: Path) -> None:
    folder = copied(tmp_path, "my_shuffle")
    registry.add_plugin_path(tmp_path / given)
    assert registry.path("plugin", "my_shuffle") == folder / "op.py"
    assert op_types()["MyShuffle"] == "my_shuffle"
    assert "ChannelShuffle" in op_types()
    x = np.arange(6 * 6, dtype=np.float32).reshape(1, 6, 2, 3)
    proto = expand_plugins(shuffle_model("MyShuffle").proto, "m")
    wanted = plugin_module("my_shuffle").run(x, groups=3)
    np.testing.assert_array_equal(run(Model(proto, "m"), {"x": x})["y"], wanted)


def test_given_twice_is_given_once(tmp_path: Path) -> None:
    copied(tmp_path, "my_shuffle")
    registry.add_plugin_path(tmp_path)
    registry.add_plugin_path(tmp_path / ".")
    assert registry.plugin_roots()[1:] == [tmp_path]


class TestRefused:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match=r"none: no such folder; --plugin-path takes"):
            registry.add_plugin_path(tmp_path / "none")

    def test_nothing_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "notes").mkdir()
        with pytest.raises(
            RecipeError, match=r"no plugin there; a plugin is a folder with an op\.py"
        ):
            registry.add_plugin_path(tmp_path)

    @pytest.mark.parametrize("file", ["kernel.cu", "ov.cpp"])
    def test_a_kernel_without_op_py(self, file: str, tmp_path: Path) -> None:
        copied(tmp_path, "my_shuffle")
        (tmp_path / "half").mkdir()
        (tmp_path / "half" / file).write_text("")
        with pytest.raises(RecipeError, match=rf"half: has {file} but no op\.py, so nothing says"):
            registry.add_plugin_path(tmp_path)

    @pytest.mark.parametrize("given", ["", "channel_shuffle"])
    def test_the_name_of_a_built_in_one(self, given: str, tmp_path: Path) -> None:
        copied(tmp_path, "channel_shuffle")
        built_in = registry.path("plugin", "channel_shuffle")
        with pytest.raises(RecipeError, match=r"there is a plugin 'channel_shuffle' already, /"):
            registry.add_plugin_path(tmp_path / given)
        assert registry.path("plugin", "channel_shuffle") == built_in

    def test_the_name_of_another_of_yours(self, tmp_path: Path) -> None:
        first = copied(tmp_path / "a", "my_shuffle")
        copied(tmp_path / "b", "my_shuffle")
        registry.add_plugin_path(tmp_path / "a")
        with pytest.raises(RecipeError, match=f"already, {first}; give yours another name"):
            registry.add_plugin_path(tmp_path / "b")

    @pytest.mark.parametrize(
        "name", ["MyShuffle", "my-shuffle", "2d_shuffle", "my__shuffle", "a_1"]
    )
    def test_a_name_that_is_no_operator(self, name: str, tmp_path: Path) -> None:
        copied(tmp_path, name)
        with pytest.raises(RecipeError, match=f"{name!r} can't be an operator's name; name the"):
            registry.add_plugin_path(tmp_path)


class TestOpPy:
    @pytest.mark.parametrize(
        ("source", "line", "reason"),
        [
            ("x = 1\ny = nothing\n", 2, "NameError: name 'nothing' is not defined"),
            ("def f(:\n", 1, "SyntaxError: invalid syntax"),
            ("\n\nimport no_such_module\n", 3, "ModuleNotFoundError: No module named"),
            ("def f():\n    raise OSError('disk')\nf()\n", 2, "OSError: disk"),
        ],
    )
    def test_that_does_not_import(
        self, source: str, line: int, reason: str, tmp_path: Path
    ) -> None:
        (tmp_path / "my_op").mkdir()
        (tmp_path / "my_op" / "op.py").write_text(source)
        registry.add_plugin_path(tmp_path)
        with pytest.raises(RecipeError, match=rf"my_op/op\.py:{line}: {reason}") as caught:
            plugin_module("my_op")
        assert "\n" not in str(caught.value)

    def test_that_lacks_something(self, tmp_path: Path) -> None:
        (tmp_path / "my_op").mkdir()
        (tmp_path / "my_op" / "op.py").write_text("def run(x): return x\n")
        registry.add_plugin_path(tmp_path)
        with pytest.raises(RecipeError, match=r"has no EXPANSION, no infer_shape; plugins/README"):
            plugin_module("my_op")

    def test_an_expansion_that_is_no_onnx(self, tmp_path: Path) -> None:
        copied(tmp_path, "my_shuffle", before="y = Reshape (mixed, shape)", after="y = Reshape (")
        registry.add_plugin_path(tmp_path)
        with pytest.raises(RecipeError, match=r"my_shuffle/op\.py: the expansion isn't ONNX text"):
            expand_plugins(shuffle_model("MyShuffle").proto, "m")


class TestExpansion:
    def test_of_an_older_opset(self) -> None:
        proto = shuffle_model("ChannelShuffle", opset=15).proto
        expanded = expand_plugins(proto, "m")
        onnx.checker.check_model(expanded, full_check=True)

    def test_that_never_ends(self, tmp_path: Path) -> None:
        after = "y = onnx_deploy.MyShuffle <groups: int = 1> (mixed)"
        folder = copied(tmp_path, "my_shuffle", before="y = Reshape (mixed, shape)", after=after)
        op = folder / "op.py"
        text = op.read_text().replace('["" : 15]', '["" : 15, "onnx_deploy" : 1]')
        op.write_text(text.replace("ChannelShuffle", "MyShuffle"))
        registry.add_plugin_path(tmp_path)
        with pytest.raises(ModelError, match=r"expansion of 'MyShuffle' comes back to a plugin op"):
            expand_plugins(shuffle_model("MyShuffle").proto, "m")

    def test_that_depends_on_the_node_and_refuses_it(self) -> None:
        text = (
            "g (float[1,6,5,4] x, float[a,1,3,3] w) => (float[1,6,5,4] y) "
            "{ y = onnx_deploy.ShuffleDepthwise<groups=3>(x, w) }"
        )
        reason = r"ShuffleDepthwise 'y' with inputs of shapes \(1, 6, 5, 4\), .*isn't known"
        with pytest.raises(ModelError, match=reason):
            expand_plugins(model_from(text).proto, "m")

    def test_of_one_that_reads_another(self) -> None:
        text = """
        g (float[1,6,5,4] x, float[1,6,1,1] s) => (float[1,6,5,4] y) {
            a = onnx_deploy.ChannelShuffle<groups=3>(x)
            b = onnx_deploy.SePointwise(a, s, w)
            y = onnx_deploy.ShuffleDepthwise<groups=2, pads=[1,1,1,1]>(b, v)
        }
        """
        random = np.random.default_rng(0)
        weights = {
            "w": random.standard_normal((6, 6, 1, 1)).astype(np.float32),
            "v": random.standard_normal((6, 1, 3, 3)).astype(np.float32),
        }
        x = random.standard_normal((1, 6, 5, 4)).astype(np.float32)
        s = random.standard_normal((1, 6, 1, 1)).astype(np.float32)
        model = model_from(text, weights)
        proto = expand_plugins(model.proto, "m")
        assert {node.domain for node in proto.graph.node} == {""}
        modules = {name: plugin_module(name) for name in registry.names("plugin")}
        a = modules["channel_shuffle"].run(x, groups=3)
        b = modules["se_pointwise"].run(a, s, weights["w"])
        wanted = modules["shuffle_depthwise"].run(b, weights["v"], groups=2, pads=[1] * 4)
        got = run(Model(proto, "m"), {"x": x, "s": s})["y"]
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_a_recipe_names_them(tmp_path: Path) -> None:
    copied(tmp_path / "mine", "my_shuffle")
    file = tmp_path / "recipe.toml"
    file.write_text(f'plugin_path = ["{tmp_path / "mine"}"]\n')
    Recipe.read(str(file), {})
    assert "my_shuffle" in registry.names("plugin")
    with pytest.raises(RecipeError, match="no such folder; --plugin-path takes a folder"):
        Recipe.read(None, {"plugin_path": ["none"]})


def test_a_changed_kernel_makes_another_engine(tmp_path: Path) -> None:
    """Stages that are kept go by the hash of all code, the plugins' too."""
    folder = copied(tmp_path, "my_shuffle", kernel=True)
    registry.add_plugin_path(tmp_path)
    before = tool_versions()["code"]
    with (folder / "ov.cpp").open("a") as stream:
        stream.write("// changed\n")
    assert tool_versions()["code"] != before
