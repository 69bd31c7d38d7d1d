"""Whether ONNX Runtime runs what a build runs in it here: the float32 model that every engine is
judged against, and the graph for an NVIDIA device that isn't on this machine."""

from __future__ import annotations

from deploy.backends.reference import build, build_exact
from deploy.doctor.case import Case, Finding
from deploy.errors import BuildError
from deploy.nvidia.device import no_gpu


def reference(case: Case) -> list[Finding]:
    """Why nothing could be judged."""
    try:
        build_exact(case.loaded).close()
        if case.nvidia is not None and no_gpu() and not case.obstacle:
            build(case.fused).close()
    except BuildError as error:
        return [Finding("reference", "stop", str(error))]
    return []
