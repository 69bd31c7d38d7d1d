"""Scales and types of a network whose INT8 is described beside it, on what the parser makes."""

from __future__ import annotations

import copy
import struct
from typing import Any

import numpy as np
import pytest
from planned import NETWORK, ORIN, WEAK, XAVIER, Release, implicit_plan
from tiny_models import model, node, normal, weights_of

from deploy.on_device.calibration_cache import cache_scales
from deploy.on_device.device_error import DeviceError
from deploy.on_device.trt_build import build_plan
from deploy.on_device.trt_implicit import ImplicitInt8, set_implicit
from deploy.on_device.trt_library import LogLines
from deploy.on_device.trt_network import network_layers, read_network
from deploy.on_device.trt_nodes import layers_of_nodes
from deploy.on_device.trt_plan import BuildPlan

HARD_SWISH = model(
    [
        node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("HardSwish", ["c"], ["h"], name="swish"),
        node("Conv", ["h", "w2"], ["y"], name="conv_1"),
    ],
    {"x": [1, 3, 5, 7]},
    {"y": [1, 2, 5, 7]},
    {"w": normal(4, 3, 3, 3), "w2": normal(2, 4, 1, 1, seed=1)},
)


class Tensor:
    """A name."""

    def __init__(self, name: str) -> None:
        self.name = name


class Layer:
    """What `layers_of_nodes` looks at of a layer."""

    def __init__(self, name: str, kind: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        self.name, self.type = name, Tensor(kind)
        self.num_inputs, self.get_input = len(inputs), inputs.__getitem__
        self.num_outputs, self.get_output = len(outputs), outputs.__getitem__


def test_slices_of_free_sizes_are_known_by_what_they_read() -> None:
    """Where a size is free a slice takes it as an input, each its own."""
    x, sizes = Tensor("x"), [Tensor(f"size{i}") for i in range(2)]
    layers = [
        Layer("split", "SLICE", [x, sizes[0]], [Tensor("a")]),
        Layer("split_3", "SLICE", [x, sizes[1]], [Tensor("b")]),
        Layer("split_4", "SLICE", [sizes[1]], [Tensor("c")]),
    ]
    found = layers_of_nodes(Network(layers), ["split"])
    assert [layer.name for layer in found["split"]] == ["split", "split_3"]
    assert [layer.name for layer in found["*"]] == ["split_4"]


class Network:
    """Layers by their number."""

    def __init__(self, layers: list[Layer]) -> None:
        self.num_layers, self.get_layer = len(layers), layers.__getitem__


def given(trt: Any, plan: BuildPlan) -> tuple[Any, Any, ImplicitInt8]:
    """The network, the settings and what was said of them."""
    log = LogLines(trt)
    builder = trt.Builder(log)
    network, _ = read_network(trt, log, builder, plan)
    config = builder.create_builder_config()
    return network, config, set_implicit(trt, network, config, plan)


def types(trt: Any, network: Any) -> dict[str, str]:
    return {x.name: x.precision.name for x in network_layers(network) if x.precision_is_set}


@pytest.mark.parametrize("release", WEAK.values(), ids=WEAK)
@pytest.mark.parametrize("use_ranges", [False, True])
class TestEngine:
    def test_every_listed_layer_is_int8(self, release: Release, use_ranges: bool) -> None:
        with release.on() as here:
            built = build_plan(here.trt, implicit_plan(release, use_ranges=use_ranges))
        assert built.problems == []
        found = {row["name"]: row["precision"] for row in built.layers}
        for name in ("conv1 + relu1", "conv2", "add", "relu2", "head"):
            assert found[name] == "int8"
        assert found["pool"] == found["flatten"] == "fp16"

    def test_a_tensor_without_a_scale_is_named(self, release: Release, use_ranges: bool) -> None:
        plan = implicit_plan(release, use_ranges=use_ranges)
        header, *lines = plan.cache.splitlines()
        plan.cache = "\n".join([header, *(x for x in lines if not x.startswith("c2:"))])
        plan.scales = cache_scales(plan.cache)
        with release.on() as here:
            built = build_plan(here.trt, plan)
        assert built.problems == ["tensor 'c2' of an INT8 layer has no scale"]


class TestScales:
    def test_ranges_are_the_cache_times_127(self) -> None:
        plan = implicit_plan(XAVIER, use_ranges=True)
        with XAVIER.on() as here:
            network, config, said = given(here.trt, plan)
            conv1 = network_layers(network)[0]
            low, high = conv1.get_input(0).dynamic_range
        assert (low, high) == (-127 * plan.scales["x"], 127 * plan.scales["x"])
        assert said.calibrator is None
        assert config.int8_calibrator is None

    def test_the_parsers_own_tensors_get_theirs(self) -> None:
        """A Gemm's weights as their largest value, its product as the sum that follows."""
        plan = implicit_plan(XAVIER)
        with XAVIER.on() as here:
            *_, said = given(here.trt, plan)
            text = said.calibrator.read_calibration_cache().decode()
        assert text.startswith(plan.cache)
        more = cache_scales(text.splitlines()[0] + "\n" + text[len(plan.cache) :])
        largest = np.abs(weights_of(NETWORK)["w3"]).max()
        assert more == {
            "(Unnamed Layer* 7) [Constant]_output": pytest.approx(largest / 127),
            "(Unnamed Layer* 9) [Matrix Multiply]_output": plan.scales["y"],
        }

    def test_a_bias_is_not_rounded_to_8_bits(self) -> None:
        with XAVIER.on() as here:
            network, *_ = given(here.trt, implicit_plan(XAVIER))
            found = types(here.trt, network)
        assert found["head"] == "INT8"
        assert found["(Unnamed Layer* 11) [ElementWise]"] == "HALF"

    def test_what_only_moves_keeps_its_scale(self) -> None:
        """The double broadcasts a constant; a real parser also turns operands of a product."""
        made = model(
            [node("Mul", ["x", "k"], ["y"], name="scaled")],
            {"x": [1, 3, 4]},
            {"y": [1, 3, 4]},
            {"k": normal(4)},
        )
        plan = BuildPlan(
            made.serialized,
            precision="int8",
            quantization="implicit",
            scales={"x": 0.5, "y": 0.25},
            layer_precisions={"*": "fp32", "scaled": "int8"},
        )
        with XAVIER.on() as here:
            network, _, said = given(here.trt, plan)
            (low, high) = network_layers(network)[-1].get_input(1).dynamic_range
        assert said.problems == []
        largest = float(np.abs(weights_of(made)["k"]).max())
        assert (low, high) == (pytest.approx(-largest), pytest.approx(largest))

    def test_without_a_list_every_tensor_needs_one(self) -> None:
        plan = implicit_plan(XAVIER, layer_precisions={})
        with XAVIER.on() as here:
            *_, said = given(here.trt, plan)
            text = said.calibrator.read_calibration_cache().decode()
        assert said.problems == []
        scales = cache_scales(text)
        assert scales["p"] == scales["f"]  # a flatten only moves
        assert scales["(Unnamed Layer* 9) [Matrix Multiply]_output"] == scales["y"]
        plan.cache, plan.scales = "", {k: v for k, v in plan.scales.items() if k not in ("f", "r1")}
        with XAVIER.on() as here:
            *_, said = given(here.trt, plan)
        names = ("r1", "p", "f")
        assert said.problems == [f"tensor {name!r} of an INT8 layer has no scale" for name in names]


class TestTypes:
    @pytest.mark.parametrize(("obey", "flag"), [(False, "PREFER"), (True, "OBEY")])
    def test_kept_where_it_can_be_or_by_all_means(self, obey: bool, flag: str) -> None:
        with XAVIER.on() as here:
            _, config, _ = given(here.trt, implicit_plan(XAVIER, obey=obey))
            both = {
                name: config.get_flag(
                    getattr(here.trt.BuilderFlag, f"{name}_PRECISION_CONSTRAINTS")
                )
                for name in ("PREFER", "OBEY")
            }
        assert both == {"PREFER": not obey, "OBEY": obey}
        assert both[flag]

    def test_the_rest_is_of_the_rests_type(self) -> None:
        with XAVIER.on() as here:
            network, *_ = given(here.trt, implicit_plan(XAVIER))
            found = types(here.trt, network)
        assert found["pool"] == found["flatten"] == "HALF"
        assert {found[n] for n in ("conv1", "relu1", "conv2", "add", "relu2")} == {"INT8"}

    def test_results_are_int8_where_every_reader_is(self) -> None:
        with XAVIER.on() as here:
            network, *_ = given(here.trt, implicit_plan(XAVIER))
            as_int8 = {x.name for x in network_layers(network) if x.output_type_is_set(0)}
        # relu2 is read by the float pool, head by the float sum that ends in the network's output
        assert as_int8 == {"conv1", "relu1", "conv2", "add"}

    def test_a_result_of_the_network_keeps_its_type(self) -> None:
        made = model(
            [
                node("Relu", ["x"], ["r"], name="first"),
                node("Relu", ["r"], ["y"], name="second"),
            ],
            {"x": [1, 4]},
            {"r": [1, 4], "y": [1, 4]},
        )
        plan = BuildPlan(
            made.serialized,
            quantization="implicit",
            scales={"x": 1.0, "r": 1.0, "y": 1.0},
            layer_precisions={"*": "fp32", "first": "int8", "second": "int8"},
        )
        with XAVIER.on() as here:
            network, *_ = given(here.trt, plan)
            assert types(here.trt, network) == {"first": "INT8", "second": "INT8"}
            assert not any(layer.output_type_is_set(0) for layer in network_layers(network))

    def test_sizes_and_constants_have_no_type(self) -> None:
        made = model(
            [
                node("Shape", ["x"], ["s"], name="sizes"),
                node("Relu", ["x"], ["r"], name="relu"),
                node("Reshape", ["r", "s"], ["y"], name="same"),
            ],
            {"x": [1, 4]},
            {"y": [1, 4]},
        )
        plan = BuildPlan(
            made.serialized,
            quantization="implicit",
            scales={"x": 1.0, "r": 1.0},
            layer_precisions={"*": "fp16", "relu": "int8"},
        )
        with XAVIER.on() as here:
            network, *_ = given(here.trt, plan)
            assert "sizes" not in types(here.trt, network)


class TestNodes:
    @pytest.mark.parametrize("release", [XAVIER, ORIN])
    def test_the_layers_of_a_node_by_the_tensors_between(self, release: Release) -> None:
        plan = implicit_plan(release)
        with release.on() as here:
            log = LogLines(here.trt)
            network, _ = read_network(here.trt, log, here.trt.Builder(log), plan)
            made_of = layers_of_nodes(network, plan.layer_precisions)
        kinds = [layer.type.name for layer in made_of["head"] if layer.type.name != "CONSTANT"]
        assert kinds == ["MATRIX_MULTIPLY", "SHUFFLE", "ELEMENTWISE"]
        assert [layer.name for layer in made_of["conv1"]] == ["conv1"]

    def test_nodes_that_share_a_constant_are_two(self) -> None:
        """The double's parser makes one per use; a real one may keep it."""
        shared = Tensor("(Unnamed Layer* 0) [Constant]_output")
        layers = [
            Layer("k", "CONSTANT", [], [shared]),
            Layer("one", "ELEMENTWISE", [Tensor("x"), shared], [Tensor("a")]),
            Layer("two", "ELEMENTWISE", [Tensor("a"), shared], [Tensor("y")]),
        ]
        made_of = layers_of_nodes(Network(layers), ["one"])
        assert [layer.name for layer in made_of["one"]] == ["one"]
        assert [layer.name for layer in made_of["*"]] == ["k", "two"]

    def test_a_name_that_ends_like_the_parsers_is_its_own(self) -> None:
        with XAVIER.on() as here:
            log = LogLines(here.trt)
            plan = BuildPlan(HARD_SWISH.serialized)
            network, _ = read_network(here.trt, log, here.trt.Builder(log), plan)
            made_of = layers_of_nodes(network, ["conv"])
        assert [layer.name for layer in made_of["conv"]] == ["conv"]
        assert "conv_1" in [layer.name for layer in made_of["*"]]

    def test_an_activation_of_several_layers_stays_float(self) -> None:
        """No scale is known for the gate inside it."""
        plan = BuildPlan(
            HARD_SWISH.serialized,
            precision="int8",
            rest="fp16",
            quantization="implicit",
            scales={"x": 0.1, "c": 0.1, "h": 0.1, "y": 0.1},
            layer_precisions={"*": "fp16", "conv": "int8", "swish": "int8", "conv_1": "int8"},
        )
        with XAVIER.on() as here:
            network, _, said = given(here.trt, plan)
            found = types(here.trt, network)
        assert found["conv"] == found["conv_1"] == "INT8"
        assert found["swish"] == "HALF"
        assert said.problems == []
        assert said.messages == [
            "'swish' isn't INT8 as listed: the parser made 2 layers without weights of it"
        ]

    @pytest.mark.parametrize("use_dla", [False, True])
    def test_a_list_of_which_nothing_is_there(self, use_dla: bool) -> None:
        """Every layer is float then, whatever the cache says."""
        listed = {"*": "fp16", "gone": "int8", "lost": "int8"}
        plan = implicit_plan(XAVIER, layer_precisions=listed, use_dla=use_dla)
        with XAVIER.on(dla_cores=2) as here:
            built = build_plan(here.trt, plan)
        said = ["none of the 2 layers listed in INT8 is one of the network's"]
        if not use_dla:
            said.append("no layer runs in INT8, which this engine is for: all are fp16")
        assert built.problems == said

    @pytest.mark.parametrize("release", WEAK.values(), ids=WEAK)
    def test_every_part_of_a_split_is_int8(self, release: Release) -> None:
        """8.5 notes no node beside a layer; a node that is only called alike isn't one of them."""
        made = model(
            [
                node("Split", ["x"], ["a", "b", "c"], name="split", axis=1),
                node("Split", ["c"], ["d", "e"], name="split_7", axis=1),
                node("Relu", ["x"], ["r"], name="split_8"),
                node("Concat", ["b", "a", "d", "e", "r"], ["y"], name="join", axis=1),
            ],
            {"x": [1, 6, 4]},
            {"y": [1, 12, 4]},
        )
        plan = BuildPlan(
            made.serialized,
            precision="int8",
            quantization="implicit",
            scales=dict.fromkeys("xabcdery", 0.5),
            layer_precisions={"*": "fp32", "split": "int8", "join": "int8"},
        )
        with release.on() as here:
            network, _, said = given(here.trt, plan)
            kinds = {x.get_output(0).name: x.precision.name for x in network_layers(network)}
        assert said.problems == []
        assert {kinds[name] for name in "abc"} == {"INT8"}
        assert {kinds[name] for name in "der"} == {"FLOAT"}

    def test_a_listed_node_that_is_gone_is_told(self) -> None:
        plan = implicit_plan(XAVIER)
        plan.layer_precisions["gone"] = "int8"
        with XAVIER.on() as here:
            *_, said = given(here.trt, plan)
        assert "'gone' isn't INT8 as listed: the parser made no layer of it" in said.messages


def test_a_scale_that_tensorrt_overlooks_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    with XAVIER.on() as here:
        real = here.trt.Builder.build_serialized_network

        def build(self: Any, network: Any, config: Any) -> Any:
            for name in ("c1", "p"):  # of an INT8 layer, and of a float one
                text = f"Missing scale and zero-point for tensor {name}, expect fall back to"
                self.logger.log(here.trt.ILogger.WARNING, f"{text} non-int8 implementation")
            return real(self, network, config)

        monkeypatch.setattr(here.trt.Builder, "build_serialized_network", build)
        built = build_plan(here.trt, implicit_plan(XAVIER))
    assert built.problems == [
        "TensorRT found no scale for tensor 'c1' of an INT8 layer, though it was given one"
    ]


class TestCacheIgnored:
    def test_a_cache_of_another_version_is_a_failure_that_names_it(self) -> None:
        plan = implicit_plan(XAVIER)
        plan.cache = plan.cache.replace("TRT-8502", "TRT-8503")
        reason = "cache was ignored: .* header 'TRT-8503-EntropyCalibration2'"
        with XAVIER.on() as here, pytest.raises(DeviceError, match=reason):
            build_plan(here.trt, plan)

    def test_as_ranges_the_version_plays_no_part(self) -> None:
        plan = implicit_plan(XAVIER, use_ranges=True)
        plan.cache = plan.cache.replace("TRT-8502", "TRT-8503")
        with XAVIER.on() as here:
            assert build_plan(here.trt, plan).problems == []

    def test_both_ways_give_the_same_engine(self) -> None:
        with XAVIER.on() as here:
            cached = build_plan(here.trt, implicit_plan(XAVIER))
            ranged = build_plan(here.trt, implicit_plan(XAVIER, use_ranges=True))
        assert cached.engine == ranged.engine


def test_scales_are_read_out_of_the_cache_where_not_given() -> None:
    plan = implicit_plan(XAVIER)
    bare = copy.copy(plan)
    bare.scales = {}
    with XAVIER.on() as here:
        assert build_plan(here.trt, bare).engine == build_plan(here.trt, plan).engine
    assert struct.unpack(">f", bytes.fromhex(plan.cache.split("x: ")[1][:8]))[0] == plan.scales["x"]
