"""16-bit graphs: what stays in float32 and why, where Casts stand, and what the numbers lose."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from helpers import MODELS, assert_same_numbers, feeds_for, model_from, ops, run, weight
from onnx import TensorProto
from tiny_models import model, node, normal, quantized, ranges_of, residual, samples_of, weights_of

from calibrators.ranges import Range
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Picture, Ranges, Source, TensorRange
from deploy.calibrate import calibrate
from deploy.errors import CalibrationError, RecipeError
from deploy.floats.convert_float import convert_float
from deploy.metrics import sqnr_db

FP16 = TensorProto.FLOAT16


def attention(mask: float = -1e4) -> Model:
    """Scores, softmax, values: MatMul -> Add(mask) -> Softmax -> MatMul on float32[N, 5, 8]."""
    text = """
        g (float[N,5,8] x) => (float[N,5,6] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            kt = Transpose <perm = [0, 2, 1]>(k)
            s = MatMul(q, kt)
            m = Add(s, mask)
            p = Softmax <axis = -1>(m)
            v = MatMul(x, wv)
            y = MatMul(p, v)
        }"""
    weights = {"wq": weight(8, 4, seed=1), "wk": weight(8, 4, seed=2), "wv": weight(8, 6, seed=3)}
    closed = np.where(np.arange(5) < 4, 0, mask).astype("f4")
    return model_from(text, weights | {"mask": closed})


def given(made_for: Model, ranges: Mapping[str, tuple[float, float]]) -> Ranges:
    """Ranges as if they had been calibrated on the model."""
    picture = Picture(0.0, 1.0, (1,))
    tensors = {
        name: TensorRange(Range(low, high), Range(low, high), picture)
        for name, (low, high) in ranges.items()
    }
    return Ranges(tensors, Source(made_for.sha256, ("0",), {}))


def types(made: Model) -> dict[str, int]:
    proto = onnx.shape_inference.infer_shapes(made.proto)
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    weights = {i.name: i.data_type for i in proto.graph.initializer}
    return {v.name: v.type.tensor_type.elem_type for v in values} | weights


def computes(made: Model) -> dict[str, int]:
    """By operator: the type of what it gives."""
    known = types(made)
    return {n.op_type: known[n.output[0]] for n in made.proto.graph.node if n.op_type != "Cast"}


def reasons(made: Model) -> dict[str, str]:
    return {d.subject.split(" ->")[0]: d.reason for d in made.decisions if d.outcome == "skipped"}


def casts(made: Model) -> list[str]:
    return [n.input[0] for n in made.proto.graph.node if n.op_type == "Cast"]


def assert_no_cast_for_nothing(made: Model) -> None:
    """One Cast per tensor and type, none behind another, none that changes nothing."""
    known, seen = types(made), set()
    by_output = {o: n for n in made.proto.graph.node for o in n.output}
    for cast in (n for n in made.proto.graph.node if n.op_type == "Cast"):
        source, to = cast.input[0], known[cast.output[0]]
        assert known[source] != to
        assert (source, to) not in seen
        seen.add((source, to))
        assert source not in by_output or by_output[source].op_type != "Cast"


class TestCasts:
    def test_attention_in_float16(self) -> None:
        network = attention()
        before = network.serialized
        made = convert_float(network, "fp16")
        assert ops(made).count("Cast") == 4  # x, m, p, y
        kinds = computes(made)
        assert (
            kinds["MatMul"] in (FP16, TensorProto.FLOAT) and kinds["Softmax"] == TensorProto.FLOAT
        )
        assert types(made)["s"] == types(made)["q"] == types(made)["kt"] == FP16
        assert reasons(made) == {"Softmax": "Softmax sums over an axis"}
        assert_no_cast_for_nothing(made)
        assert network.proto.SerializeToString(deterministic=True) == before
        feeds = feeds_for(network)
        assert 55 < sqnr_db(run(network, feeds)["y"], run(made, feeds)["y"]) < 100

    def test_inputs_and_outputs_stay_float32_under_their_names(self) -> None:
        network = attention()
        made = convert_float(network, "fp16")
        assert [str(s) for s in made.inputs] == [str(s) for s in network.inputs]
        assert [str(s) for s in made.outputs] == [str(s) for s in network.outputs]

    def test_inputs_and_outputs_in_float16_on_request(self) -> None:
        made = convert_float(attention(), "fp16", keep_io=False)
        assert [s.dtype for s in (*made.inputs, *made.outputs)] == [np.float16] * 2
        assert [s.name for s in (*made.inputs, *made.outputs)] == ["x", "y"]
        assert casts(made) == ["m", "p"]

    def test_weights_are_stored_in_the_type_they_are_read_in(self) -> None:
        network = residual()
        made = convert_float(network, "fp16")
        weights = weights_of(made)
        assert {w.dtype for w in weights.values()} == {np.dtype(np.float16)}
        np.testing.assert_array_equal(weights["w1/float16"], weights_of(network)["w1"].astype("f2"))
        assert casts(made) == ["x", "y/float16"]

    def test_a_weight_read_in_both_types_is_stored_in_both(self) -> None:
        text = """
            g (float[4,4] x) => (float[4,4] y, float[4,4] z) {
                y = MatMul(x, w)
                z = LpNormalization(w)
            }"""
        made = convert_float(model_from(text, {"w": weight(4, 4)}), "fp16")
        assert {w.dtype for w in weights_of(made).values()} == {np.dtype("f2"), np.dtype("f4")}

    def test_one_cast_for_all_readers(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, w)
                b = MatMul(x, v)
                y = Add(a, b)
            }"""
        network = model_from(text, {"w": weight(4, 4), "v": weight(4, 4, seed=1)})
        made = convert_float(network, "fp16")
        assert casts(made) == ["x", "y/float16"]

    def test_an_output_that_is_read_in_both_types(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] h, float[N,4] y, float[N,4] z) {
                h = MatMul(x, w)
                y = MatMul(h, w)
                z = Softmax(h)
            }"""
        made = convert_float(model_from(text, {"w": weight(4, 4)}), "fp16")
        # Softmax reads the output itself: it is the float32 that there is anyway
        assert next(n for n in made.proto.graph.node if n.op_type == "Softmax").input[0] == "h"
        assert casts(made) == ["x", "h/float16", "y/float16"]
        assert_no_cast_for_nothing(made)

    @pytest.mark.parametrize(
        ("chain", "transposed"),
        [
            (("MatMul", "Transpose", "MatMul"), FP16),
            (("MatMul", "Transpose", "Softmax"), FP16),
            (("Softmax", "Transpose", "MatMul"), FP16),
            (("Softmax", "Transpose", "Softmax"), TensorProto.FLOAT),
        ],
    )
    def test_what_moves_data_moves_the_narrow_type_where_that_adds_no_cast(
        self, chain: tuple[str, ...], transposed: int
    ) -> None:
        names = ["h0", "h1", "h2", "h3", "h4", "y"]
        nodes = [
            node(op, [names[i], "w"] if op == "MatMul" else [names[i]], [names[i + 1]])
            for i, op in enumerate(("MatMul", *chain, "MatMul"))
        ]
        network = model(nodes, {"h0": [4, 4]}, {"y": [4, 4]}, {"w": normal(4, 4)})
        made = convert_float(network, "fp16")
        assert computes(made)["Transpose"] == transposed
        kept = sum(op == "Softmax" for op in chain)
        islands = 1 if chain == ("Softmax", "Transpose", "Softmax") else kept
        assert ops(made).count("Cast") == 2 + 2 * islands
        assert_no_cast_for_nothing(made)

    def test_a_region_without_a_matrix_product_is_left(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = Softmax(x)
                b = Relu(a)
                c = Softmax(b)
                y = MatMul(c, w)
            }"""
        made = convert_float(model_from(text, {"w": weight(4, 4)}), "fp16")
        assert "its casts would cost more" in reasons(made)["Relu"]
        assert casts(made) == ["c", "y/float16"]

    def test_a_large_embedding_is_worth_a_cast(self) -> None:
        text = "g (int64[N] i) => (float[N,D] y) { e = Gather(table, i) y = Softmax(e) }"
        for rows, expected in ((4096, ["f2"]), (16, ["f4"])):
            made = convert_float(model_from(text, {"table": weight(rows, 8)}), "fp16")
            assert [w.dtype.str[1:] for w in weights_of(made).values()] == expected

    def test_only_a_shape_is_read(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y, int64[2] s) {
                y = MatMul(x, w)
                a = Relu(y)
                s = Shape(a)
            }"""
        made = convert_float(model_from(text, {"w": weight(4, 4)}), "fp16")
        assert casts(made) == ["x", "y/float16"]


class TestSensitive:
    def one(self, text: str, weights: Mapping[str, np.ndarray] | None = None, **kw: object) -> str:
        """Why the operator `z = …` between two products stays float32; "" when it doesn't."""
        full = f"""
            g (float[N,4] x) => (float[N,K] y) {{
                a = MatMul(x, w)
                {text}
                y = MatMul(z, w)
            }}"""
        made = convert_float(model_from(full, {"w": weight(4, 4), **(weights or {})}), "fp16")
        (op,) = {n.op_type for n in made.proto.graph.node} - {"MatMul", "Cast", "Constant"}
        return reasons(made).get(op, "")

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("z = Softmax(a)", "Softmax sums over an axis"),
            ("z = LpNormalization(a)", "sums over an axis"),
            ("z = Exp(a)", "Exp can leave the range of float16, and no ranges were given"),
            ("z = Pow(a, two)", "Pow can leave the range"),
            ("z = Log(a)", "Log can leave the range"),
            ("z = Div(a, a)", "Div can leave the range"),
            ("z = Reciprocal(a)", "Reciprocal can leave the range"),
            ("z = Div(a, two)", ""),
            ("z = Mul(a, two)", ""),
            ("z = Sigmoid(a)", ""),
            ("z = Add(a, tiny)", "'tiny' holds values below the normal numbers of float16"),
            ("z = Mul(a, huge)", "'huge' holds 1e+05, float16 ends at 65504"),
        ],
    )
    def test_by_operator_and_constant(self, text: str, reason: str) -> None:
        values = {"two": 2.0, "tiny": 1e-12, "huge": 1e5}
        used = {n: np.asarray(v, "f4") for n, v in values.items() if n in text}
        found = self.one(text, used)
        assert reason in found and bool(reason) == bool(found)

    @pytest.mark.parametrize(("count", "kept"), [(256, False), (257, True)])
    def test_a_mean_over_many(self, count: int, kept: bool) -> None:
        text = f"""
            g (float[N,4,{count}] x) => (float[N,4,1] y) {{
                a = Conv(x, w)
                y = ReduceMean <axes = [2]>(a)
            }}"""
        made = convert_float(model_from(text, {"w": weight(4, 4, 1)}), "fp16")
        assert reasons(made) == ({"ReduceMean": "ReduceMean over 257 elements"} if kept else {})

    def test_a_mean_over_a_free_size(self) -> None:
        text = """
            g (float[N,4,L] x) => (float[N,4,1] y) {
                a = Conv(x, w)
                y = ReduceMean <axes = [2]>(a)
            }"""
        made = convert_float(model_from(text, {"w": weight(4, 4, 1)}), "fp16")
        assert reasons(made) == {"ReduceMean": "ReduceMean over a size that isn't known"}

    def test_a_mask_that_float16_lacks_stays_finite(self) -> None:
        network = attention(mask=-3.4e38)
        made = convert_float(network, "fp16")
        assert "'mask' holds 3.4e+38" in reasons(made)["Add"]
        out = run(made, feeds_for(network))["y"]
        assert np.isfinite(out).all()
        assert sqnr_db(run(network, feeds_for(network))["y"], out) > 55

    def test_what_may_be_too_large_is_followed_to_its_readers(self) -> None:
        text = """
            g (float[N,4] x, float[N,4] m) => (float[N,4] y) {
                a = MatMul(x, w)
                big = Mul(m, huge)
                moved = Identity(big)
                b = Add(a, moved)
                c = Sigmoid(b)
                y = MatMul(c, w)
            }"""
        network = model_from(text, {"w": weight(4, 4), "huge": np.float32(-1e9)})
        kept = reasons(convert_float(network, "fp16"))
        assert set(kept) == {"Mul", "Identity", "Add", "Sigmoid"}
        assert "'moved' may be too large: 'huge' holds 1e+09" in kept["Add"]

    def test_integers_cast_to_float_may_be_too_large(self) -> None:
        text = """
            g (float[N,4] x, KIND[N,4] i) => (float[N,4] y) {
                a = MatMul(x, w)
                f = Cast <to = 1>(i)
                b = Mul(a, f)
                y = MatMul(b, w)
            }"""
        wide = model_from(text.replace("KIND", "int64"), {"w": weight(4, 4)})
        assert "may be too large: cast from int64" in reasons(convert_float(wide, "fp16"))["Mul"]
        flags = model_from(text.replace("KIND", "bool"), {"w": weight(4, 4)})
        assert reasons(convert_float(flags, "fp16")) == {}

    def test_a_custom_operator(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, w)
                b = onnx_deploy.own(a)
                y = MatMul(b, w)
            }"""
        network = model_from(text, {"w": weight(4, 4)})
        network.proto.graph.value_info.append(
            onnx.helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 4])
        )
        made = convert_float(network, "fp16")
        assert reasons(made) == {"own": "a custom operator, written for float32"}
        assert casts(made) == ["x", "a", "b", "y/float16"]

    def test_an_opset_whose_operators_have_the_type(self) -> None:
        made = convert_float(residual(), "bf16")
        assert made.opset == 22
        assert reasons(made) == {}

    def test_an_operator_that_has_no_such_type(self) -> None:
        # ONNX Runtime has no kernel for GlobalLpPool of opset 22, so the opset stays
        network = model(
            [
                node("Conv", ["x", "w"], ["c"], name="conv"),
                node("GlobalLpPool", ["c"], ["y"], name="pool"),
            ],
            {"x": [1, 3, 5, 7]},
            {"y": [1, 4, 1, 1]},
            {"w": weight(4, 3, 3, 3)},
        )
        made = convert_float(network, "bf16")
        assert made.opset == 17
        assert reasons(made)["conv"] == "Conv of opset 17 takes no bfloat16"

    def test_bodies_and_what_they_read(self) -> None:
        text = """
            g (float[4,4] x, bool c) => (float[4,4] y) {
                a = MatMul(x, w)
                b = MatMul(a, w)
                d = If <then_branch = t () => (float[4,4] p) { p = Relu(a) },
                        else_branch = e () => (float[4,4] q) { q = Neg(a) }>(c)
                y = Add(b, d)
            }"""
        network = model_from(text, {"w": weight(4, 4)})
        made = convert_float(network, "fp16")
        kept = [d.reason for d in made.decisions if d.outcome == "skipped"]
        assert "its value is read inside a loop or branch, in float32" in kept
        feeds = {"x": normal(4, 4), "c": np.asarray(True)}
        assert sqnr_db(run(network, feeds)["y"], run(made, feeds)["y"]) > 50

    def test_a_loop_that_carries_a_float(self) -> None:
        text = """
            g (float[4,4] x, int64 n, bool c) => (float[4,4] y) {
                a = MatMul(x, w)
                b = Loop(n, c, a) <body = t (int64 i, bool go, float[4,4] p)
                    => (bool more, float[4,4] q) { more = Identity(go) q = Neg(p) }>
                y = MatMul(b, w)
            }"""
        network = model_from(text, {"w": weight(4, 4)})
        made = convert_float(network, "fp16")
        assert reasons(made) == {"Loop": "its body computes in float32"}
        feeds = {"x": normal(4, 4), "n": np.asarray(3), "c": np.asarray(True)}
        assert sqnr_db(run(network, feeds)["y"], run(made, feeds)["y"]) > 50

    def test_integers_stay_together_where_float16_scales_are_allowed(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, w)
                b = Relu(a)
                qb = QuantizeLinear(b, s, z)
                d = DequantizeLinear(qb, s, z)
                e = MatMul(d, w)
                f = Sigmoid(e)
                y = MatMul(f, w)
            }"""
        weights = {"w": weight(4, 4), "s": np.float32(0.05), "z": np.uint8(3)}
        made = convert_float(model_from(text, weights, opset=21, ir=10), "fp16")
        assert list(reasons(made).values()) == [
            "it is quantized right behind",
            "its scale is exact",
            "its scale is exact",
            "it reads integers through DequantizeLinear",
        ]

    def test_integers_stay_together(self) -> None:
        network = quantized(residual())
        made = convert_float(network, "fp16")
        known = types(made)
        for dq in (n for n in made.proto.graph.node if n.op_type == "DequantizeLinear"):
            readers = [n for n in made.proto.graph.node if dq.output[0] in n.input]
            assert all(n.op_type != "Cast" and known[n.output[0]] == 1 for n in readers)
        assert_same_numbers(network, made, rtol=5e-3)


class TestRanges:
    def test_they_let_in_what_was_kept_on_suspicion(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, w)
                b = Exp(a)
                c = Div(a, b)
                y = MatMul(c, w)
            }"""
        network = model_from(text, {"w": 0.2 * weight(4, 4)})
        assert set(reasons(convert_float(network, "fp16"))) == {"Exp", "Div"}
        ranges = calibrate(network_with_shapes(network), samples_of(network, 8), "minmax")
        made = convert_float(network_with_shapes(network), "fp16", ranges=ranges)
        assert reasons(made) == {}
        assert casts(made) == ["x", "y/float16"]

    @pytest.mark.parametrize(
        ("a", "b", "reason"),
        [
            ((-9.0, 9.0), (0.0, 30000.0), ""),
            ((-9.0, 9.0), (0.0, 40000.0), "its output 'b' reaches 4e+04, too near float16's 65504"),
            ((-9.0, 9.0), (0.0, 4e-5), "'b' stays within 4e-05, below the normal numbers"),
            ((-5e4, 9.0), (0.0, 30.0), "its input 'a' reaches 5e+04"),
            ((0.0, 0.0), (0.0, 0.0), ""),
        ],
    )
    def test_values_outside_the_type(
        self, a: tuple[float, float], b: tuple[float, float], reason: str
    ) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = Conv(x, w)
                b = Relu(a)
                y = MatMul(b, v)
            }"""
        network = model_from(
            text.replace("[N,4]", "[N,4,4]"), {"w": weight(4, 4, 1), "v": weight(4, 4)}
        )
        ranges = given(network, {"x": (-3, 3), "a": a, "b": b, "y": (-3, 3)})
        found = reasons(convert_float(network, "fp16", ranges=ranges)).get("Relu", "")
        assert reason in found and bool(reason) == bool(found)

    @pytest.mark.parametrize(
        ("low", "high", "kept"), [(0.5, 4.0, False), (-4.0, 4.0, True), (0.0, 4.0, True)]
    )
    def test_divisors_near_zero(self, low: float, high: float, kept: bool) -> None:
        text = """
            g (float[N,4] x, float[N,4] d) => (float[N,4] y) {
                a = MatMul(x, w)
                b = Div(a, d)
                y = MatMul(b, w)
            }"""
        network = model_from(text, {"w": weight(4, 4)})
        ranges = given(network, dict.fromkeys("xaby", (-3, 3)) | {"d": (low, high)})
        assert ("Div" in reasons(convert_float(network, "fp16", ranges=ranges))) == kept

    def test_a_tensor_without_a_range_stays_under_suspicion(self) -> None:
        text = """
            g (float[N,4] x) => (float[N,4] y) {
                a = MatMul(x, w)
                b = Exp(a)
                y = MatMul(b, w)
            }"""
        network = model_from(text, {"w": weight(4, 4)})
        known = {"x": (-3.0, 3.0), "a": (-3.0, 3.0), "y": (-3.0, 3.0)}
        full = given(network, known | {"b": (0.05, 20.0)})
        assert reasons(convert_float(network, "fp16", ranges=full)) == {}
        made = convert_float(network, "fp16", ranges=given(network, known))
        assert "and it has no range" in reasons(made)["Exp"]

    def test_of_another_model(self) -> None:
        with pytest.raises(CalibrationError, match="calibrate this model, after all fusions"):
            convert_float(attention(), "fp16", ranges=ranges_of(residual()))


def network_with_shapes(network: Model) -> Model:
    return Model(onnx.shape_inference.infer_shapes(network.proto), network.name)


class TestBfloat16:
    def test_matrix_products_in_bfloat16(self) -> None:
        made = convert_float(attention(mask=-3e38), "bf16")
        assert types(made)["s"] == TensorProto.BFLOAT16
        assert types(made)["wq/bfloat16"] == TensorProto.BFLOAT16
        assert reasons(made) == {"Softmax": "Softmax sums over an axis"}
        onnx.checker.check_model(made.proto, full_check=True)
        assert_no_cast_for_nothing(made)

    def test_weights_are_rounded_to_bfloat16(self) -> None:
        network = attention()
        made = convert_float(network, "bf16")
        tensor = next(i for i in made.proto.graph.initializer if i.name == "wq/bfloat16")
        got = onnx.numpy_helper.to_array(tensor).astype("f4")
        exact = weights_of(network)["wq"]
        assert 0 < np.abs(got - exact).max() <= np.abs(exact).max() * 2.0**-8


def test_nothing_to_convert() -> None:
    network = model_from("g (int64[N] x) => (int64[N] y) { y = Add(x, x) }")
    assert convert_float(network, "fp16").proto == network.proto
    alone = model_from("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    made = convert_float(alone, "fp16")
    assert made.proto == alone.proto and "cost more" in reasons(made)["Relu"]


def test_another_precision() -> None:
    with pytest.raises(RecipeError, match="'int8'; a float graph becomes fp16 or bf16"):
        convert_float(residual(), "int8")


def test_what_was_done_is_said_first() -> None:
    made = convert_float(attention(), "fp16")
    first = made.decisions[0]
    assert (first.outcome, first.rule, first.subject) == ("applied", "fp16", "m")
    assert first.reason == "7 of 8 nodes in float16, 4 casts, 1 kept in float32"


@pytest.mark.skipif(not MODELS.is_dir(), reason=f"no real models in {MODELS}")
@pytest.mark.parametrize(
    ("name", "shape", "least_db"),
    [
        ("mobilenetv2_1.0_imagenet", {}, 40),
        ("shufflenetv1_0.5g3_cifar10", {}, 50),
        ("ppocrv4_en_rec", {"x": (1, 3, 48, 96)}, 35),
    ],
)
def test_real_models(name: str, shape: dict[str, tuple[int, ...]], least_db: float) -> None:
    from deploy.load import load, read

    network = load(read(MODELS / f"{name}.onnx"), shape)
    made = convert_float(network, "fp16")
    assert len(made.serialized) < 0.56 * len(network.serialized)
    assert_no_cast_for_nothing(made)
    feeds = feeds_for(network, batch=1)
    expected, got = run(network, feeds), run(made, feeds)
    for output, value in expected.items():
        assert sqnr_db(value, got[output]) > least_db
