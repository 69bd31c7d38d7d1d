"""What is observed inside the runtime is what NumPy sees of whole activations."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tiny_models import ROOT, conv, model, node, normal, residual, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import CalibrationError, ModelError
from deploy.load import load, read
from deploy.observation.graph import observed_graph
from deploy.observation.observe import ChannelRange, Observer, channel_ranges
from deploy.observation.probes import Probe, grid
from deploy.observation.seen import Seen

MINILM = ROOT.parent / "shared" / "assets" / "models" / "minilm_l6_trim_fp16stored.onnx"


def maps(opset: int = 17, channels: int = 16, batch: int | str = "N") -> Model:
    """Maps of every kind: blocked or not, bounded below or not, rank 3 and 2 behind them."""
    nodes = [
        node("Conv", ["x", "w1"], ["c"], pads=[1, 1, 1, 1]),
        node("Clip", ["c", "low", "high"], ["k"]),
        node("Conv", ["k", "w2"], ["d"], group=channels, pads=[1, 1, 1, 1]),
        node("HardSwish", ["d"], ["h"]),
        node("Relu", ["d"], ["r"]),
        node("Reshape", ["h", "shape"], ["tokens"]),
        node("MatMul", ["tokens", "w3"], ["y"]),
    ]
    weights = {
        "w1": normal(channels, 3, 3, 3, seed=1),
        "w2": normal(channels, 1, 3, 3, seed=2),
        "w3": normal(31 * 37, 9, seed=3),
        "low": np.array(-0.5, "f4"),
        "high": np.array(2, "f4"),
        "shape": np.array([0, channels, -1]),
    }
    outputs = {"y": [batch, channels, 9], "r": [batch, channels, 31, 37]}
    return model(nodes, {"x": [batch, 3, 31, 37]}, outputs, weights, opset=opset)


def whole(network: Model, samples: list[Sample], names: list[str]) -> list[dict[str, np.ndarray]]:
    """Whole activations, sample by sample."""
    with reference.build_observer(network, names) as engine:
        return [engine.run(s.feeds) | s.feeds for s in samples]


def observed(network: Model, samples: list[Sample], probes: list[Probe]) -> list[dict[str, Seen]]:
    with Observer(network, probes) as observer:
        return [observer.observe([s], 1)[0] for s in samples]


NAMES = ["x", "c", "k", "d", "h", "r", "tokens", "y"]


class TestExtremes:
    @pytest.mark.parametrize("opset", [17, 18])
    @pytest.mark.parametrize("channels", [16, 6])
    def test_are_exact_and_values_are_of_the_tensor(self, channels: int, opset: int) -> None:
        network = maps(opset, channels)
        samples = samples_of(network, 3)
        found = observed(network, samples, [Probe(n, None, 1000) for n in NAMES])
        for seen, truth in zip(found, whole(network, samples, NAMES), strict=True):
            for name in NAMES:
                x = truth[name]
                np.testing.assert_allclose(seen[name].low, x.min(), rtol=2e-6, atol=1e-6)
                np.testing.assert_allclose(seen[name].high, x.max(), rtol=2e-6, atol=1e-6)
                values = seen[name].values
                assert values.size <= 1000
                assert values.size * seen[name].step == pytest.approx(x.size, rel=0.4)
                distance = np.abs(values[:, None] - x.reshape(1, -1)).min(axis=1)
                assert distance.max() < 1e-5

    def test_of_several_samples_in_one_run(self) -> None:
        samples = samples_of(maps(), 3)
        probes = [Probe(n, None, 1000) for n in NAMES]
        with Observer(maps(batch=4), probes) as observer:
            together = observer.observe(samples, 4)
        apart = observed(maps(), samples, probes)
        assert len(together) == 3
        for one, other in zip(together, apart, strict=True):
            for name in NAMES:
                for x, y in ((one[name].low, other[name].low), (one[name].high, other[name].high)):
                    np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-6)

    def test_are_those_of_the_very_run(self) -> None:
        """low and high against the whole values of the same session, to the last bit."""
        network = maps()
        (sample,) = samples_of(network, 1)
        graph, outlets = observed_graph(network, [Probe("c", 1), Probe("h", 1)], 1)
        for name in ("c", "h"):
            graph.proto.graph.output.append(
                next(v for v in network.proto.graph.value_info if v.name == name)
            )
        with reference.build_in_order(graph) as engine:
            out = engine.run(sample.feeds)
        for name, outlet in zip(("c", "h"), outlets, strict=True):
            assert outlet.high is not None and outlet.low is not None and outlet.low_negated
            joined = out[outlet.high.name].reshape(-1)
            high, low = (joined[p.start : p.stop] for p in (outlet.high, outlet.low))
            assert np.array_equal(high, out[name].max(axis=(0, 2, 3)))
            assert np.array_equal(-low, out[name].min(axis=(0, 2, 3)))

    def test_a_bound_is_the_low_end_only_where_it_is_reached(self) -> None:
        network = model(
            [node("Conv", ["x", "w", "b"], ["c"]), node("Relu", ["c"], ["r"])],
            {"x": ["N", 3, 40, 50]},
            {"r": ["N", 16, 40, 50]},
            {"w": normal(16, 3, 1, 1, seed=1), "b": np.full(16, 40, "f4")},
        )
        samples = samples_of(network, 4)
        samples[2].feeds["x"][:] *= 30  # here some values do fall below zero
        (probe,) = probes = [Probe("r", None, 500)]
        found = [s["r"].low.item() for s in observed(network, samples, probes)]
        truth = [t["r"].min() for t in whole(network, samples, ["r"])]
        assert truth[2] == 0 < min(truth[0], truth[1], truth[3])
        assert found == pytest.approx(truth, rel=1e-6)
        with Observer(network, probes) as observer:
            lows = [outlet.low for outlet in observer._engine(1)[1].outlets]
            assert lows == [None]
            observer.observe([samples[2]], 1)
            assert observer._engine(1)[1].outlets[0].low is None  # reached: nothing to compute
            observer.observe([samples[0]], 1)
            assert observer._engine(1)[1].outlets[0].low is not None
        assert probe.tensor == "r"


AXES = {"x": 1, "c": 1, "k": 1, "h": 1, "tokens": 1, "y": 2, "r": 3}


class TestChannelRanges:
    @pytest.mark.parametrize("channels", [16, 6])
    def test_per_channel_over_all_samples_in_any_order(self, channels: int) -> None:
        network = maps(channels=channels)
        samples = samples_of(network, 5)
        found = channel_ranges(network, samples, AXES)
        assert list(found) == list(AXES)
        runs = whole(network, samples, list(AXES))
        for name, axis in AXES.items():
            x = np.concatenate([run[name] for run in runs])
            others = tuple(i for i in range(x.ndim) if i != axis)
            assert isinstance(found[name], ChannelRange)
            assert found[name].low.dtype == found[name].high.dtype == np.float32
            np.testing.assert_allclose(found[name].low, x.min(axis=others), rtol=2e-6, atol=1e-6)
            np.testing.assert_allclose(found[name].high, x.max(axis=others), rtol=2e-6, atol=1e-6)
        backwards = channel_ranges(network, samples[::-1], AXES)
        for name, expected in found.items():
            assert backwards[name].low.tobytes() == expected.low.tobytes()
            assert backwards[name].high.tobytes() == expected.high.tobytes()

    def test_a_fixed_batch_and_a_channel_axis_of_its_length(self) -> None:
        free, fixed = residual(), residual(4)
        samples = samples_of(free, 7)
        axes = {"r1": 1, "f": 1, "y": 1, "x": 2}
        a, b = (channel_ranges(m, samples, axes) for m in (free, fixed))
        for name in axes:
            np.testing.assert_allclose(a[name].high, b[name].high, rtol=1e-5)
            np.testing.assert_allclose(a[name].low, b[name].low, rtol=1e-5, atol=1e-6)

    def test_float16_is_observed_as_float32(self) -> None:
        network = model(
            [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16)],
            {"x": ["N", 2]},
            {"h": (TensorProto.FLOAT16, ["N", 2])},
        )
        found = channel_ranges(network, [Sample("s", {"x": np.array([[0.1, -3]], "f4")})], {"h": 1})
        assert found["h"].low.tolist() == [np.float16(0.1), -3.0]

    def test_advance_hears_of_every_sample(self) -> None:
        heard: list[int] = []
        channel_ranges(conv(), samples_of(conv(), 7), {"y": 1}, advance=heard.append)
        assert sum(heard) == 7

    @pytest.mark.parametrize(
        "tensors, reason",
        [
            ({"nope": 1}, "tiny: 'nope' is no float tensor of the model"),
            ({"y": 4}, "axis 4 of 'y', which has rank 4; allowed: 0 to 3"),
        ],
    )
    def test_what_is_not_there_is_refused(self, tensors: dict[str, int], reason: str) -> None:
        with pytest.raises(ModelError, match=re.escape(reason)):
            channel_ranges(conv(), samples_of(conv(), 1), tensors)

    def test_no_samples(self) -> None:
        with pytest.raises(CalibrationError, match="no samples to observe"):
            channel_ranges(conv(), [], {"y": 1})

    def test_channels_that_change_from_sample_to_sample(self) -> None:
        network = model([node("Relu", ["x"], ["y"])], {"x": ["N", "S"]}, {"y": ["N", "S"]})
        samples = [Sample(str(n), {"x": np.ones((1, n), "f4")}) for n in (3, 4)]
        with pytest.raises(CalibrationError, match=r"channels on one sample and \d on another"):
            channel_ranges(network, samples, {"y": 1})


class TestNotFinite:
    # 221 values: the place of a NaN decides whether a vectorized maximum shows it
    @pytest.mark.parametrize("channels", [16, 7])
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("place", [0, 100, 220])
    def test_is_named_wherever_it_stands(self, channels: int, bad: float, place: int) -> None:
        network = model(
            [node("Conv", ["x", "w"], ["c"]), node("Identity", ["c"], ["y"])],
            {"x": ["N", 1, 13, 17]},
            {"y": ["N", channels, 13, 17]},
            {"w": np.ones((channels, 1, 1, 1), "f4")},
        )
        samples = samples_of(network, 4)
        samples[2].feeds["x"].reshape(-1)[place] = bad
        with pytest.raises(CalibrationError, match="'c' holds NaN or Inf on sample sample 2"):
            channel_ranges(network, samples, {"c": 1})

    def test_huge_values_whose_mean_overflows_are_finite(self) -> None:
        samples = samples_of(conv(), 1)
        samples[0].feeds["x"][:] = 3e38
        found = channel_ranges(conv(), samples, {"x": 1})
        assert found["x"].high.tolist() == [np.float32(3e38)] * 3


@pytest.mark.parametrize(
    "sizes, most, strides",
    [((16, 112, 112), 4096, (7, 7)), ((960, 7, 7), 4096, (4, 4)), ((4, 6, 8), 4096, (1, 1))],
)
def test_grid_leaves_about_as_many_as_asked(
    sizes: tuple[int, int, int], most: int, strides: tuple[int, int]
) -> None:
    assert grid(*sizes, most) == strides
    channels, height, width = sizes
    assert channels * -(-height // strides[0]) * -(-width // strides[1]) <= most


def test_names_of_the_model_are_never_taken() -> None:
    network = conv()
    proto = onnx.ModelProto()
    proto.CopyFrom(network.proto)
    proto.graph.node[0].output[0] = proto.graph.output[0].name = "observed/0/high"
    renamed = Model(proto, "tiny")
    found = channel_ranges(renamed, samples_of(conv(), 2), {"observed/0/high": 1})
    expected = channel_ranges(network, samples_of(conv(), 2), {"y": 1})
    assert np.array_equal(found["observed/0/high"].high, expected["y"].high)


def test_the_model_is_left_alone() -> None:
    network = residual()
    before = network.proto.SerializeToString(deterministic=True)
    channel_ranges(network, samples_of(network, 2), {"r1": 1})
    assert network.proto.SerializeToString(deterministic=True) == before


@pytest.mark.skipif(not MINILM.is_file(), reason=f"{MINILM} is missing")
def test_token_ids_of_different_lengths_through_a_real_transformer() -> None:
    free = dict.fromkeys(("input_ids", "attention_mask"), (None, None))
    network = load(read(MINILM), free)
    random = np.random.default_rng(3)
    samples = []
    for length in (5, 31):
        ids = random.integers(5, 5000, (1, length))
        samples.append(Sample(str(length), {"input_ids": ids, "attention_mask": np.ones_like(ids)}))
    out = network.outputs[0].name
    (found,) = channel_ranges(network, samples, {out: 2}).values()
    x = np.concatenate([run[out].reshape(-1, 384) for run in whole(network, samples, [out])])
    np.testing.assert_allclose(found.high, x.max(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.low, x.min(axis=0), rtol=1e-4, atol=1e-5)
