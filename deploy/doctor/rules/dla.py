"""What a DLA leaves to the GPU."""

from __future__ import annotations

from deploy.doctor.case import Case, Finding
from deploy.doctor.dla_limits import MOST_BATCH, MOST_LOADABLES
from deploy.doctor.dla_segments import Segments, dla_segments
from deploy.noise import free_dimensions

# Orin's, by compute capability
_SECOND = 87


def dla(case: Case) -> list[Finding]:
    """That nothing runs there, or that it is torn to too many pieces."""
    if case.nvidia is None or not case.nvidia.use_dla or free_dimensions(case.loaded.inputs):
        return []
    batch = case.target.engine.batch
    if batch == "dynamic" or batch > MOST_BATCH:
        text = f"batch {batch}: a DLA takes a fixed one of at most {MOST_BATCH}"
        return [Finding("dla", "stop", text)]
    found = segments(case)
    if found is None:
        return []
    if not found.on_dla:
        text = "no layer can run on the DLA; build for the same device without it"
        return [Finding("dla", "stop", text, tuple(found.refused))]
    if found.loadables > MOST_LOADABLES:
        text = (
            f"{found.loadables} parts on the DLA, and one core holds {MOST_LOADABLES}; what comes "
            "last runs on the GPU"
        )
        return [Finding("dla", "warning", text)]
    if found.loadables > 1:
        text = (
            f"{found.loadables} parts on the DLA with {found.transitions} changes between it and "
            "the GPU, each a copy: compare with the same device without its DLA"
        )
        return [Finding("dla", "warning", text)]
    return []


def segments(case: Case) -> Segments | None:
    """How the network is shared out; None for targets that use no DLA."""
    nvidia = case.nvidia
    if nvidia is None or not nvidia.use_dla:
        return None
    generation = 2 if nvidia.sm >= _SECOND else 1
    return dla_segments(case.graph, generation, 1 if case.precision == "int8" else 2)
