"""plugin_shuffle_depthwise: one operator for shuffle and depthwise conv, in float and in INT8."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from helpers import MODELS, assert_skips, model_from, ops, weight
from plugin_graphs import assert_becomes_plugin, expanded, shuffled

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.plugin.ops import attributes_of, plugin_nodes
from deploy.simplify import simplify

PLUGIN = "plugin_shuffle_depthwise"
CONV = "y = Conv<group=12, pads=[1,1,1,1]>(s, w, b)"


def node_of(model: Model) -> onnx.NodeProto:
    (node,) = plugin_nodes(model.proto)
    return node


class TestFloat:
    @pytest.mark.parametrize("kind", ["float", "float16"])
    def test_shuffle_and_conv_become_one(self, kind: str) -> None:
        fused = assert_becomes_plugin(
            shuffled(CONV, kind=kind), PLUGIN, ["ShuffleDepthwise"], reason="shuffle of 3 groups"
        )
        size = 2 if kind == "float16" else 4
        assert [d.bytes_saved for d in fused.decisions] == [2 * size * 12 * 7 * 5]
        assert attributes_of(node_of(fused)) == {
            "groups": 3,
            "strides": [1, 1],
            "pads": [1, 1, 1, 1],
            "activation": "",
        }

    def test_with_its_relu(self) -> None:
        layer = "c = Conv<group=12, pads=[1,1,1,1]>(s, w, b) y = Relu(c)"
        fused = assert_becomes_plugin(shuffled(layer), PLUGIN, ["ShuffleDepthwise"], reason="3 gr")
        assert attributes_of(node_of(fused))["activation"] == "Relu"

    def test_a_relu_of_what_others_read_stays(self) -> None:
        layer = "c = Conv<group=12, pads=[1,1,1,1]>(s, w, b) r = Relu(c) y = Add(c, r)"
        wanted = ["ShuffleDepthwise", "Relu", "Add"]
        fused = assert_becomes_plugin(shuffled(layer), PLUGIN, wanted, reason="3 groups")
        assert attributes_of(node_of(fused))["activation"] == ""

    @pytest.mark.parametrize(
        ("kernel", "attributes", "out"),
        [
            (3, "strides=[2,2], pads=[1,1,1,1]", (4, 3)),
            (5, "pads=[2,2,2,2]", (7, 5)),
            (5, "strides=[2,2], pads=[2,1,0,2]", (3, 2)),
            (3, "kernel_shape=[3,3], dilations=[1,1]", (5, 3)),
        ],
    )
    def test_other_geometry(self, kernel: int, attributes: str, out: tuple[int, int]) -> None:
        layer = f"y = Conv<group=12, {attributes}>(s, w)"
        made = shuffled(layer, out=out, groups=4, weights={"w": weight(12, 1, kernel, kernel)})
        assert_becomes_plugin(made, PLUGIN, ["ShuffleDepthwise"], reason="shuffle of 4 groups")

    def test_two_in_a_row(self) -> None:
        layer = """
        c = Conv<group=12, pads=[1,1,1,1]>(s, w, b)
        d = Reshape(c, inner) e = Transpose<perm=[0,2,1,3,4]>(d) f = Reshape(e, whole)
        y = Conv<group=12, pads=[1,1,1,1]>(f, w, b)
        """
        wanted = ["ShuffleDepthwise"] * 2
        assert_becomes_plugin(shuffled(layer), PLUGIN, wanted, reason="shuffle of 3 groups")


SCALES = {
    "xs": np.float32(0.031),
    "ys": np.float32(0.077),
    "zero": np.int8(0),
    "zeros": np.zeros(12, np.int8),
    "steps": (np.abs(weight(12, seed=4)) + 1).astype(np.float32) / 64,
    "other": np.float32(0.05),
    "five": np.int8(5),
    "unsigned": np.uint8(0),
}
STORED = np.clip(np.rint(weight(12, 1, 3, 3) * 40), -127, 127).astype(np.int8)
# how w, as float or as integers, becomes v
FORMS: dict[str, tuple[str, np.ndarray]] = {
    "stored": ("v = DequantizeLinear<axis=0>(w, steps, zeros)", STORED),
    "W -> Q -> DQ": (
        "i = QuantizeLinear<axis=0>(w, steps, zeros) v = DequantizeLinear<axis=0>(i, steps, zeros)",
        weight(12, 1, 3, 3),
    ),
    "one scale": ("v = DequantizeLinear(w, other, zero)", STORED),
}


def between(
    *,
    form: str = "stored",
    front: str = "q = QuantizeLinear(s, xs, zero) d = DequantizeLinear(q, xs, zero)",
    back: str = "o = QuantizeLinear(c, ys, zero) y = DequantizeLinear(o, ys, zero)",
    conv: str = "c = Conv<group=12, pads=[1,1,1,1]>(d, v, b)",
    before: str = "",
    **weights: np.ndarray,
) -> Model:
    """The shuffle and the conv with Q/DQ between, and around."""
    text, stored = FORMS[form]
    values: dict[str, Any] = {**SCALES, "w": stored, **weights}
    return shuffled(f"{front} {text} {conv} {back}", before=before, weights=values)


INT8 = ["QuantizeLinear", "ShuffleDepthwise", "DequantizeLinear"]


class TestInt8:
    @pytest.mark.parametrize("form", FORMS)
    def test_quantizes_in_front_of_the_shuffle(self, form: str) -> None:
        fused = assert_becomes_plugin(
            between(form=form), PLUGIN, INT8, reason="shuffle of 3 groups itself, in INT8"
        )
        assert [d.bytes_saved for d in fused.decisions] == [2 * 12 * 7 * 5]
        attributes = attributes_of(node_of(fused))
        assert attributes["x_scale"] == pytest.approx(0.031)
        assert attributes["y_scale"] == pytest.approx(0.077)
        stored = {i.name: onnx.numpy_helper.to_array(i) for i in fused.proto.graph.initializer}
        values, bias, scale = (stored[name] for name in node_of(fused).input[1:])
        assert (values.dtype, bias.dtype, scale.dtype) == (np.float32,) * 3
        assert scale.shape == (12,)
        grid = values / scale.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(grid, np.rint(grid), atol=1e-5)

    def test_with_relu_and_without_bias(self) -> None:
        made = between(
            conv="e = Conv<group=12, pads=[1,1,1,1]>(d, v) c = Relu(e)",
        )
        fused = assert_becomes_plugin(made, PLUGIN, INT8, reason="in INT8")
        assert attributes_of(node_of(fused))["activation"] == "Relu"
        assert len(node_of(fused).input) == 4

    def test_reads_the_integers_that_are_there(self) -> None:
        before = "k = QuantizeLinear(x, xs, zero) p = DequantizeLinear(k, xs, zero)"
        assert_becomes_plugin(between(before=before), PLUGIN, INT8, reason="in INT8")

    def test_quantizes_anew_where_the_scale_differs(self) -> None:
        before = "k = QuantizeLinear(x, other, zero) p = DequantizeLinear(k, other, zero)"
        wanted = ["QuantizeLinear", "DequantizeLinear", *INT8]
        assert_becomes_plugin(between(before=before), PLUGIN, wanted, reason="in INT8")

    def test_the_dequantizer_in_front_of_the_shuffle(self) -> None:
        before = "k = QuantizeLinear(x, xs, zero) p = DequantizeLinear(k, xs, zero)"
        made = between(before=before, front="d = Identity(s)")
        # Identity is gone after simplification
        proto = made.proto
        for node in proto.graph.node:
            if node.op_type == "Conv":
                node.input[0] = "s"
        del proto.graph.node[
            next(i for i, n in enumerate(proto.graph.node) if n.op_type == "Identity")
        ]
        assert_becomes_plugin(Model(proto, "m"), PLUGIN, INT8, reason="in INT8")

    def test_a_shuffle_of_integers(self) -> None:
        made = between(
            before="p = QuantizeLinear(x, xs, zero)", front="d = DequantizeLinear(s, xs, zero)"
        )
        assert_becomes_plugin(made, PLUGIN, INT8, reason="in INT8")

    def test_int32_bias(self) -> None:
        bias = "m = DequantizeLinear<axis=0>(j, steps, nothing)"
        made = between(
            back="o = QuantizeLinear(c, ys, zero) y = DequantizeLinear(o, ys, zero)",
            conv=f"{bias} c = Conv<group=12, pads=[1,1,1,1]>(d, v, m)",
            j=np.arange(12, dtype=np.int32) - 5,
            nothing=np.zeros(12, np.int32),
        )
        assert_becomes_plugin(made, PLUGIN, INT8, reason="in INT8")


class TestSkips:
    @pytest.mark.parametrize(
        ("layer", "weights", "out", "reason"),
        [
            (CONV.replace("pads", "strides=[1,2], pads"), {}, (7, 3), r"strides \[1, 2\]"),
            (CONV.replace("pads", "strides=[3,3], pads"), {}, (3, 2), r"strides \[3, 3\]"),
            (
                CONV.replace("[1,1,1,1]", "[2,2,2,2], dilations=[2,2]"),
                {},
                None,
                r"dilations \[2, 2\]",
            ),
            (CONV.replace("[1,1,1,1]", "[2,1,0,1]"), {}, None, r"pads \[2, 1, 0, 1\]; .* 0 to 1"),
            (
                CONV.replace("pads=[1,1,1,1]", 'auto_pad="SAME_UPPER"'),
                {},
                None,
                "auto_pad SAME_UPPER",
            ),
            (
                CONV.replace("1,1,1,1", "0,0,0,0"),
                {"w": weight(12, 1, 1, 1)},
                None,
                "the kernel is 1x1",
            ),
            (
                CONV.replace("1,1,1,1", "1,2,1,2"),
                {"w": weight(12, 1, 3, 5)},
                None,
                "the kernel is 3x5",
            ),
        ],
    )
    def test_geometry_the_kernel_lacks(
        self, layer: str, weights: dict[str, Any], out: tuple[int, int] | None, reason: str
    ) -> None:
        assert_skips(shuffled(layer, weights=weights, out=out), PLUGIN, reason)

    @pytest.mark.parametrize("groups", [1, 12])
    def test_a_shuffle_that_moves_nothing(self, groups: int) -> None:
        assert_skips(shuffled(CONV, groups=groups), PLUGIN, "one group moves nothing")

    def test_more_filters_than_channels(self) -> None:
        text = """
        g (float[N,12,7,5] x) => (float[N,24,7,5] y) {
            a = Reshape(x, inner) t = Transpose<perm=[0,2,1,3,4]>(a) s = Reshape(t, whole)
            y = Conv<group=12, pads=[1,1,1,1]>(s, w)
        }
        """
        own = {"inner": np.array([0, 3, 4, 7, 5]), "whole": np.array([0, 12, 7, 5])}
        made = model_from(text, {**own, "w": weight(24, 1, 3, 3)})
        assert_skips(made, PLUGIN, "24 filters on 12 channels")

    def test_a_shuffled_map_that_others_read(self) -> None:
        layer = "c = Conv<group=12, pads=[1,1,1,1]>(s, w, b) y = Add(c, s)"
        assert_skips(shuffled(layer), PLUGIN, "'s' is also read by 'Add -> y'")

    @pytest.mark.parametrize(("kind", "name"), [("double", "float64"), ("bfloat16", "bfloat16")])
    def test_other_types(self, kind: str, name: str) -> None:
        made = shuffled(CONV, kind=kind, opset=22)
        assert_skips(made, PLUGIN, f"the map is {name}; the kernel takes float32, float16 and int8")

    def test_weights_computed_at_run_time(self) -> None:
        text = """
        g (float[N,12,7,5] x, float[12,1,3,3] w) => (float[N,12,7,5] y) {
            a = Reshape(x, inner) t = Transpose<perm=[0,2,1,3,4]>(a) s = Reshape(t, whole)
            y = Conv<group=12, pads=[1,1,1,1]>(s, w)
        }
        """
        own = {"inner": np.array([0, 3, 4, 7, 5]), "whole": np.array([0, 12, 7, 5])}
        assert_skips(model_from(text, own), PLUGIN, "the weights are computed at run time")

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (
                {"front": "q = QuantizeLinear(s, xs, five) d = DequantizeLinear(q, xs, five)"},
                "the map isn't int8 with one scale and without zero point",
            ),
            (
                {
                    "front": "q = QuantizeLinear(s, xs, unsigned) "
                    "d = DequantizeLinear(q, xs, unsigned)"
                },
                "the map isn't int8 with one scale and without zero point",
            ),
            (
                {"front": "q = QuantizeLinear(s, xs, zero) d = DequantizeLinear(q, other, zero)"},
                "the map isn't int8 with one scale",
            ),
            ({"back": "y = Identity(c)"}, "INT8 goes in, but no int8 without zero point comes out"),
            (
                {"back": "o = QuantizeLinear(c, ys, five) y = DequantizeLinear(o, ys, five)"},
                "no int8 without zero point comes out",
            ),
            (
                {"conv": "c = Conv<group=12, pads=[1,1,1,1]>(d, f, b)", "f": weight(12, 1, 3, 3)},
                "an INT8 map and float weights",
            ),
            ({"zeros": np.arange(12).astype(np.int8)}, "stored with zero points"),
        ],
    )
    def test_int8_the_kernel_lacks(self, change: dict[str, Any], reason: str) -> None:
        assert_skips(between(**change), PLUGIN, reason)

    def test_float_in_front_of_int8_weights(self) -> None:
        text, stored = FORMS["stored"]
        made = shuffled(
            f"{text} y = Conv<group=12, pads=[1,1,1,1]>(s, v, b)", weights={**SCALES, "w": stored}
        )
        assert_skips(made, PLUGIN, "INT8 weights, but the map isn't int8")


@pytest.mark.parametrize(
    ("kind", "front"),
    [
        ("int8", "d = DequantizeLinear(x, xs, zero)"),
        ("float", "n = Neg(x) q = QuantizeLinear(n, xs, zero) d = DequantizeLinear(q, xs, zero)"),
        ("float", "d = Neg(x)"),
    ],
)
def test_no_shuffle_is_none(kind: str, front: str) -> None:
    text = f"""
    g ({kind}[N,12,7,5] x) => (float[N,12,7,5] y) {{
        {front} y = Conv<group=12, pads=[1,1,1,1]>(d, w)
    }}
    """
    own = {"w": weight(12, 1, 3, 3), "xs": SCALES["xs"], "zero": SCALES["zero"]}
    made = model_from(text, {name: own[name] for name in own if name in text})
    fused = fuse(made, [PLUGIN])
    assert (ops(fused), fused.decisions) == (ops(made), ())


def test_every_pair_of_shufflenet_v1() -> None:
    path = MODELS / "shufflenetv1_0.5g3_cifar10.onnx"
    if not path.is_file():
        pytest.skip(f"no {path}: this test needs ../shared/assets")
    model = simplify(load(read(path)))
    fused = fuse(model, [PLUGIN])
    assert len(plugin_nodes(fused.proto)) == 16
    assert not [node for node in fused.proto.graph.node if node.op_type == "Transpose"]
    assert len(expanded(fused).proto.graph.node) >= len(fused.proto.graph.node)
