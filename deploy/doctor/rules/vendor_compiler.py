"""What the vendor's own compiler says, where it is installed and needs no device."""

from __future__ import annotations

from deploy import registry
from deploy.doctor.case import Case, Finding
from deploy.errors import BuildError, MissingBackendError

# those whose compiler runs here: OpenVINO, on the CPU at hand, and TensorRT-RTX, without a GPU
_HERE = ("ov", "rtx")


def vendor_compiler(case: Case) -> list[Finding]:
    """That it takes the fused float graph, or its reason."""
    backend = case.target.backend
    if backend not in _HERE or case.obstacle:
        return []
    settings = case.target.engine
    if backend == "ov":
        settings = settings.model_copy(update={"device": "CPU"})
    model = case.fused
    try:
        registry.module("backend", backend).build(model, settings, "fp32").close()
    except MissingBackendError as error:
        return [Finding("vendor_compiler", "warning", f"not asked: {error}")]
    except BuildError as error:
        return [Finding("vendor_compiler", "stop", str(error))]
    asked = "reads" if backend == "ov" else "compiles"
    return [Finding("vendor_compiler", "note", f"{case.library()} {asked} the float graph here")]
