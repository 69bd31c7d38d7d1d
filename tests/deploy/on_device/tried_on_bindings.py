"""`python tried_on_bindings.py SITE`: what on_device asks of TensorRT's classes, asked of the real
ones, which lie unpacked in SITE. Prints JSON. Of one process per version; Python 3.8."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]


def ready(site: Path) -> Any:
    """The bindings; and `deploy.on_device` importable without the rest of deploy, or numpy."""
    # under a name of its own: the wheels' package is called tensorrt_bindings too
    spec = importlib.util.spec_from_file_location("loader", _ROOT / "tests/stubbed_tensorrt.py")
    assert spec is not None and spec.loader is not None
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    package = ModuleType("deploy")
    package.__path__ = [str(_ROOT / "deploy")]
    sys.modules["deploy"] = package
    if importlib.util.find_spec("numpy") is None:
        sys.modules["numpy"] = ModuleType("numpy")
    return loader.load(site)


def of(name: str) -> Any:
    return importlib.import_module("deploy.on_device." + name)


def tried(trt: Any) -> dict[str, Any]:
    for path in sorted((_ROOT / "deploy" / "on_device").glob("trt_*.py")):
        of(path.stem)
    library, plan = of("trt_library"), of("trt_plan").BuildPlan
    log = library.LogLines(trt)
    log.log(trt.ILogger.WARNING, "seen")
    found: dict[str, Any] = {
        "version": library.version_text(trt),
        "weak": library.chooses_types(trt),
        "log": log.lines,
        "without_gpu": {},
        "calibrator": None,
        "flags": of("trt_network")._network_flags(trt, plan(b"")),
    }
    library.load_plugin_libraries(trt, log, [])
    for name in ("Builder", "Runtime"):
        try:
            library.made(log, name, getattr(trt, name), log)
        except of("device_error").NoDeviceError as error:
            found["without_gpu"][name] = str(error)
    layer = trt.ILayer.__new__(trt.ILayer)
    layer.__class__ = trt.IConstantLayer
    found["as_constant"] = isinstance(layer, trt.IConstantLayer)
    if hasattr(trt, "IInt8EntropyCalibrator2"):
        calibrator = of("trt_implicit").cache_calibrator(trt, "TRT-8502-EntropyCalibration2\n")
        before = calibrator.asked
        batch = calibrator.get_batch(["x"])
        found["calibrator"] = {
            "cache": calibrator.read_calibration_cache().decode(),
            "algorithm": calibrator.get_algorithm().name,
            "batch": [calibrator.get_batch_size(), batch],
            "asked": [before, calibrator.asked],
        }
    return found


if __name__ == "__main__":
    print(json.dumps(tried(ready(Path(sys.argv[1])))))
