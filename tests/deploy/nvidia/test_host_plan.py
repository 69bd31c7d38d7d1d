"""host_plan: what TensorRT is told on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_models import residual

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
