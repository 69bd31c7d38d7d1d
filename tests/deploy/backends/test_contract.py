"""What every backend promises; finds the backends by their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from doubles import installed
from onnx import TensorProto
from tiny_models import model, node, normal, residual, samples_of

from deploy import registry
from deploy.artifacts.engine import Engine
from deploy.artifacts.model import Model
from deploy.errors import BuildError
from deploy.metrics import sqnr_db
from deploy.nvidia.settings import Nvidia
from deploy.target import EngineSettings

# of TensorRT's double; the others don't read it
NVIDIA = Nvidia(versions=("10.3.0",), compute_capability="8.7", cuda="12.6", typing="weak")
DYNAMIC = EngineSettings(batch="dynamic", inference_precision={"fp32": "f32"}, nvidia=NVIDIA)
# TensorRT-RTX builds here and runs on a GPU only: test_rtx.py
RUN_HERE = [name for name in registry.names("backend") if name != "rtx"]


@pytest.fixture(params=RUN_HERE)
def backend(request: pytest.FixtureRequest) -> Iterator[ModuleType]:
    module = registry.module("backend", str(request.param))
    if request.param != "trt":
        yield module
        return
    # tests that are about a refusal don't close their engine
    with installed("10.3", sm=87, memory="cuda-python", leaks=False):
        yield module


def identity(batch: int | str = "N") -> Model:
    return model(
        [node("Identity", ["image"], ["copy"])], {"image": [batch, 3, 5]}, {"copy": [batch, 3, 5]}
    )


def several() -> Model:
    """Two inputs, one of them int64; four outputs: one an alias, one of another type."""
    nodes = [
        node("Gather", ["table", "ids"], ["looked_up"]),
        node("Mul", ["x", "looked_up"], ["z_product"]),
        node("Identity", ["z_product"], ["a_alias"]),
        node("Neg", ["z_product"], ["m_negative"]),
        node("Add", ["ids", "ids"], ["b_integers"]),
    ]
    inputs = {"x": ["N", 4], "ids": (TensorProto.INT64, ["N", 4])}
    outputs = {
        "z_product": ["N", 4],
        "a_alias": ["N", 4],
        "m_negative": ["N", 4],
        "b_integers": (TensorProto.INT64, ["N", 4]),
    }
    return model(nodes, inputs, outputs, {"table": normal(5)})


SEVERAL = {
    "x": normal(2, 4, seed=6),
    "ids": np.array([[0, 4, 2, 1], [3, 3, 0, 2]], np.int64),
}


def build(backend: ModuleType, network: Model, settings: EngineSettings = DYNAMIC) -> Engine:
    engine: Engine = backend.build(network, settings, "fp32")
    return engine


def test_the_known_ones_are_found() -> None:
    assert {"ov", "reference", "rtx", "trt"} <= set(registry.names("backend"))


def test_says_what_it_is(backend: ModuleType) -> None:
    assert backend.__doc__ and backend.build.__doc__ and backend.load.__doc__


class TestRun:
    @pytest.mark.parametrize("batch", [1, 5])
    def test_identity_with_a_dynamic_batch(self, backend: ModuleType, batch: int) -> None:
        x = normal(batch, 3, 5)
        with build(backend, identity()) as engine:
            out = engine.run({"image": x})
        assert list(out) == ["copy"]
        assert out["copy"].dtype == np.float32
        assert np.array_equal(out["copy"], x)

    def test_batches_of_changing_size(self, backend: ModuleType) -> None:
        with build(backend, identity()) as engine:
            for batch in (2, 5, 1, 5):
                x = normal(batch, 3, 5, seed=batch)
                assert np.array_equal(engine.run({"image": x})["copy"], x)

    def test_a_network(self, backend: ModuleType) -> None:
        network = residual()
        (sample,) = samples_of(network, 1)
        with (
            build(backend, network) as engine,
            registry.module("backend", "reference").build(network) as reference,
        ):
            got, expected = engine.run(sample.feeds)["y"], reference.run(sample.feeds)["y"]
        assert sqnr_db(expected, got) > 100

    def test_a_batch_the_settings_fix(self, backend: ModuleType) -> None:
        settings = DYNAMIC.model_copy(update={"batch": 3})
        with build(backend, identity(), settings) as engine:
            assert engine.inputs[0].shape[0] in (3, None)
            x = normal(3, 3, 5)
            assert np.array_equal(engine.run({"image": x})["copy"], x)

    def test_a_batch_the_model_fixes(self, backend: ModuleType) -> None:
        with build(backend, identity(4), DYNAMIC.model_copy(update={"batch": 1})) as engine:
            assert engine.inputs[0].shape == (4, 3, 5)
            x = normal(4, 3, 5)
            assert np.array_equal(engine.run({"image": x})["copy"], x)
            with pytest.raises(BuildError, match=r"fed shape \[1, 3, 5\]"):
                engine.run({"image": x[:1]})

    def test_results_are_the_callers_to_keep(self, backend: ModuleType) -> None:
        with build(backend, identity()) as engine:
            x = normal(1, 3, 5)
            first = engine.run({"image": x})["copy"]
            engine.run({"image": 2 * x})
            assert np.array_equal(first, x)

    def test_feeds_may_lie_in_memory_in_any_order(self, backend: ModuleType) -> None:
        x = normal(5, 3, 2).T  # shape [2, 3, 5], not contiguous
        with build(backend, identity()) as engine:
            assert np.array_equal(engine.run({"image": x})["copy"], x)

    def test_feeds_are_left_alone(self, backend: ModuleType) -> None:
        x = normal(1, 3, 5)
        x.flags.writeable = False
        with build(backend, identity()) as engine:
            assert np.array_equal(engine.run({"image": x})["copy"], x)


class TestSeveral:
    def test_specs_keep_the_models_names_order_and_types(self, backend: ModuleType) -> None:
        with build(backend, several()) as engine:
            assert [(s.name, s.dtype.name) for s in engine.inputs] == [
                ("x", "float32"),
                ("ids", "int64"),
            ]
            assert [s.name for s in engine.outputs] == [
                "z_product",
                "a_alias",
                "m_negative",
                "b_integers",
            ]
            assert all(s.shape == (None, 4) for s in (*engine.inputs, *engine.outputs))

    def test_every_output_has_its_own_values(self, backend: ModuleType) -> None:
        with build(backend, several()) as engine:
            out = engine.run(SEVERAL)
        product = SEVERAL["x"] * normal(5)[SEVERAL["ids"]]
        assert list(out) == ["z_product", "a_alias", "m_negative", "b_integers"]
        assert np.array_equal(out["z_product"], product)
        assert np.array_equal(out["a_alias"], product)
        assert np.array_equal(out["m_negative"], -product)
        assert np.array_equal(out["b_integers"], 2 * SEVERAL["ids"])
        assert out["b_integers"].dtype == np.int64

    def test_two_inputs_in_any_order(self, backend: ModuleType) -> None:
        with build(backend, several()) as engine:
            swapped = dict(reversed(SEVERAL.items()))
            assert np.array_equal(
                engine.run(swapped)["z_product"], engine.run(SEVERAL)["z_product"]
            )

    def test_an_alias_of_an_input(self, backend: ModuleType) -> None:
        network = model(
            [node("Identity", ["x"], ["same"]), node("Neg", ["x"], ["y"])],
            {"x": ["N", 4]},
            {"same": ["N", 4], "y": ["N", 4]},
        )
        x = normal(2, 4)
        with build(backend, network) as engine:
            out = engine.run({"x": x})
        assert np.array_equal(out["same"], x)
        assert np.array_equal(out["y"], -x)

    def test_an_input_without_dimensions(self, backend: ModuleType) -> None:
        network = model([node("Mul", ["x", "k"], ["y"])], {"x": ["N", 3], "k": []}, {"y": ["N", 3]})
        feeds = {"x": normal(1, 3), "k": np.asarray(3, "f4")}
        with build(backend, network) as engine:
            assert np.array_equal(engine.run(feeds)["y"], 3 * feeds["x"])
            engine.prepare(feeds)()
            # milliseconds, or nothing: never what a vendor's call returns
            assert isinstance(engine.timed(feeds)(), float | None)


class TestRefused:
    def refuses(self, engine: Engine, feeds: dict[str, np.ndarray], reason: str) -> None:
        for call in (engine.run, engine.prepare, engine.timed, lambda f: engine.run_many(f, 2)):
            with pytest.raises(BuildError, match=reason):
                call(feeds)

    @pytest.fixture
    def engine(self, backend: ModuleType) -> Engine:
        return build(backend, several())

    def test_missing_input(self, engine: Engine) -> None:
        reason = r"input 'ids' is missing; the engine needs ids int64\[[?N],4\]"
        self.refuses(engine, {"x": SEVERAL["x"]}, reason)

    def test_unknown_input(self, engine: Engine) -> None:
        reason = r"no input 'idz' \(did you mean 'ids'\?\); the engine has: x, ids"
        self.refuses(engine, {**SEVERAL, "idz": SEVERAL["ids"]}, reason)

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int32"])
    def test_wrong_dtype(self, engine: Engine, dtype: str) -> None:
        reason = rf"input 'x' was fed {dtype}; the engine needs x float32\[[?N],4\]"
        self.refuses(engine, {**SEVERAL, "x": SEVERAL["x"].astype(dtype)}, reason)

    @pytest.mark.parametrize("shape", [(2, 5), (8,), (1, 2, 4)])
    def test_wrong_shape(self, engine: Engine, shape: tuple[int, ...]) -> None:
        reason = r"input 'x' was fed shape \[[\d, ]+\]; the engine needs x float32\[[?N],4\]"
        self.refuses(engine, {**SEVERAL, "x": np.zeros(shape, "f4")}, reason)

    def test_a_closed_engine(self, backend: ModuleType) -> None:
        with build(backend, identity()) as engine:
            pass
        self.refuses(engine, {"image": normal(1, 3, 5)}, "the engine is closed; load it again")
        engine.close()  # once more does no harm


class TestCalls:
    def test_run_many(self, backend: ModuleType) -> None:
        with build(backend, several()) as engine:
            engine.run_many(SEVERAL, 9)
            assert np.array_equal(engine.run(SEVERAL)["b_integers"], 2 * SEVERAL["ids"])

    def test_prepare_runs_without_more_ado(self, backend: ModuleType) -> None:
        with build(backend, several()) as engine:
            call = engine.prepare(SEVERAL)
            other = engine.prepare({name: x[:1] for name, x in SEVERAL.items()})
            for one in (call, other, call):
                one()
            assert np.array_equal(engine.run(SEVERAL)["b_integers"], 2 * SEVERAL["ids"])

    def test_properties_and_layers_are_plain(self, backend: ModuleType) -> None:
        with build(backend, residual()) as engine:
            assert all(
                isinstance(k, str) and isinstance(v, str) for k, v in engine.properties().items()
            )
            assert all(layer.kind for layer in engine.layers())


class TestOnDisk:
    def test_a_loaded_engine_is_the_same(self, backend: ModuleType, tmp_path: Path) -> None:
        with build(backend, several()) as engine:
            engine.save(tmp_path)
            expected = engine.run(SEVERAL)
            specs = [str(s) for s in (*engine.inputs, *engine.outputs)]
        with backend.load(tmp_path, DYNAMIC, "fp32") as loaded:
            got = loaded.run(SEVERAL)
            assert [str(s).replace("N", "?") for s in (*loaded.inputs, *loaded.outputs)] == [
                s.replace("N", "?") for s in specs
            ]
        assert list(got) == list(expected)
        for name in got:
            assert np.array_equal(got[name], expected[name])

    def test_a_network_computes_the_same_bits(self, backend: ModuleType, tmp_path: Path) -> None:
        network = residual()
        (sample,) = samples_of(network, 1)
        with build(backend, network) as engine:
            engine.save(tmp_path)
            expected = engine.run(sample.feeds)["y"]
        with backend.load(tmp_path, DYNAMIC, "fp32") as loaded:
            assert np.array_equal(loaded.run(sample.feeds)["y"], expected)

    def test_saving_twice_gives_the_same_files(self, backend: ModuleType, tmp_path: Path) -> None:
        found = []
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            with build(backend, residual()) as engine:
                engine.save(tmp_path / name)
            found.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
        assert found[0] == found[1]

    def test_no_folder(self, backend: ModuleType, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="no engine there; build it again"):
            backend.load(tmp_path / "none", DYNAMIC, "fp32")

    def test_an_empty_folder(self, backend: ModuleType, tmp_path: Path) -> None:
        with pytest.raises(BuildError, match="no engine there; build it again"):
            backend.load(tmp_path, DYNAMIC, "fp32")

    def test_damaged_files(self, backend: ModuleType, tmp_path: Path) -> None:
        with build(backend, residual()) as engine:
            engine.save(tmp_path)
        for path in tmp_path.iterdir():
            path.write_bytes(b"damaged")
        with pytest.raises(BuildError, match=r"damaged engine: .*; build it again") as caught:
            backend.load(tmp_path, DYNAMIC, "fp32")
        assert "\n" not in str(caught.value)
