"""INT8 of other tools on the same samples: NNCF's and ONNX Runtime's own defaults."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from deploy.artifacts.model import Model

Feeds = dict[str, np.ndarray]
Run = Callable[[Feeds], dict[str, np.ndarray]]


def nncf(model: Model, samples: Sequence[Feeds], folder: Path, kind: str = "") -> Run | None:
    """NNCF's default in OpenVINO, in float32 beside; None where it isn't installed.

    kind: "transformer" says so to NNCF, which its default doesn't find out.
    """
    try:
        import nncf as tool
    except ImportError:
        return None
    import openvino as ov

    logging.disable(logging.WARNING)
    graph = ov.convert_model(_saved(model, folder))
    model_type = tool.ModelType.TRANSFORMER if kind == "transformer" else None
    made = tool.quantize(
        graph, tool.Dataset(list(samples)), subset_size=len(samples), model_type=model_type
    )
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    request = ov.Core().compile_model(made, "CPU", config).create_infer_request()
    names = [out.name for out in model.outputs]

    def run(feeds: Feeds) -> dict[str, np.ndarray]:
        request.infer(feeds)
        return {name: np.array(request.get_tensor(name).data) for name in names}

    return run


def onnxruntime(
    model: Model, samples: Sequence[Feeds], folder: Path, *, symmetric: bool = False
) -> Run:
    """Static Q/DQ, weights per channel: uint8 activations, or symmetric int8."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[Feeds] = iter(samples)

        def get_next(self) -> Feeds | None:
            return next(self.left, None)

    logging.disable(logging.WARNING)
    ready, made = folder / "ready.onnx", folder / "int8.onnx"
    quant_pre_process(_saved(model, folder), ready, skip_symbolic_shape=True)
    quantize_static(
        ready,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )
    return simulation(made)


def simulation(model: Path | bytes) -> Run:
    """Any ONNX model in ONNX Runtime, on one thread."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    given = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    names = [out.name for out in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def _saved(model: Model, folder: Path) -> str:
    path = folder / "model.onnx"
    path.write_bytes(model.serialized)
    return str(path)
