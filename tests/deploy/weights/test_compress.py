"""Weight-only int8 and int4: the integers, their form in ONNX, and a reason for every float."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers import MODELS, assert_same_numbers, feeds_for, ops, run
from onnx import numpy_helper
from tiny_models import model, node, normal, quantized, samples_of, weights_of

from calibrators.ranges import weight_params
from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.errors import ModelError
from deploy.metrics import sqnr_db
from deploy.weights.compress import WeightForm, compress, readers
from deploy.weights.grid import fit_grid, noise
from deploy.weights.second_moments import Reader, Window, second_moments

INT8 = WeightForm(smallest_bytes=64)
INT4 = WeightForm(bits=4, smallest_bytes=64)


def chain(opset: int = 17, inner: int = 128) -> Model:
    """x[N,5,64] -> MatMul first -> Relu -> MatMul middle -> Relu -> Gemm-like MatMul last."""
    nodes = [
        node("MatMul", ["x", "first"], ["a"], name="first"),
        node("Relu", ["a"], ["b"]),
        node("MatMul", ["b", "middle"], ["c"], name="middle"),
        node("Relu", ["c"], ["d"]),
        node("MatMul", ["d", "last"], ["y"], name="last"),
    ]
    weights = {
        "first": normal(64, inner, seed=1, scale=0.1),
        "middle": normal(inner, 96, seed=2, scale=0.1),
        "last": normal(96, 10, seed=3, scale=0.1),
    }
    return model(nodes, {"x": ["N", 5, 64]}, {"y": ["N", 5, 10]}, weights, opset=opset)


def attributes(node_: onnx.NodeProto) -> dict[str, int]:
    return {a.name: a.i for a in node_.attribute}


def dequantizers(model_: Model) -> dict[str, onnx.NodeProto]:
    """By the name of the weight they stand for."""
    found = [n for n in model_.proto.graph.node if n.op_type == "DequantizeLinear"]
    return {n.output[0].removesuffix("/dequantized"): n for n in found}


def stored(model_: Model, name: str) -> np.ndarray:
    """What the weight became, multiplied out by ONNX Runtime."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model_.proto)
    proto.graph.output.append(
        next(v for v in proto.graph.value_info if v.name == f"{name}/dequantized")
    )
    return run(Model(proto, "probe"), feeds_for(model_))[f"{name}/dequantized"]


def reason(model_: Model, subject: str) -> str:
    return next(d.reason for d in model_.decisions if d.subject == subject)


LAYERS = {
    "Conv": (node("Conv", ["x", "w"], ["y"], group=2), [1, 4, 9, 8], normal(6, 2, 3, 3), 0),
    "Gemm": (node("Gemm", ["x", "w"], ["y"]), ["N", 16], normal(16, 12), 1),
    "Gemm transB": (node("Gemm", ["x", "w"], ["y"], transB=1), ["N", 16], normal(12, 16), 0),
    "MatMul batched": (node("MatMul", ["x", "w"], ["y"]), [3, 5, 16], normal(3, 16, 12), 2),
}


class TestInt8:
    def test_one_scale_per_output_channel(self) -> None:
        network = chain()
        made = compress(network, INT8)
        assert ops(made).count("DequantizeLinear") == 3
        assert made.opset == 17
        for name, dq in dequantizers(made).items():
            assert attributes(dq) == {"axis": 1}
            params = weight_params(weights_of(network)[name], 1)
            integers = weights_of(made)[dq.input[0]]
            assert integers.dtype == np.int8
            np.testing.assert_array_equal(integers, params.quantize(weights_of(network)[name]))
            np.testing.assert_array_equal(weights_of(made)[dq.input[1]], params.scale)
            assert len(dq.input) == 2, "a symmetric weight has no zero point"

    def test_outputs_stay_close_and_the_input_is_not_changed(self) -> None:
        network = chain()
        before = network.serialized
        made = compress(network, INT8)
        feeds = feeds_for(network)
        assert sqnr_db(run(network, feeds)["y"], run(made, feeds)["y"]) > 38
        assert network.proto.SerializeToString(deterministic=True) == before

    def test_asymmetric_is_uint8_with_zero_points(self) -> None:
        network = chain()
        made = compress(network, replace(INT8, symmetric=False))
        weights = weights_of(made)
        for dq in dequantizers(made).values():
            zero = weights[dq.input[2]]
            assert weights[dq.input[0]].dtype == zero.dtype == np.uint8
            assert zero.shape == weights[dq.input[1]].shape

    @pytest.mark.parametrize("name", LAYERS)
    def test_the_axis_is_that_of_the_output_channels(self, name: str) -> None:
        layer, shape, w, axis = LAYERS[name]
        network = model([layer], {"x": shape}, {"y": ["?"] * len(shape)}, {"w": w})
        made = compress(network, INT8)
        (dq,) = dequantizers(made).values()
        assert attributes(dq) == {"axis": axis}
        np.testing.assert_allclose(stored(made, "w"), w, atol=float(np.abs(w).max()) / 250)
        assert_same_numbers(network, made, rtol=0.02)

    def test_an_embedding_has_a_scale_per_row(self) -> None:
        table = normal(40, 8) * np.logspace(0, -4, 40, dtype="f4")[:, None]
        network = model(
            [node("Gather", ["e", "i"], ["y"])],
            {"i": (onnx.TensorProto.INT64, ["N", 5])},
            {"y": ["N", 5, 8]},
            {"e": table},
        )
        made = compress(network, INT8)
        assert attributes(dequantizers(made)["e"]) == {"axis": 0}
        gap = np.abs(stored(made, "e") - table).max(axis=1)
        assert (gap <= np.abs(table).max(axis=1) / 253).all()

    def test_one_copy_for_all_readers(self) -> None:
        nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
        network = model(nodes, {"x": ["N", 16]}, {"y": ["N", 16]}, {"w": normal(16, 16)})
        made = compress(network, INT8)
        assert ops(made).count("DequantizeLinear") == 1
        assert "w" not in weights_of(made)

    def test_bytes_saved_are_those_of_the_file(self) -> None:
        network = chain()
        made = compress(network, replace(INT8, symmetric=False))
        saved = sum(d.bytes_saved for d in made.decisions)
        assert abs(len(network.serialized) - len(made.serialized) - saved) < 1500


class TestInt4:
    @pytest.mark.parametrize("symmetric", [True, False])
    def test_blocks_along_the_inputs(self, symmetric: bool) -> None:
        network = chain()
        made = compress(network, replace(INT4, symmetric=symmetric, groups=(32,)))
        dq = dequantizers(made)["middle"]
        assert attributes(dq) == {"axis": 0, "block_size": 32}
        tensors = {i.name: i for i in made.proto.graph.initializer}
        kind = onnx.TensorProto.INT4 if symmetric else onnx.TensorProto.UINT4
        assert tensors[dq.input[0]].data_type == kind
        assert list(tensors[dq.input[0]].dims) == [128, 96]
        assert len(tensors[dq.input[0]].raw_data) == 128 * 96 // 2
        assert list(tensors[dq.input[1]].dims) == [4, 96]
        assert made.opset == 21 and made.proto.ir_version == 10
        onnx.checker.check_model(made.proto, full_check=True)

    @pytest.mark.parametrize("transposed", [0, 1])
    def test_what_is_stored_is_the_grid(self, transposed: int) -> None:
        w = normal(64, 24, seed=4)
        layer = node("Gemm", ["x", "w"], ["y"], transB=transposed)
        network = model(
            [layer], {"x": ["N", 64]}, {"y": ["N", 24]}, {"w": w.T.copy() if transposed else w}
        )
        made = compress(network, replace(INT4, groups=(32,), narrow_ends=True))
        grid = fit_grid(w.T, 4, group=32)
        expected = grid.values(grid.nearest(w.T)).T
        got = stored(made, "w")
        np.testing.assert_array_equal(got.T if transposed else got, expected)

    def test_first_and_last_layer_and_others_keep_eight_bits(self) -> None:
        made = compress(chain(), INT4)
        kinds = {d.subject: d.rule for d in made.decisions}
        assert kinds == {"first": "int8", "middle": "int4", "last": "int8"}
        assert "it is the first layer" in reason(made, "first")
        assert "it is the last layer" in reason(made, "last")

    def test_all_of_them_on_request(self) -> None:
        made = compress(chain(), replace(INT4, narrow_ends=True))
        assert {d.rule for d in made.decisions} == {"int4"}

    def test_convolutions_and_embeddings_keep_eight_bits(self) -> None:
        network = model(
            [
                node("Conv", ["x", "w"], ["a"]),
                node("Conv", ["a", "v"], ["b"]),
                node("Conv", ["b", "w"], ["y"]),
            ],
            {"x": [1, 8, 6, 7]},
            {"y": [1, 8, 6, 7]},
            {"w": normal(8, 8, 1, 1), "v": normal(8, 8, 1, 1, seed=9)},
        )
        made = compress(network, INT4)
        assert "4 bits are for MatMul and Gemm, it belongs to a Conv" in reason(made, "v")
        wide = compress(network, replace(INT4, narrow=("Conv",), narrow_ends=True))
        assert attributes(dequantizers(wide)["v"]) == {"axis": 0}
        assert reason(wide, "v").startswith("int4")

    def test_inputs_that_no_group_divides_keep_eight_bits(self) -> None:
        made = compress(chain(inner=72), INT4)
        assert "72 inputs don't split into groups of 32" in reason(made, "middle")

    def test_a_batched_weight_keeps_eight_bits(self) -> None:
        layer = node("MatMul", ["x", "w"], ["y"])
        network = model([layer], {"x": [3, 5, 64]}, {"y": [3, 5, 8]}, {"w": normal(3, 64, 8)})
        made = compress(network, replace(INT4, narrow_ends=True))
        assert "blocks need a matrix" in reason(made, "w")

    def test_a_weight_of_outliers_keeps_eight_bits(self) -> None:
        network = chain()
        values = weights_of(network)["middle"].copy()
        values[::32] *= 12
        tensor = next(i for i in network.proto.graph.initializer if i.name == "middle")
        tensor.CopyFrom(numpy_helper.from_array(values, "middle"))
        made = compress(network, INT4)
        assert "int8" in reason(made, "middle")
        assert "int4 would leave less than" in reason(made, "middle")

    def test_an_opset_that_can_not_be_raised(self) -> None:
        # what a pool's window covers at the border was settled anew at opset 19
        nodes = [
            node("AveragePool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 1], ceil_mode=1),
            *(node("MatMul", [a, w], [b]) for a, w, b in ("pah", "hbg", "gcy")),
        ]
        weights = {n: normal(32, 32, seed=i) for i, n in enumerate("abc")}
        network = model(nodes, {"x": [1, 2, 5, 33]}, {"y": [1, 2, 3, 32]}, weights)
        made = compress(network, INT4)
        assert "an int4 weight needs opset 21" in reason(made, "b")
        assert made.opset == 17
        assert {d.rule for d in made.decisions} == {"int8"}

    def test_a_larger_group_where_it_loses_little(self) -> None:
        network = chain()
        even = np.where(normal(128, 96, seed=8) > 0.1, 1.0, -1.0) * 0.3
        spread = even * np.repeat(np.logspace(0, -3, 4), 32)[:, None]
        chosen = []
        for values in (even, spread):
            tensor = next(i for i in network.proto.graph.initializer if i.name == "middle")
            tensor.CopyFrom(numpy_helper.from_array(values.astype("f4"), "middle"))
            made = compress(network, INT4)
            chosen.append(attributes(dequantizers(made)["middle"])["block_size"])
        assert chosen == [128, 32]


class TestSamples:
    def test_only_four_bit_layers_are_observed(self) -> None:
        assert readers(chain(), INT4) == [Reader("b")]
        assert readers(chain(), INT8) == []

    def test_the_layer_loses_less_with_samples(self) -> None:
        network = chain()
        samples = samples_of(network, 40)
        moments = second_moments(network, samples, readers(network, INT4))
        plain, aware = compress(network, INT4), compress(network, INT4, moments)
        assert "GPTQ" in reason(aware, "middle") and "GPTQ" not in reason(plain, "middle")
        w, (h,) = weights_of(network)["middle"], moments[Reader("b")]
        errors = []
        for made in (plain, aware):
            gap = stored(made, "middle").astype(np.float64) - w
            errors.append(float(np.einsum("kn,kl,ln->", gap, h, gap)))
        assert errors[1] < 0.8 * errors[0]

    def test_grouped_convolutions_use_the_moments_of_their_group(self) -> None:
        conv = node("Conv", ["x", "w"], ["y"], group=2, pads=[1, 1, 1, 1])
        network = model([conv], {"x": [1, 6, 9, 8]}, {"y": [1, 8, 9, 8]}, {"w": normal(8, 3, 3, 3)})
        form = replace(INT4, narrow=("Conv",), narrow_ends=True)
        (reader,) = readers(network, form)
        assert reader == Reader("x", Window((3, 3), pads=(1, 1, 1, 1), groups=2))
        # neighbours of an image are alike, and each half of the channels in its own way
        walks = [np.cumsum(s.feeds["x"], axis=3) for s in samples_of(network, 6)]
        walks = [np.concatenate([x[:, :3], np.cumsum(x[:, 3:], axis=2)], axis=1) for x in walks]
        samples = [Sample(f"{i}", {"x": x}) for i, x in enumerate(walks)]
        moments = second_moments(network, samples, [reader])
        rows = weights_of(network)["w"].reshape(2, 4, 27)
        errors = []
        for made in (compress(network, form), compress(network, form, moments)):
            gap = stored(made, "w").reshape(2, 4, 27).astype(np.float64) - rows
            errors.append(float(np.einsum("gok,gkl,gol->", gap, moments[reader], gap)))
        assert errors[1] < 0.5 * errors[0]

    @pytest.mark.parametrize("how", [{"transA": 1}, {}])
    def test_a_transposed_input_is_not_observed(self, how: dict[str, int]) -> None:
        layer = node("Gemm", ["x", "w"], ["y"], **how)
        network = model([layer], {"x": [64, 64]}, {"y": [64, 8]}, {"w": normal(64, 8)})
        assert readers(network, replace(INT4, narrow_ends=True)) == ([] if how else [Reader("x")])

    @pytest.mark.parametrize("pad", ["NOTSET", "SAME_UPPER"])
    def test_padding_that_depends_on_the_size_is_not_observed(self, pad: str) -> None:
        conv = node("Conv", ["x", "w"], ["y"], auto_pad=pad)
        network = model([conv], {"x": [1, 4, 6, 7]}, {"y": ["?"] * 4}, {"w": normal(8, 4, 1, 1)})
        found = readers(network, replace(INT4, narrow=("Conv",), narrow_ends=True))
        assert bool(found) == (pad == "NOTSET")

    def test_a_shared_weight_needs_the_moments_of_all_its_layers(self) -> None:
        nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "w"], ["y"])]
        network = model(nodes, {"x": ["N", 64]}, {"y": ["N", 64]}, {"w": normal(64, 64)})
        form = replace(INT4, narrow_ends=True)
        assert readers(network, form) == [Reader("x"), Reader("h")]
        moments = second_moments(network, samples_of(network, 90), readers(network, form))
        assert "GPTQ" in reason(compress(network, form, moments), "w")
        half = {Reader("x"): moments[Reader("x")]}
        assert "GPTQ" not in reason(compress(network, form, half), "w")


class TestReasons:
    def test_small_weights(self) -> None:
        made = compress(chain(), WeightForm(smallest_bytes=4096))
        assert reason(made, "last") == "3840 bytes, below 4096: nothing to gain"
        assert "last" in weights_of(made)

    def test_operators_a_target_leaves_out(self) -> None:
        network = model(
            [node("Conv", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])],
            {"x": [1, 8, 6, 16]},
            {"y": [1, 8, 6, 16]},
            {"w": normal(8, 8, 1, 1), "v": normal(16, 16)},
        )
        made = compress(network, replace(INT8, layers=("MatMul",)))
        assert reason(made, "w") == "weights of Conv stay float on this target"

    def test_another_reader_that_needs_the_float(self) -> None:
        nodes = [
            node("MatMul", ["x", "w"], ["h"]),
            node("Mul", ["h", "w"], ["g"], name="mul"),
            node("MatMul", ["g", "v"], ["y"]),
        ]
        weights = {"w": normal(16, 16), "v": normal(16, 16, seed=5)}
        made = compress(model(nodes, {"x": [16, 16]}, {"y": [16, 16]}, weights), INT8)
        assert reason(made, "w") == "'mul' reads it as well, and needs it in float"

    def test_layers_that_disagree_on_the_axis(self) -> None:
        nodes = [
            node("Gemm", ["x", "w"], ["h"]),
            node("Gemm", ["h", "w"], ["g"], transB=1),
            node("MatMul", ["g", "v"], ["y"]),
        ]
        weights = {"w": normal(16, 16), "v": normal(16, 16, seed=5)}
        made = compress(model(nodes, {"x": ["N", 16]}, {"y": ["N", 16]}, weights), INT8)
        assert "along different axes" in reason(made, "w")

    def test_a_weight_that_int8_would_spoil(self) -> None:
        network = chain(inner=1024)
        tensor = next(i for i in network.proto.graph.initializer if i.name == "middle")
        tensor.CopyFrom(numpy_helper.from_array(_heavy((1024, 96)), "middle"))
        made = compress(network, INT8)
        assert re.search(r"int8 would leave \d+\.\d dB, below", reason(made, "middle"))
        assert "middle" in weights_of(made)

    def test_more_scales_than_weights(self) -> None:
        nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
        weights = {"w": normal(1, 64), "v": normal(64, 8)}
        made = compress(model(nodes, {"x": ["N", 1]}, {"y": ["N", 8]}, weights), INT8)
        assert "int8 would save less than half" in reason(made, "w")

    def test_an_output_of_the_model(self) -> None:
        nodes = [node("MatMul", ["x", "w"], ["h"]), node("MatMul", ["h", "v"], ["y"])]
        weights = {"w": normal(16, 16), "v": normal(16, 16, seed=5)}
        network = model(nodes, {"x": ["N", 16]}, {"y": ["N", 16], "w": [16, 16]}, weights)
        made = compress(network, INT8)
        assert reason(made, "w") == "it is an output of the model"
        assert reason(made, "v").startswith("int8")

    @pytest.mark.parametrize(("axis", "rows"), [(1, 16), (0, 16)])
    def test_only_rows_of_a_table_are_an_embedding(self, axis: int, rows: int) -> None:
        nodes = [
            node("Gather", ["e", "i"], ["g"], axis=axis),
            node("MatMul", ["g", "v"], ["y"]),
        ]
        weights = {"e": normal(rows, rows), "v": normal(rows, 16, seed=5)}
        network = model(nodes, {"i": (onnx.TensorProto.INT64, [16])}, {"y": [16, 16]}, weights)
        assert ("e" in weights_of(compress(network, INT8))) == (axis == 1)

    def test_a_table_read_at_fixed_places_is_no_embedding(self) -> None:
        nodes = [
            node("Gather", ["e", "i"], ["g"]),
            node("Mul", ["x", "g"], ["h"]),
            node("MatMul", ["h", "v"], ["y"]),
        ]
        weights = {"e": normal(16, 16), "i": np.arange(4), "v": normal(16, 16, seed=5)}
        made = compress(model(nodes, {"x": [4, 16]}, {"y": [4, 16]}, weights), INT8)
        assert "e" in weights_of(made) and "v" not in weights_of(made)

    def test_nothing_to_compress(self) -> None:
        network = model([node("Relu", ["x"], ["y"])], {"x": [3]}, {"y": [3]})
        with pytest.raises(ModelError, match="no weights to compress in 1 nodes; build a float"):
            compress(network, INT8)
        with pytest.raises(ModelError, match="first: 32768 bytes, below 100000"):
            compress(chain(), WeightForm(smallest_bytes=100_000))

    def test_weights_of_another_float_type(self) -> None:
        float16 = onnx.TensorProto.FLOAT16
        network = model(
            [node("MatMul", ["x", "w"], ["y"])],
            {"x": (float16, ["N", 16])},
            {"y": (float16, ["N", 8])},
            {"w": normal(16, 8).astype(np.float16)},
        )
        why = "w: its values are float16; integers are made of float32 only; build a float"
        with pytest.raises(ModelError, match=why):
            compress(network, INT8)

    def test_quantized_layers_are_left_alone(self) -> None:
        network = chain()
        made = quantized(network)
        with pytest.raises(ModelError, match="no weights to compress"):
            compress(made, INT8)


def _heavy(shape: tuple[int, ...]) -> np.ndarray:
    """One giant per column, over values a thousandth of it."""
    values = 1e-3 * normal(*shape, seed=12)
    values[0] = 0.2
    return values


class TestOpenVino:
    """What the CPU plugin makes of the form: integers stay integers, or it would pay nothing."""

    @pytest.mark.parametrize(
        ("form", "kept"),
        [
            (INT8, {"i8"}),
            (replace(INT8, symmetric=False), {"u8"}),
            (replace(INT4, narrow_ends=True), {"i4"}),
            (replace(INT4, narrow_ends=True, symmetric=False), {"u4"}),
        ],
    )
    def test_weights_stay_compressed(self, form: WeightForm, kept: set[str]) -> None:
        import openvino as ov

        network = model(
            [node("MatMul", ["x", "a"], ["h"]), node("MatMul", ["h", "b"], ["y"])],
            {"x": ["N", 5, 128]},
            {"y": ["N", 5, 128]},
            {"a": normal(128, 128, seed=1), "b": normal(128, 128, seed=2)},
        )
        made = compress(network, form)
        core = ov.Core()
        compiled = core.compile_model(
            core.read_model(made.serialized), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        constants = {
            str(op.get_rt_info()["outputPrecisions"].value)
            for op in compiled.get_runtime_model().get_ordered_ops()
            if op.get_rt_info()["layerType"].value == "Const"
            and op.get_output_shape(0) == [128, 128]
        }
        assert constants == kept


@pytest.mark.skipif(not MODELS.is_dir(), reason=f"no real models in {MODELS}")
def test_a_real_recognizer_gets_a_third_of_its_size() -> None:
    from deploy.load import load, read
    from deploy.simplify import simplify

    loaded = load(read(MODELS / "ppocrv4_en_rec.onnx"), {"x": (1, 3, 48, 96)})
    made = compress(simplify(loaded), WeightForm(symmetric=False))
    assert len(made.serialized) < 0.35 * len(loaded.serialized)
    assert sum(d.rule == "int8" for d in made.decisions) >= 35


def test_the_noise_in_the_reason_is_the_weights() -> None:
    network = chain()
    made = compress(network, INT8)
    w = weights_of(network)["middle"]
    measured = 10 * np.log10((w.astype(float) ** 2).sum() / noise(w, stored(made, "middle")))
    assert f"int8, {measured:.1f} dB, 49152 -> 12672 bytes, 96 channels" == reason(made, "middle")
