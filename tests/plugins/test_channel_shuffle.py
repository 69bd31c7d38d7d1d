"""ChannelShuffle: the CUDA kernel, run on the CPU, gives what the NumPy truth gives, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_kernels import ChannelShuffleParams, call, channel_shuffle_params, compile_kernels

from deploy import registry

op = registry.module("plugin", "channel_shuffle")


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("channel_shuffle")
    return compile_kernels("channel_shuffle", folder).launch_channel_shuffle


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((1, 6, 7, 11), 3),
        ((2, 10, 8, 8), 5),
        ((3, 7, 1, 1), 7),
        ((1, 5, 3, 1), 1),
        ((2, 12, 56, 29), 4),
        ((1, 4, 80, 80), 2),
    ],
)
@pytest.mark.parametrize("offset", [0, 1, 3])
def test_kernel_is_the_numpy_truth(
    launch: Any, shape: tuple[int, ...], groups: int, offset: int, dtype: str
) -> None:
    x = np.random.default_rng(5).integers(-100, 100, shape).astype(dtype)
    got = call(launch, channel_shuffle_params(x, groups), [x], shape, offset)
    np.testing.assert_array_equal(got, op.run(x, groups=groups))


@pytest.mark.parametrize(
    "params",
    [
        ChannelShuffleParams(8, 1, 6, 3, 5),
        ChannelShuffleParams(4, 1, 6, 4, 5),
        ChannelShuffleParams(4, 1, 6, 0, 5),
        ChannelShuffleParams(4, 0, 6, 3, 5),
    ],
)
def test_launcher_refuses(launch: Any, params: ChannelShuffleParams) -> None:
    with pytest.raises(RuntimeError, match="returned -1"):
        call(launch, params, [np.zeros((1, 6, 5, 1), np.float32)], (1, 6, 5, 1))
