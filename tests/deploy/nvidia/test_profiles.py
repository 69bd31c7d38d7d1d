"""profiles: the shapes an engine with free dimensions takes."""

import numpy as np

from deploy.artifacts.model import TensorSpec
from deploy.nvidia.profiles import profiles

F32 = np.dtype(np.float32)


def test_fixed_inputs_need_none() -> None:
    assert profiles([TensorSpec("x", F32, (1, 3, 8, 9))], {"x": (5, 3, 8, 9)}) == {}


def test_a_free_batch_is_1_to_32_and_a_free_size_lies_around_the_samples() -> None:
    found = profiles([TensorSpec("x", F32, (None, 3, None, 9))], {"x": (5, 3, 40, 9)})
    assert found == {"x": {"min": [1, 3, 10, 9], "opt": [8, 3, 40, 9], "max": [32, 3, 160, 9]}}


def test_a_small_size_has_at_least_one() -> None:
    found = profiles([TensorSpec("x", F32, (2, None))], {"x": (2, 3)})
    assert found["x"] == {"min": [2, 1], "opt": [2, 3], "max": [2, 12]}
