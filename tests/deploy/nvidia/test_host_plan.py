"""host_plan: what TensorRT is told on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import model, node, residual

from deploy.backends import rtx
from deploy.errors import BuildError
from deploy.nvidia import host_plan as here
from deploy.nvidia.host_plan import host_plan, rest_in
from deploy.nvidia.settings import Nvidia
from deploy.target import EngineSettings

ORIN = {"versions": ["10.3.0"], "compute_capability": "8.7", "cuda": "12.6", "typing": "weak"}
NVIDIA = Nvidia.model_validate(ORIN)


def settings(**more: Any) -> EngineSettings:
    return EngineSettings(**{"batch": 1, "nvidia": NVIDIA, **more})


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_8_bits_of_a_float_graph(precision: str) -> None:
    with pytest.raises(BuildError, match=f"{precision}, and the graph has no Q/DQ"):
        host_plan(residual(), settings(), NVIDIA, precision)


def test_the_engines_of_a_process_share_what_kernels_took() -> None:
    """Candidates of one race are the same layers again; a folder of the user's goes before."""
    plans = [host_plan(residual(), settings(), NVIDIA, p) for p in ("fp32", "fp16")]
    (file,) = {plan.timing_cache for plan in plans}
    assert Path(file).parent == here._scratch()
    assert Path(file).name == "timing-tensorrt-10.3.0-sm87.cache"


def test_a_folder_of_the_users(tmp_path: Path) -> None:
    chosen = settings(cache_dir=str(tmp_path / "kept"))
    file = host_plan(residual(), chosen, NVIDIA, "fp32").timing_cache
    assert Path(file).parent == tmp_path / "kept"


@pytest.mark.parametrize(
    ("precision", "hints", "rest"),
    [
        ("int8", {}, "fp32"),
        ("int8", {"int8": "f16"}, "fp16"),
        ("fp8", {}, "fp32"),
        ("bf16", {"bf16": "bf16"}, "bf16"),
        ("fp16", {}, "fp16"),
    ],
)
def test_what_is_beside_8_bits(precision: str, hints: dict[str, str], rest: str) -> None:
    assert rest_in(settings(inference_precision=hints), precision) == rest


FREE = model([node("Relu", ["x"], ["y"])], {"x": ["N", 3, "H", "W"]}, {"y": ["N", 3, "H", "W"]})


@pytest.mark.parametrize(
    ("batch", "batches"), [(4, (4, 4, 4)), ("dynamic", (1, 8, 32))], ids=["fixed", "dynamic"]
)
def test_free_sizes_lie_around_the_samples(batch: Any, batches: tuple[int, ...]) -> None:
    known = NVIDIA.model_copy(update={"sizes": {"x": (1, 3, 16, 200)}})
    plan = host_plan(FREE, settings(batch=batch), known, "fp32")
    low, usual, high = batches
    assert plan.profiles == {"x": ([low, 3, 4, 50], [usual, 3, 16, 200], [high, 3, 64, 800])}


def test_free_sizes_that_no_sample_tells() -> None:
    with pytest.raises(BuildError, match="free in more than its batch"):
        host_plan(FREE, settings(), NVIDIA, "fp32")


def test_the_rtx_engine_has_them_too() -> None:
    known = NVIDIA.model_copy(update={"sizes": {"x": (1, 3, 16, 480)}})
    _, usual, high = rtx._plan(FREE, known, "fp16").profiles["x"]
    assert (usual[2:], high[2:]) == ([16, 480], [64, 1920])
