"""Stands in for Triton's OpenVINO backend, which isn't in any wheel: same repository, pip openvino.

It does what openvino_backend db19304 (openvino.cc) does on loading and on every group of requests:
compares the declared ports with the model's, reshapes to max_batch_size, fills up smaller groups
where ENABLE_BATCH_PADDING says so and fails them where it doesn't, and runs one request at a time
where max_batch_size is 0. What it can't show: the C++ backend's own OpenVINO release and kernels.

STAND_IN_PRECISION: the float type to compute in, so that numbers can be compared; the real backend
takes the CPU's default.
"""

import json
import os
import sys
from pathlib import Path

# the stub runs Python isolated, without PYTHONPATH
sys.path[:0] = [p for p in os.environ.get("PYTHONPATH", "").split(":") if p]

import numpy as np  # noqa: E402
import openvino as ov  # noqa: E402
import triton_python_backend_utils as pb  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        self.config = json.loads(args["model_config"])
        rows = self.config.get("parameters", {})
        self.parameters = {key: row["string_value"] for key, row in rows.items()}
        self.max_batch = self.config["max_batch_size"]
        self.padded = self.parameters.get("ENABLE_BATCH_PADDING", "").lower() == "yes"
        for group in self.config["instance_group"]:
            if group["kind"] != "KIND_CPU":
                raise pb.TritonModelException("OpenVINO backend supports only Kind CPU and AUTO")
        folder = Path(args["model_repository"]) / args["model_version"]
        file = self.config.get("default_model_filename") or "model.xml"
        core = ov.Core()
        if "CPU_EXTENSION_PATH" in self.parameters:
            core.add_extension(self.parameters["CPU_EXTENSION_PATH"])
        model = core.read_model(folder / file)
        self.inputs = self.checked(self.config["input"], model.inputs, exact=False)
        if self.max_batch:
            for parameter in model.get_parameters():
                parameter.set_layout(ov.Layout("N..."))
            ov.set_batch(model, self.max_batch)
        self.outputs = self.checked(self.config["output"], model.outputs, exact=True)
        names = ("PERFORMANCE_HINT", "NUM_STREAMS", "INFERENCE_NUM_THREADS")
        chosen = {key: self.parameters[key] for key in names if key in self.parameters}
        if os.environ.get("STAND_IN_PRECISION"):
            chosen["INFERENCE_PRECISION_HINT"] = os.environ["STAND_IN_PRECISION"]
        device = self.parameters.get("TARGET_DEVICE", "CPU")
        self.request = core.compile_model(model, device, chosen).create_infer_request()

    def checked(self, rows, ports, exact):
        by_name = {port.get_any_name(): port.get_partial_shape() for port in ports}
        if not exact and len(rows) != len(by_name):
            raise pb.TritonModelException(f"{len(rows)} inputs, model provides {len(by_name)}")
        for row in rows:
            if row["name"] not in by_name:
                raise pb.TritonModelException(f"{row['name']!r} is not in {sorted(by_name)}")
            shape = [d.get_length() if d.is_static else -1 for d in by_name[row["name"]]]
            dims = [int(d) for d in row["dims"]]
            if self.max_batch:
                dims = [self.max_batch, *dims]
            fits = len(shape) == len(dims) and all(
                (self.max_batch and not exact and (i == 0 or dims[i] == -1))
                or size in (-1, dims[i])
                for i, size in enumerate(shape)
            )
            if not fits:
                raise pb.TritonModelException(f"{row['name']}: model {shape}, declared {dims}")
        return [row["name"] for row in rows]

    def execute(self, requests):
        if not self.max_batch:
            return [self.run([request])[0] for request in requests]
        return self.run(requests)

    def run(self, requests):
        arrays = {
            name: [pb.get_input_tensor_by_name(r, name).as_numpy() for r in requests]
            for name in self.inputs
        }
        feeds = {name: np.concatenate(rows) for name, rows in arrays.items()}
        sizes = [len(row) for row in arrays[self.inputs[0]]]
        missing = self.max_batch - sum(sizes) if self.max_batch else 0
        if missing and not self.padded:
            error = pb.TritonError(f"expected batch size {self.max_batch}, got {sum(sizes)}")
            return [pb.InferenceResponse(error=error) for _ in requests]
        if missing:
            feeds = {
                name: np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
                for name, x in feeds.items()
            }
        self.request.infer(feeds)
        # a copy: the next group is computed in the same memory
        found = {name: np.array(self.request.get_tensor(name).data) for name in self.outputs}
        ends = np.cumsum(sizes)
        return [
            pb.InferenceResponse(
                [pb.Tensor(name, x[end - size : end].copy()) for name, x in found.items()]
            )
            for size, end in zip(sizes, ends, strict=True)
        ]

    def finalize(self):
        del self.request
