"""Channel shuffles absorbed into the weights around them: same numbers, no shuffle left."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from helpers import (
    MODELS,
    assert_fuses,
    assert_same_numbers,
    assert_skips,
    feeds_for,
    model_from,
    ops,
    run,
    weight,
)

from deploy.artifacts.model import Model
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.simplify import simplify

SHUFFLE = """<int64[5] s = {-1, 2, 6, 5, 3}, int64[4] t = {-1, 12, 5, 3}>"""


def shuffled(name: str, out: str) -> str:
    """A shuffle of 12 channels in two groups."""
    return f"""{out}_a = Reshape ({name}, s) {out}_b = Transpose <perm = [0, 2, 1, 3, 4]> ({out}_a)
        {out} = Reshape ({out}_b, t)"""


def between(middle: str, *, sizes: str = "", weights: dict[str, np.ndarray] | None = None) -> Model:
    """conv -> `middle` (from c to m) -> conv."""
    text = f"""g (float[N,4,5,3] x) => (float[N,7,5,3] y)
      <int64[5] s = {{-1, 2, 6, 5, 3}}, int64[4] t = {{-1, 12, 5, 3}}{sizes}>
      {{ c = Conv (x, w1, b1) {middle} y = Conv (m, w2, b2) }}"""
    given = {
        "w1": weight(12, 4, 1, 1),
        "b1": weight(12, seed=1),
        "w2": weight(7, 12, 1, 1, seed=2),
        "b2": weight(7, seed=3),
    }
    return model_from(text, given | (weights or {}))


class TestAbsorbed:
    def test_between_two_dense_convs(self) -> None:
        fused = assert_fuses(
            between(shuffled("c", "m")), "channel_layout", ["Conv", "Conv"], reason="1 shuffle"
        )
        assert fused.decisions[0].bytes_saved == 2 * 12 * 5 * 3 * 4

    @pytest.mark.parametrize(
        "work",
        [
            "m = Relu (q)",
            "m = PRelu (q, slope)",
            "m = Mul (q, slope)",
            "m = Clip (q, low, high)",
            "m = BatchNormalization (q, gamma, beta, mean, var)",
            "m = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (q)",
            "m = Conv <group = 12, pads = [1, 1, 1, 1]> (q, dw, db)",
            "r = Conv <group = 12, pads = [1, 1, 1, 1]> (q, dw) m = HardSwish (r)",
        ],
    )
    def test_through_what_works_per_channel(self, work: str) -> None:
        weights = {
            "slope": weight(12, 1, 1, seed=4),
            "low": np.float32(-0.7),
            "high": np.float32(0.9),
            "gamma": weight(12, seed=5),
            "beta": weight(12, seed=6),
            "mean": weight(12, seed=7),
            "var": np.abs(weight(12, seed=8)) + 0.5,
            "dw": weight(12, 1, 3, 3, seed=9),
            "db": weight(12, seed=10),
        }
        model = between(f"{shuffled('c', 'q')} {work}", weights=weights)
        expected = [op for op in ops(model) if op not in ("Reshape", "Transpose")]
        assert_fuses(model, "channel_layout", expected)

    def test_a_gather_of_channels(self) -> None:
        model = between(
            "m = Gather <axis = 1> (c, pick)",
            sizes=", int64[12] pick = {3, 1, 0, 2, 11, 10, 4, 5, 9, 8, 7, 6}",
        )
        assert_fuses(model, "channel_layout", ["Conv", "Conv"])

    def test_each_value_is_split_once_where_half_of_it_is_shuffled_away(self) -> None:
        """Two ShuffleNetV2 units: half of the channels go on, half through a branch."""
        text = """g (float[N,4,5,3] x) => (float[a,b,c,d] y)
          <int64[5] s = {-1, 2, 6, 5, 3}, int64[4] t = {-1, 12, 5, 3}, int64[2] half = {6, 6}>
          { c = Conv (x, w1) r = Relu (c)
            l1, h1 = Split <axis = 1> (r, half) p1 = Conv (h1, wa) k1 = Concat <axis = 1> (l1, p1)
            u_a = Reshape (k1, s) u_b = Transpose <perm = [0, 2, 1, 3, 4]> (u_a)
            u = Reshape (u_b, t)
            l2, h2 = Split <axis = 1> (u, half) p2 = Conv (h2, wb) k2 = Concat <axis = 1> (l2, p2)
            v_a = Reshape (k2, s) v_b = Transpose <perm = [0, 2, 1, 3, 4]> (v_a)
            v = Reshape (v_b, t)
            y = Conv (v, w2) }"""
        model = model_from(
            text,
            {
                "w1": weight(12, 4, 1, 1),
                "wa": weight(6, 6, 1, 1, seed=1),
                "wb": weight(6, 6, 1, 1, seed=2),
                "w2": weight(7, 12, 1, 1, seed=3),
            },
        )
        fused = fuse(model, ["channel_layout"])
        assert_same_numbers(model, fused)
        # r is read by the branch of unit 1, of unit 2 and by the end: three pieces, one Split;
        # p1 by unit 2 and the end: one Split
        assert Counter(ops(fused)) == {"Conv": 4, "Relu": 1, "Split": 2, "Concat": 2}
        assert fused.decisions[0].reason == "2 shuffles absorbed into permuted weights"

    def test_through_an_excitation(self) -> None:
        middle = f"""{shuffled("c", "q")} g1 = GlobalAveragePool (q) f1 = Conv (g1, wr)
            f2 = Conv (f1, we) f = HardSigmoid (f2) m = Mul (q, f)"""
        weights = {"wr": weight(3, 12, 1, 1, seed=5), "we": weight(12, 3, 1, 1, seed=6)}
        model = between(middle, weights=weights)
        expected = [op for op in ops(model) if op not in ("Reshape", "Transpose")]
        assert_fuses(model, "channel_layout", expected)

    def test_into_a_gemm_behind_the_pool(self) -> None:
        text = f"""g (float[N,12,5,3] x) => (float[N,7] y) {SHUFFLE}
          {{ {shuffled("x", "m")} p = GlobalAveragePool (m) f = Flatten (p) y = Gemm (f, w) }}"""
        model = model_from(text, {"w": weight(12, 7)})
        assert_fuses(model, "channel_layout", ["GlobalAveragePool", "Flatten", "Gemm"])

    def test_a_weight_that_two_convs_share_is_left_alone(self) -> None:
        text = f"""g (float[N,12,5,3] x) => (float[N,7,5,3] y, float[N,7,5,3] z) {SHUFFLE}
          {{ {shuffled("x", "m")} y = Conv (m, w) z = Conv (x, w) }}"""
        model = model_from(text, {"w": weight(7, 12, 1, 1)})
        fused = assert_fuses(model, "channel_layout", ["Conv", "Conv"])
        names = {node.output[0]: node.input[1] for node in fused.proto.graph.node}
        assert names["z"] == "w" and names["y"] != "w"


class TestExactReaders:
    def test_an_output_behind_the_shuffle_gets_its_order_from_the_conv(self) -> None:
        text = f"""g (float[N,4,5,3] x) => (float[N,12,5,3] y) {SHUFFLE}
          {{ c = Conv (x, w1) {shuffled("c", "y")} }}"""
        model = model_from(text, {"w1": weight(12, 4, 1, 1)})
        fused = assert_fuses(model, "channel_layout", ["Conv", "Identity"])
        assert fused.outputs[0].name == "y"

    def test_a_changed_value_has_a_new_name(self) -> None:
        """Ranges and per-tensor parity know a tensor by name: another order is another tensor."""
        model = between(f"{shuffled('c', 'q')} m = Relu (q)")
        fused = fuse(model, ["channel_layout"])
        made = {out for node in fused.proto.graph.node for out in node.output}
        assert "y" in made
        assert made & {"q", "m"} == set()

    def test_a_grouped_conv_keeps_the_shuffle(self) -> None:
        text = f"""g (float[N,4,5,3] x) => (float[a,b,c,d] y) {SHUFFLE}
          {{ c = Conv <group = 2> (x, w1) {shuffled("c", "m")} y = Conv <group = 2> (m, w2) }}"""
        weights = {"w1": weight(12, 2, 1, 1), "w2": weight(8, 6, 1, 1, seed=1)}
        model = model_from(text, weights)
        assert_skips(model, "channel_layout", "no dense layer next to it")

    def test_many_stretches_for_an_exact_reader_are_no_gain(self) -> None:
        text = f"""g (float[N,12,5,3] x, float[N,12,5,3] z) => (float[a,b,c,d] y, float[e,f] k)
          {SHUFFLE}
          {{ {shuffled("x", "m")} y = Add (m, z) p = GlobalAveragePool (m) q = Flatten (p)
             k = Gemm (q, w) }}"""
        model = model_from(text, {"w": weight(12, 7)})
        reason = r"for its readers would still move \d+ bytes, no less than the 1440"
        assert_skips(model, "channel_layout", reason)

    def test_unknown_channels_are_named(self) -> None:
        text = f"""g (float[N,12,5,3] x, float[N,C,5,3] z) => (float[a,b,c,d] y) {SHUFFLE}
          {{ {shuffled("x", "m")} r = Relu (m) y = Conv (r, w) k = Relu (z) }}"""
        model = model_from(text, {"w": weight(7, 12, 1, 1)})
        # z isn't in the region: its unknown channels don't matter
        assert "Transpose" not in ops(fuse(model, ["channel_layout"]))

    def test_a_slice_without_channels_stays(self) -> None:
        """What an exporter leaves of a split into all and nothing."""
        model = model_from(
            """
            g (float[N,8,4,7] x, float[N,5,4,7] k) => (float[N,13,4,7] y, int8[N,0,4,7] z)
              <int64[1] at = {6}, int64[1] end = {-2}, int64[1] axis = {1}, int64[1] last = {-1},
               int64[1] first = {-9}, int64[1] back = {-1}, float scale = {0.5}, int8 zero = {0}>
            {
                e = Slice(x, at, end, axis)  s = Relu(e)  r = Slice(x, last, first, axis, back)
                y = Concat<axis=1>(s, k, r)  z = QuantizeLinear(s, scale, zero)
            }
            """
        )
        fused = fuse(model, ["channel_layout"])
        feeds = feeds_for(model)
        for name, value in run(model, feeds).items():
            np.testing.assert_array_equal(run(fused, feeds)[name], value)

    def test_no_shuffle_no_word(self) -> None:
        text = """g (float[N,4,5,3] x) => (float[a,b,c,d] y)
          { c = Conv (x, w1) k = Concat <axis = 1> (c, x) y = Conv (k, w2) }"""
        model = model_from(text, {"w1": weight(3, 4, 1, 1), "w2": weight(7, 7, 1, 1)})
        assert fuse(model, ["channel_layout"]).decisions == ()


class TestRealModels:
    def test_fastestdet_has_no_shuffle_left(self) -> None:
        path = MODELS / "fastestdet_shufflenetv2_coco.onnx"
        if not path.is_file():
            pytest.skip("shared/assets is not beside the repository")
        model = simplify(load(read(path)))
        fused = fuse(model, ["channel_layout"])
        assert Counter(ops(model))["Transpose"] == 13
        assert Counter(ops(fused))["Transpose"] == Counter(ops(fused))["Reshape"] == 0
        assert_same_numbers(model, fused, rtol=1e-4)

    def test_shufflenetv1_keeps_what_grouped_convs_force(self) -> None:
        path = MODELS / "shufflenetv1_0.5g3_cifar10.onnx"
        if not path.is_file():
            pytest.skip("shared/assets is not beside the repository")
        model = simplify(load(read(path)))
        fused = fuse(model, ["channel_layout"])
        assert ops(fused) == ops(model)
        assert len([d for d in fused.decisions if d.outcome == "skipped"]) == 16
