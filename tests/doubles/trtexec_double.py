"""A trtexec over ONNX Runtime, run as a program: `python trtexec_double.py SETTINGS FLAGS...`.

It takes the flags of the version that SETTINGS (JSON) names and refuses others, as the tool does;
which version reads which is in trtexec_flags.json, from NVIDIA/TensorRT's sampleOptions.cpp. Its
words are those of the real logs where deploy.on_device.trtexec_log looks for something.

SETTINGS: version; capability; noise, a relative error on every output; unscaled, tensors to
complain about; float_layers, which don't become INT8; accepts, the cache header it takes; lenient,
to build all the same where it takes another; node_ms, the time of every node (0.8 ms for all
without it).
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

_FLAGS = json.loads((Path(__file__).parent / "trtexec_flags.json").read_text())


def main(settings: dict, argv: list[str]) -> int:
    number = version_number(settings["version"])
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # trtexec {' '.join(argv)}")
    if "--help" in argv:
        return 0
    flags = [part.lstrip("-").partition("=") for part in argv]
    for name, _, _ in flags:
        if settings["version"] not in _FLAGS.get(name, []):
            print(f"[E] Unknown option: --{name}")
            return finished(number, False)
    given = {name: value for name, _, value in flags}
    print(f"[I] Selected Device: {settings.get('name', 'Double')}")
    print(f"[I] Compute Capability: {settings['capability']}")
    print(f"[I] TensorRT version: {settings['version']}")
    if "onnx" in given:
        return finished(number, build(settings, given))
    run(settings, given)
    return finished(number, True)


def finished(number: int, passed: bool) -> int:
    print(f"&&&& {'PASSED' if passed else 'FAILED'} TensorRT.trtexec [TensorRT v{number}]")
    return 0 if passed else 1


def build(settings: dict, given: dict) -> bool:
    import onnx

    model = onnx.load(given["onnx"])
    foreign = [node.op_type for node in model.graph.node if node.domain == "onnx_deploy"]
    if foreign and not {"plugins", "staticPlugins"} & set(given):
        print(f"[E] [TRT] No importer registered for op: {foreign[0]}. Plugin not found")
        return False
    if "calib" in given:
        header = Path(given["calib"]).read_text().split("\n", 1)[0]
        print("[I] [TRT] Reading Calibration Cache for calibrator: EntropyCalibration2")
        if header != settings.get("accepts", header):
            print("[W] [TRT] Calibration table does not match calibrator algorithm type.")
            print("[I] [TRT] Starting Calibration.")
            if not settings.get("lenient"):
                print("[E] Error[2]: Tensor `x` is bound to nullptr")
                return False
    for name in settings.get("unscaled", []):
        print(
            f"[W] [TRT] Missing scale and zero-point for tensor {name}, expect fall back to "
            "non-int8 implementation for any layer consuming or producing given tensor"
        )
    Path(given["saveEngine"]).write_bytes(b"engine of trtexec\n" + model.SerializeToString())
    layers = [layer(settings, given, node) for node in model.graph.node]
    Path(given["exportLayerInfo"]).write_text(json.dumps({"Layers": layers, "Bindings": []}))
    return True


def layer(settings: dict, given: dict, node: Any) -> dict:
    listed = dict(part.rpartition(":")[::2] for part in given.get("layerPrecisions", "").split(","))
    kind = listed.get(node.name, listed.get("*", "fp32"))
    word = {"int8": "Int8", "fp16": "FP16", "fp32": "FP32"}[kind]
    if node.name in settings.get("float_layers", []):
        word = "FP16"
    tensor = {"Format/Datatype": f"Row major linear {word} format"}
    return {
        "Name": node.name,
        "LayerType": "CaskConvolution" if node.op_type == "Conv" else node.op_type,
        "Inputs": [{"Name": node.input[0], **tensor}],
        "Outputs": [{"Name": node.output[0], **tensor}],
        "TacticName": f"kernel_of_{node.op_type}",
    }


def run(settings: dict, given: dict) -> None:
    if "loadInputs" in given:
        # a process for every call: what it doesn't need it doesn't load
        import numpy as np
        import onnxruntime as ort

        content = graph_of(given)
        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        files = dict(part.rpartition(":")[::2] for part in given["loadInputs"].split(","))
        shapes = dict(part.rpartition(":")[::2] for part in given.get("shapes", "").split(","))
        feeds = {}
        for spec in session.get_inputs():
            sizes = shapes.get(spec.name, "x".join(map(str, spec.shape))).split("x")
            raw = np.fromfile(files[spec.name], np.float32)
            feeds[spec.name] = raw.reshape([int(size) for size in sizes])
        names = [spec.name for spec in session.get_outputs()]
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        write_outputs(Path(given["exportOutput"]), outputs, settings.get("noise", 0.0))
    print(f"[I] Timing trace has {given['iterations']} queries over 0.5 s")
    print("[I] === Performance summary ===")
    print("[I] Throughput: 1250.5 qps")
    median = settings["node_ms"] * count_nodes(given) if "node_ms" in settings else 0.8
    print(
        f"[I] GPU Compute Time: min = 0.7 ms, max = 1.9 ms, mean = 0.85 ms, median = {median:g} "
        "ms, percentile(90%) = 1.1 ms"
    )


def graph_of(given: dict) -> bytes:
    """The engine's graph; ops of this project's plugins are spelled out, which needs `deploy`."""
    content = Path(given["loadEngine"]).read_bytes().partition(b"\n")[2]
    if b"onnx_deploy" not in content:
        return content
    import onnx

    from deploy.plugin.ops import expand_plugins

    model = expand_plugins(onnx.load_model_from_string(content), "engine")
    return bytes(model.SerializeToString())


def count_nodes(given: dict) -> int:
    """Nodes of the engine's graph."""
    import onnx

    content = Path(given["loadEngine"]).read_bytes().partition(b"\n")[2]
    return len(onnx.load_model_from_string(content).graph.node)


def write_outputs(path: Path, outputs: dict, noise: float) -> None:
    """As exportJSONOutput writes them: six digits, sizes with x between."""
    rows = []
    for name, x in outputs.items():
        signs = enumerate(x.reshape(-1).tolist())
        values = ", ".join(f"{v * (1 + noise * (-1) ** i):.6g}" for i, v in signs)
        sizes = "x".join(str(size) for size in x.shape)
        rows.append(
            f'{{ "name" : "{name}"\n  , "dimensions" : "{sizes}"\n  , "values" : [ {values} ]\n  }}'
        )
    path.write_text("[\n" + "\n, ".join(rows) + "\n]\n")


def version_number(version: str) -> int:
    major, minor, patch = (int(part) for part in re.findall(r"\d+", version)[:3])
    return major * (1000 if major < 10 else 10000) + minor * 100 + patch


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
