"""The float32 reference: inner tensors, exact mode, threads, and errors by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_models import conv, model, node, normal, quantized, residual, samples_of

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import BuildError
from deploy.metrics import sqnr_db
from deploy.target import EngineSettings


class TestObserver:
    def test_returns_inner_tensors_besides_the_outputs(self) -> None:
        network = residual()
        (sample,) = samples_of(network, 1)
        with reference.build_observer(network, ["x", "r1", "s", "y"]) as engine:
            out = engine.run(sample.feeds)
        assert sorted(out) == ["r1", "s", "y"]  # an input is nothing to compute
        assert np.array_equal(out["r1"], np.maximum(out["r1"], 0))
        assert out["s"].shape == (1, 4, 6, 8)

    def test_the_model_is_left_alone(self) -> None:
        network = residual()
        before = network.proto.SerializeToString(deterministic=True)
        with reference.build_observer(network, ["r1"]):
            pass
        assert network.proto.SerializeToString(deterministic=True) == before

    def test_exact_runs_the_nodes_as_written(self) -> None:
        network = quantized(residual())
        (sample,) = samples_of(network, 1)
        with (
            reference.build_observer(network, ["s"], exact=True) as exact,
            reference.build_observer(network, ["s"]) as fused,
        ):
            a, b = exact.run(sample.feeds)["s"], fused.run(sample.feeds)["s"]
        # another executor flips single roundings: near, which also shows that "exact" matters
        assert sqnr_db(a, b) > 25


def test_runs_from_several_threads_at_once() -> None:
    network = residual()
    samples = samples_of(network, 24)
    with reference.build(network, EngineSettings(threads=1)) as engine:
        alone = [engine.run(s.feeds)["y"] for s in samples]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda s: engine.run(s.feeds)["y"], samples))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_saves_the_model_itself(tmp_path: Path) -> None:
    network = conv()
    with reference.build(network) as engine:
        engine.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == network.serialized


def test_cores_are_those_this_process_may_use() -> None:
    assert reference.cores() >= 1


class TestRefused:
    def test_an_operator_it_lacks(self) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(conv().proto)
        proto.graph.node[0].op_type = "Convolve"
        with pytest.raises(BuildError, match=r"ONNX Runtime\) can't run it: .*Convolve.*export it"):
            reference.build(Model(proto, "tiny"))

    def test_values_it_stumbles_over(self) -> None:
        network = model(
            [node("Gather", ["table", "ids"], ["y"])],
            {"ids": (onnx.TensorProto.INT64, ["N"])},
            {"y": ["N"]},
            {"table": normal(5)},
        )
        with (
            reference.build(network) as engine,
            pytest.raises(BuildError, match=r"tiny: ONNX Runtime stopped: .*; check the sample's"),
        ):
            engine.run({"ids": np.array([99])})
