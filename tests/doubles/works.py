"""The steps of a build on a double, and the little model that the double's own tests build."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from helpers import model_from, weight

from deploy.artifacts.model import Model
from deploy.backends import reference
from doubles import Installed

CONV = """
g (float[1,3,6,8] x) => (float[1,4,6,8] y) {
    [conv] c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    [relu] y = Relu(c)
}
"""
QDQ = """
g (float[1,3,6,8] x) => (float[1,4,6,8] y) {
    xq = QuantizeLinear(x, xs, z)
    xd = DequantizeLinear(xq, xs, z)
    [conv] y = Conv <pads = [1, 1, 1, 1]> (xd, w, b)
}
"""
WEIGHTS = {"w": weight(4, 3, 3, 3), "b": weight(4, seed=1)}
SCALES = {"x": np.float32(0.03), "c": np.float32(0.09), "y": np.float32(0.09)}
X = weight(1, 3, 6, 8, seed=2)


def exact(model: Model) -> np.ndarray:
    with reference.build_exact(model) as engine:
        return engine.run({"x": X})["y"]


class Work:
    """The steps of a build on a double, with its log."""

    def __init__(self, here: Installed, flags: int | None = None) -> None:
        self.trt, self.gpu, self.lines = here.trt, here.gpu, list[tuple[str, str]]()
        trt, lines = here.trt, self.lines

        class Log(trt.ILogger):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                lines.append((severity.name, msg))

        self.log = Log()
        self.builder = trt.Builder(self.log)
        batch = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        usual = 0 if batch is None else 1 << int(batch)
        self.network = self.builder.create_network(usual if flags is None else flags)
        self.parser = trt.OnnxParser(self.network, self.log)
        self.config = self.builder.create_builder_config()
        self.config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED

    def parse(self, text: str = CONV, weights: Any = None, opset: int = 17) -> bool:
        model = model_from(text, WEIGHTS if weights is None else weights, opset=opset)
        return bool(self.parser.parse(model.serialized))

    def build(self, *flags: str) -> Any:
        for flag in flags:
            self.config.set_flag(getattr(self.trt.BuilderFlag, flag))
        return self.builder.build_serialized_network(self.network, self.config)

    def said(self, severity: str) -> str:
        return "\n".join(text for kind, text in self.lines if kind == severity)

    def ranges(self, scales: Mapping[str, Any] = SCALES) -> None:
        tensors = [self.network.get_input(0)]
        layers = [self.network.get_layer(i) for i in range(self.network.num_layers)]
        tensors += [layer.get_output(0) for layer in layers]
        for tensor in tensors:
            if tensor.name in scales:
                tensor.set_dynamic_range(-127 * scales[tensor.name], 127 * scales[tensor.name])

    def layers(self, content: Any) -> list[dict[str, Any]]:
        return list(self.inspected(content)["Layers"])

    def inspected(self, content: Any) -> dict[str, Any]:
        engine = self.trt.Runtime(self.log).deserialize_cuda_engine(content)
        inspector = engine.create_engine_inspector()
        return dict(
            json.loads(inspector.get_engine_information(self.trt.LayerInformationFormat.JSON))
        )

    def run(self, content: Any, x: np.ndarray = X) -> np.ndarray:
        """One inference, memory taken and given back by hand."""
        engine = self.trt.Runtime(self.log).deserialize_cuda_engine(content)
        context = engine.create_execution_context()
        given = self.gpu.alloc(x.nbytes)
        self.gpu.write(given, x)
        assert context.set_input_shape("x", x.shape)
        shape = tuple(context.get_tensor_shape("y"))
        taken = self.gpu.alloc(int(np.prod(shape)) * 4)
        assert context.set_tensor_address("x", given) and context.set_tensor_address("y", taken)
        stream = self.gpu.stream()
        assert context.execute_async_v3(stream)
        self.gpu.synchronize(stream)
        self.gpu.end_stream(stream)
        y = self.gpu.read(taken, shape, np.float32)
        self.gpu.free(given)
        self.gpu.free(taken)
        return y


def cache(version: int, scales: Mapping[str, Any] = SCALES) -> bytes:
    lines = [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in scales.items()]
    return "\n".join([f"TRT-{version}-EntropyCalibration2", *lines, ""]).encode()


def calibrator(trt: Any, stored: bytes | None, batches: list[Any] | None = None) -> Any:
    class Calibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.asked = 0
            self.written = b""

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> Any:
            self.asked += 1
            return batches.pop(0) if batches else None

        def read_calibration_cache(self) -> bytes | None:
            return stored

        def write_calibration_cache(self, cache: Any) -> None:
            self.written = bytes(cache)

    return Calibrator()
