"""expand_group_norm: shapes known and half known, and back again."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_skips, model_from, ops, weight

from deploy.artifacts.model import Model
from deploy.fuse import fuse

NAME = "expand_group_norm"
CHAIN = ["Reshape", "InstanceNormalization", "Reshape", "Mul", "Add"]


def model(shape: str = "N,6,5,4", *, attrs: str = "num_groups=2", dtype: str = "float") -> Model:
    kind = "float32" if dtype == "float" else dtype
    text = (
        f"g ({dtype}[{shape}] x) => ({dtype}[{shape}] y) "
        f"{{ y = GroupNormalization<{attrs}>(x, w, b) }}"
    )
    used = {"w": weight(6, seed=1, dtype=kind), "b": weight(6, seed=2, dtype=kind)}
    return model_from(text, used, opset=21, ir=10)


@pytest.mark.parametrize("shape", ["N,6,5,4", "2,6,5,4", "N,6,5", "N,6,2,5,3"])
@pytest.mark.parametrize("attrs", ["num_groups=2", "num_groups=3, epsilon=0.5", "num_groups=6"])
def test_is_written_out(shape: str, attrs: str) -> None:
    fused = assert_fuses(model(shape, attrs=attrs), NAME, CHAIN, reason="InstanceNormalization")
    assert fused.opset == 21


def test_one_free_size_is_left_to_the_element_count() -> None:
    fused = fuse(model("N,6,H,4"), [NAME])
    assert ops(fused) == CHAIN
    assert str(fused.outputs[0]) == "y float32[N,6,H,4]"


@pytest.mark.parametrize("shape", ["N,6,5,4", "N,6,2,5,3"])
def test_recognition_undoes_it(shape: str) -> None:
    expanded = fuse(model(shape), [NAME])
    assert ops(fuse(expanded, ["recognize_group_norm"])) == ["GroupNormalization"]


def test_skips_two_free_sizes() -> None:
    assert_skips(model("N,6,H,W"), NAME, "has to be known, but for the batch and one more axis")


def test_skips_free_channels() -> None:
    assert_skips(model("N,C,5,4"), NAME, "has to be known, but for the batch and one more axis")


def test_skips_float16() -> None:
    assert_skips(model(dtype="float16"), NAME, "float32 whatever its input is, here float16")


def test_skips_a_scale_computed_at_run_time() -> None:
    text = (
        "g (float[N,6,5] x, float[6] w) => (float[N,6,5] y) "
        "{ y = GroupNormalization<num_groups=2>(x, w, b) }"
    )
    assert_skips(
        model_from(text, {"b": np.zeros(6, np.float32)}, opset=21, ir=10),
        NAME,
        "computed at run time",
    )
