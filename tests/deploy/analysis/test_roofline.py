"""The two views against hand-worked layers, on devices with round figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from helpers import model_from
from onnx import TensorProto
from tiny_models import conv, model, node, normal, quantized, residual

from deploy import registry
from deploy.analysis.device import Device
from deploy.analysis.layer_cost import LayerCost, layer_costs
from deploy.analysis.roofline import analysis, predict, rate
from deploy.artifacts.model import Model
from deploy.errors import RecipeError
from deploy.target import Roofline

HARDWARE = registry.names("hardware")


def roofline(**peaks: float) -> Roofline:
    """1 GB/s, and the peaks in GFLOP/s: a ridge of `peak` FLOP per byte."""
    rates = {name: 1e9 * peak for name, peak in peaks.items()}
    figures = {"peak_flops": rates, "bandwidth_bytes_per_s": 1e9, "on_chip_bytes": 1000}
    return Roofline.model_validate(figures)


def device(name: str = "d", **peaks: float) -> Device:
    return Device(name, f"device {name}", roofline(**peaks))


def costs(model_: Model) -> dict[str, LayerCost]:
    return {layer.name: layer for layer in layer_costs(model_).costs}


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, "f4")


def plain() -> Model:
    """The 3x3 convolution of the worked example."""
    return model(
        [node("Conv", ["x", "w"], ["y"], name="c", pads=[1, 1, 1, 1])],
        {"x": ["N", 256, 56, 56]},
        {"y": ["N", 256, 56, 56]},
        {"w": zeros(256, 256, 3, 3)},
    )


class TestFloat:
    MAPS, WEIGHTS = 2 * 256 * 56 * 56, 256 * 256 * 9

    def test_worked_example(self) -> None:
        found = analysis(layer_costs(plain()), [device(fp32=1000)])
        total = found["total"]
        assert total["flops"] / 1e9 == pytest.approx(3.70, abs=0.005)
        assert total["bytes"] / 1e6 == pytest.approx(8.78, abs=0.005)
        assert total["intensity"] == pytest.approx(total["flops"] / total["bytes"])
        assert (total["layers"], total["precision"], total["unknown"]) == (1, "fp32", [])

    @pytest.mark.parametrize(
        "precision, size", [("fp32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1)]
    )
    def test_precision_sets_the_size_of_every_float(self, precision: str, size: int) -> None:
        peaks = device(**{precision: 1000})
        found = analysis(layer_costs(plain()), [peaks], precision)  # type: ignore[arg-type]
        assert found["total"]["bytes"] == size * (self.MAPS + self.WEIGHTS)
        assert found["total"]["precision"] == precision
        assert list(found["targets"]["d"]["precisions"]) == [precision]

    @pytest.mark.parametrize("peak, bound", [(422, "compute"), (424, "memory")])
    def test_the_roof_that_binds_changes_at_the_intensity(self, peak: float, bound: str) -> None:
        # 3.699 GFLOP over 8.782 MB in float32: 421.2 FLOP per byte is the ridge of 421.2 GFLOP/s
        intensity = 2 * 56 * 56 * 256 * 256 * 9 / (4 * (self.MAPS + self.WEIGHTS))
        (layer,) = predict(layer_costs(plain()), roofline(fp32=intensity + peak - 423), "fp32")
        assert layer.bound == bound
        assert layer.seconds == max(layer.compute_s, layer.memory_s)

    def test_times_are_the_two_quotients(self) -> None:
        (layer,) = predict(layer_costs(plain()), roofline(fp32=100, int8=400), "int8")
        assert layer.compute_s == pytest.approx(2 * 56 * 56 * 256 * 256 * 9 / 400e9)
        assert layer.memory_s == pytest.approx((self.MAPS + self.WEIGHTS) / 1e9)

    def test_totals_add_up_the_layers(self) -> None:
        found = analysis(layer_costs(residual()), [device(fp32=1000), device("e", fp32=1e-3)])
        for name in ("d", "e"):
            row = found["targets"][name]["precisions"]["fp32"]
            times = [layer["targets"][name]["ms"] for layer in found["layers"]]
            assert row["ms"] == pytest.approx(sum(times))
            assert row["compute_bound"] + row["memory_bound"] == len(times) == 7
        assert found["targets"]["d"]["precisions"]["fp32"]["bound"] == "memory"
        assert found["targets"]["e"]["precisions"]["fp32"]["bound"] == "compute"
        assert found["targets"]["e"]["precisions"]["fp32"]["memory_share"] == 0

    def test_every_precision_of_the_device(self) -> None:
        found = analysis(layer_costs(plain()), [device(int8=400, fp32=100, fp16=200)])
        row = found["targets"]["d"]
        assert list(row["precisions"]) == ["fp32", "fp16", "int8"]
        assert row["layers_at"] == "fp32"
        times = [row["precisions"][p]["ms"] for p in row["precisions"]]
        assert times == pytest.approx([times[0], times[0] / 2, times[0] / 4])

    def test_a_device_without_float32_is_shown_at_what_it_has(self) -> None:
        found = analysis(layer_costs(plain()), [device(fp16=200)])
        assert found["targets"]["d"]["layers_at"] == "fp16"
        assert found["layers"][0]["targets"]["d"]["precision"] == "fp16"

    def test_what_is_not_offered_has_no_rows(self) -> None:
        found = analysis(layer_costs(plain()), [device(fp32=1), device("e", int8=1)], "int8")
        assert found["targets"]["d"]["precisions"] == {}
        assert list(found["layers"][0]["targets"]) == ["e"]

    def test_integers_keep_their_size(self) -> None:
        network = model(
            [node("Gather", ["x", "i"], ["y"], axis=1)],
            {"x": [1, 5, 7], "i": (TensorProto.INT64, [3])},
            {"y": [1, 3, 7]},
        )
        layers = layer_costs(network)
        found = analysis(layers, [device(fp16=1)], "fp16")
        assert layers.costs[0].bytes == 4 * (35 + 21) + 8 * 3
        assert found["total"]["bytes"] == 2 * (35 + 21) + 8 * 3

    def test_bfloat16_is_counted_at_its_own_size(self) -> None:
        bf16 = TensorProto.BFLOAT16
        network = model([node("Relu", ["x"], ["y"])], {"x": (bf16, [5])}, {"y": (bf16, [5])})
        (layer,) = layer_costs(network).costs
        assert (layer.precision, layer.bytes, layer.floats) == ("bf16", 20, 10)


class TestQuantized:
    def test_data_and_weights_are_int8_and_the_pairs_are_free(self) -> None:
        found = costs(quantized(conv()))
        # the input comes in float: its QuantizeLinear can't fold into anything
        x, y = 3 * 5 * 7, 4 * 5 * 7
        assert [layer.op for layer in found.values()] == ["QuantizeLinear", "Conv"]
        assert found["conv"].bytes == x + 4 * 3 * 9 + 4 * 4 + 4 * y
        assert found["conv"].precision == "int8"
        assert found["conv"].flops == 2 * y * 27
        (entry,) = (layer for layer in found.values() if layer.op == "QuantizeLinear")
        assert (entry.flops, entry.bytes) == (0, 4 * x + x + 4 + 1)

    def test_output_is_int8_where_everyone_quantizes_it(self) -> None:
        found = costs(quantized(residual()))
        c, r = 4 * 6 * 8, 4 * 6 * 8
        # r1 goes through one Q/DQ to conv2 and to the Add: relu1 writes uint8
        assert found["relu1"].bytes == 4 * c + r
        assert found["conv2"].bytes == r + 4 * 4 * 9 + c
        assert found["add"].bytes == r + c + 4 * c
        assert [found[n].precision for n in ("conv2", "add", "relu1")] == ["int8", "int8", "fp32"]

    def test_a_value_also_read_in_float_keeps_a_layer_that_converts(self) -> None:
        found = layer_costs(
            qdq(
                "q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z)"
                " e = Relu(d) y = Add(r, e)"
            )
        )
        ops = [layer.op for layer in found.costs]
        assert ops == ["Relu", "QuantizeLinear", "Relu", "Add"]
        assert [layer.bytes for layer in found.costs[1:]] == [4 * 30 + 30 + 5, 30 + 120, 360]

    def test_a_dequantized_graph_output_is_a_layer(self) -> None:
        found = layer_costs(qdq("q = QuantizeLinear(r, s, z) y = DequantizeLinear(q, s, z)"))
        assert [layer.op for layer in found.costs] == ["Relu", "DequantizeLinear"]
        assert [layer.bytes for layer in found.costs] == [120 + 30, 30 + 5 + 120]

    def test_a_graph_output_stays_wide_though_it_is_quantized_too(self) -> None:
        network = model_from(
            "g (float[5,6] x) => (float[5,6] r, float[5,6] y) { r = Relu(x)"
            " q = QuantizeLinear(r, s, z) d = DequantizeLinear(q, s, z) y = Exp(d) }",
            {"s": np.asarray(0.1, "f4"), "z": np.asarray(3, "u1")},
        )
        found = layer_costs(network).costs
        assert [layer.op for layer in found] == ["Relu", "QuantizeLinear", "Exp"]
        assert [layer.bytes for layer in found] == [240, 120 + 30 + 5, 30 + 120]

    def test_folding_looks_through_what_relabels(self) -> None:
        found = layer_costs(
            qdq(
                "t = Reshape(r, k) q = QuantizeLinear(t, s, z)"
                " d = DequantizeLinear(q, s, z) f = Reshape(d, k) y = Exp(f)"
            )
        )
        assert [layer.op for layer in found.costs] == ["Relu", "Exp"]
        assert [layer.bytes for layer in found.costs] == [120 + 30, 30 + 120]

    def test_int8_is_the_graph_as_written(self) -> None:
        layers = layer_costs(quantized(residual()))
        found = analysis(layers, [device(fp32=1, int8=4)])
        row = found["targets"]["d"]
        assert list(row["precisions"]) == ["int8"]
        assert row["precisions"]["int8"]["bytes"] == found["total"]["bytes"]
        assert found["total"]["bytes"] == sum(layer.bytes for layer in layers.costs)
        by_op = {r["name"]: r["targets"]["d"] for r in found["layers"]}
        assert (by_op["conv2"]["precision"], by_op["relu1"]["precision"]) == ("int8", "fp32")

    def test_another_precision_is_that_of_the_float_layers(self) -> None:
        layers = layer_costs(quantized(residual()))
        found = analysis(layers, [device(fp16=2, int8=4)], "fp16")
        rows = {row["name"]: row for row in found["layers"]}
        assert (rows["conv2"]["precision"], rows["relu1"]["precision"]) == ("int8", "fp16")
        assert rows["relu1"]["bytes"] == 2 * 192 + 192

    def test_without_a_rate_for_int8_the_nearest_counts(self) -> None:
        assert rate(roofline(fp32=1, fp16=2), "int8") == 2e9
        assert rate(roofline(fp32=1), "int8") == 1e9
        assert rate(roofline(int8=4), "fp32") == 4e9


def qdq(body: str) -> Model:
    """r = Relu(x) on [5, 6], then the body: s and z are a scale and zero point, k the shape."""
    weights: Mapping[str, np.ndarray] = {
        "s": np.asarray(0.1, "f4"),
        "z": np.asarray(3, "u1"),
        "k": np.asarray([5, 6]),
    }
    return model_from(f"g (float[5,6] x) => (float[5,6] y) {{ r = Relu(x) {body} }}", weights)


class TestIgnored:
    def test_shape_arithmetic_is_no_layer(self) -> None:
        network = model_from(
            "g (float[N,6,4] x) => (float[a,b] y) { s = Shape(x) b = Gather(s, i)"
            " u = Unsqueeze(b, i0) k = Concat<axis=0>(u, m) r = Reshape(x, k) y = Relu(r) }",
            {"i": np.asarray(0), "i0": np.asarray([0]), "m": np.asarray([24])},
        )
        assert [layer.op for layer in layer_costs(network).costs] == ["Relu"]

    def test_an_embedding_reads_the_rows_it_takes(self) -> None:
        network = model(
            [node("Gather", ["table", "i"], ["y"])],
            {"i": (TensorProto.INT64, [3])},
            {"y": [3, 8]},
            {"table": normal(1000, 8)},
        )
        assert layer_costs(network).costs[0].bytes == 4 * 24 + 8 * 3 + 4 * 24

    def test_unknown_shapes_are_named(self) -> None:
        network = model_from(
            "g (float[3,4] x, int64[k] s) => (float[a,b] y) { z = Reshape(x, s) y = Relu(z) }"
        )
        layers = layer_costs(network)
        assert layers.unknown == ("Relu -> y",)
        assert analysis(layers, [device(fp32=1)])["total"]["unknown"] == list(layers.unknown)

    def test_a_free_size_besides_the_batch_counts_for_too_little(self) -> None:
        text = "g (float[N,H,8] x) => (float[N,H,8] y) { y = Relu(x) }"
        assert layer_costs(model_from(text)).unknown == ("Relu -> y",)
        text = "g (float[N,4,8] x) => (float[N,4,8] y) { y = Relu(x) }"
        assert layer_costs(model_from(text)).unknown == ()

    def test_a_body_is_named_as_unknown(self) -> None:
        network = model_from(
            "g (bool c, float[3,4] x) => (float[3,4] y) { y = If (c) <"
            " then_branch = t () => (float[3,4] u) { u = Relu(x) },"
            " else_branch = e () => (float[3,4] v) { v = Exp(x) }> }"
        )
        layers = layer_costs(network)
        assert layers.unknown == ("If -> y",)

    def test_what_is_no_tensor_has_no_bytes(self) -> None:
        network = model_from(
            "g (float[3,4] x) => (float[3,4] y) { s = SequenceConstruct(x, x)"
            " y = SequenceAt(s, i) }",
            {"i": np.asarray(1)},
        )
        assert [layer.bytes for layer in layer_costs(network).costs] == [96, 56]


@pytest.mark.parametrize(
    "body, weights, flops",
    [
        ("y = MaxPool<kernel_shape=[2,3]>(x)", {}, 3 * 4 * 4 * 6),
        ("y = Relu(x)", {}, 90),
        ("y = ReduceMax<axes=[1]>(x)", {}, 90),
        ('y = Einsum<equation="nchw,cd->ndhw">(x, w)', {"w": zeros(3, 7)}, 2 * 90 * 7),
        ('y = Einsum<equation="n...w,wv->n...v">(x, w)', {"w": zeros(6, 2)}, 2 * 90 * 2),
        ('y = Einsum<equation="nchw->nwhc">(x)', {}, 0),
        ("y = Concat<axis=1>(x, x)", {}, 0),
        ("y = Resize(x, , s)", {"s": np.float32([1, 1, 2, 3])}, 0),
        ('y = Resize<mode="linear">(x, , s)', {"s": np.float32([1, 1, 2, 3])}, 2 * 540 * 4),
        ('y = Resize<mode="cubic">(x, , s)', {"s": np.float32([1, 1, 2, 3])}, 2 * 540 * 16),
        ('y = Resize<mode="linear">(x, , , t)', {"t": np.int64([1, 3, 5, 9])}, 2 * 135 * 2),
        ('y = Resize<mode="linear">(x, , , t)', {"t": np.int64([1, 3, 5, 6])}, 0),
    ],
)
def test_flops_of_other_operators(body: str, weights: dict[str, np.ndarray], flops: int) -> None:
    network = model_from(f"g (float[1,3,5,6] x) => (float[a,b,c,d] y) {{ {body} }}", weights)
    assert [layer.flops for layer in layer_costs(network).costs] == [flops]


def test_flops_of_an_lstm() -> None:
    weights = {"w": zeros(1, 4 * 5, 3), "r": zeros(1, 4 * 5, 5)}
    network = model_from(
        "g (float[7,2,3] x) => (float[a,b,c,d] y) { y = LSTM<hidden_size=5>(x, w, r) }", weights
    )
    assert layer_costs(network).costs[0].flops == 2 * 7 * 2 * 4 * 5 * (3 + 5)


class TestDevices:
    @pytest.mark.parametrize(
        "name, precision, tflops, gbytes, on_chip",
        [
            ("v100", "fp16", 120, 900, 36 * 2**20),
            ("xavier", "int8", 22.6, 137, 3584 * 2**10),
            ("jetson-nano", "fp16", 0.472, 25.6, 576 * 2**10),
            ("rpi3", "fp32", 0.0384, 3.6, 512 * 2**10),
        ],
    )
    def test_documented_figures(
        self, name: str, precision: str, tflops: float, gbytes: float, on_chip: int
    ) -> None:
        found = Device.find(name).roofline
        assert found.peak_flops[precision] == pytest.approx(tflops * 1e12)  # type: ignore[index]
        assert found.bandwidth_bytes_per_s == pytest.approx(gbytes * 1e9)
        assert found.on_chip_bytes == on_chip

    @pytest.mark.parametrize("name", HARDWARE)
    def test_every_row_is_plausible(self, name: str) -> None:
        found = Device.find(name)
        assert 0 < len(found.title) <= 70
        assert any("roofline" in note for note in found.notes)
        rates = [found.roofline.peak_flops[p] for p in found.precisions]
        assert rates == sorted(rates)
        assert all(1 < peak / found.roofline.bandwidth_bytes_per_s < 2000 for peak in rates)

    def test_a_target_comes_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        row = tmp_path / "cpu.toml"
        row.write_text(registry.path("hardware", "jetson-nano").read_text())
        monkeypatch.setitem(registry._FOLDERS, "hardware", tmp_path)
        assert Device.find("cpu").target is not None
        assert Device.find(str(row)).target is None

    def test_own_files_of_both_kinds(self, tmp_path: Path) -> None:
        mine = tmp_path / "mine.toml"
        mine.write_text('extends = "cpu"\ntitle = "my server"\n')
        assert Device.find(str(mine)).target is not None
        mine.write_text(registry.path("hardware", "jetson-nano").read_text())
        assert Device.find(str(mine)).title == Device.find("jetson-nano").title

    @pytest.mark.parametrize(
        "name, hint", [("v10", "v100"), ("jetson-nan", "jetson-nano"), ("cp", "cpu")]
    )
    def test_unknown_name_gets_the_nearest(self, name: str, hint: str) -> None:
        with pytest.raises(RecipeError, match=f"unknown target '{name}' .did you mean '{hint}'"):
            Device.find(name)

    def test_a_wrong_figure_is_named(self, tmp_path: Path) -> None:
        bad = tmp_path / "bad.toml"
        text = registry.path("hardware", "jetson-nano").read_text().replace("25.6e9", "0")
        bad.write_text(text)
        with pytest.raises(RecipeError, match=r"bad.toml: roofline.bandwidth_bytes_per_s = 0"):
            Device.find(str(bad))

    def test_a_missing_file_is_said(self) -> None:
        with pytest.raises(RecipeError, match="no such target file"):
            Device.find("nowhere.toml")


def test_same_model_same_json() -> None:
    once, again = (
        json.dumps(analysis(layer_costs(quantized(residual())), [Device.find("cpu")]))
        for _ in range(2)
    )
    assert once == again
