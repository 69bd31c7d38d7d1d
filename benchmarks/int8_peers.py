"""What INT8 is compared with: the other ways to run the same network, ready to be timed."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Call = Callable[[], object]
ONE_THREAD = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1}


def peer_openers(
    network: onnx.ModelProto, samples: Sequence[np.ndarray]
) -> dict[str, Callable[[], Call]]:
    """Per peer, what compiles it into a call on the first sample; quantization is done once.

    NNCF is left out where it isn't installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="int8_peers."))
    path = folder / "network.onnx"
    onnx.save(network, path)
    found = {
        "OV bf16": lambda: _openvino(path, samples[0]),
        "OV f32": lambda: _openvino(path, samples[0], INFERENCE_PRECISION_HINT="f32"),
        "ORT f32": lambda: _onnxruntime(path, samples[0]),
    }
    integers = _onnxruntime_int8(path, samples)
    found["ORT int8"] = lambda: _onnxruntime(integers, samples[0])
    for name, file in _nncf(path, samples).items():
        found[name] = lambda file=file: _openvino(file, samples[0])  # type: ignore[misc]
    return found


def _openvino(path: Path, x: np.ndarray, **config: Any) -> Call:
    """A call with the input set once, which is OpenVINO's fastest; its default precision is bf16
    on a CPU that has it."""
    import openvino as ov

    core = ov.Core()
    compiled = core.compile_model(core.read_model(path), "CPU", {**ONE_THREAD, **config})
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(np.array(x, order="C")))
    return lambda: request.infer(share_outputs=True)


def _onnxruntime(path: Path, x: np.ndarray) -> Call:
    """A call with input and output bound once."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("input", x)
    binding.bind_output("output")
    return lambda: session.run_with_iobinding(binding)


def _onnxruntime_int8(path: Path, samples: Sequence[np.ndarray]) -> Path:
    """Static Q/DQ: uint8 activations, int8 weights per channel, which is fastest on x86."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            x = next(self.left, None)
            return None if x is None else {"input": x}

    logging.disable(logging.WARNING)
    ready, made = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    quant_pre_process(path, ready, skip_symbolic_shape=True)
    quantize_static(
        ready,
        made,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return made


def _nncf(path: Path, samples: Sequence[np.ndarray]) -> dict[str, Path]:
    """NNCF's default on the graph as OpenVINO reads it, and on the one its converter folds: the
    second has the weights of depthwise convolutions as plain constants, and is much faster."""
    try:
        import nncf
    except ImportError:
        return {}
    import openvino as ov

    graphs = {"NNCF read": ov.Core().read_model(path), "NNCF convert": ov.convert_model(path)}
    found = {}
    for name, graph in graphs.items():
        made = nncf.quantize(graph, nncf.Dataset(list(samples)), subset_size=len(samples))
        found[name] = path.with_name(f"{name.replace(' ', '_')}.xml")
        ov.save_model(made, found[name], compress_to_fp16=False)
    return found
