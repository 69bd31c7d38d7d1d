"""cancel_dequantize_quantize: which integers come back as themselves, and which don't."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import assert_fuses, assert_same_numbers, assert_skips, model_from, ops
from movers import integers

from deploy.artifacts.model import Model
from deploy.fuse import fuse

CANCEL = "cancel_dequantize_quantize"


def pair(
    first: np.ndarray,
    second: np.ndarray | None = None,
    zeros: tuple[object, object] = (np.uint8(7), np.uint8(7)),
    *,
    form: str = "uint8",
    ends: str = "float[N,4,6] y",
    body: str = "y = DequantizeLinear(r, sc, zp)",
) -> Model:
    """q -> DequantizeLinear(first) -> x -> QuantizeLinear(second) -> r -> body."""
    text = f"""
    g ({form}[N,4,6] q) => ({ends}) {{
        x = DequantizeLinear(q, sc, zp)  r = QuantizeLinear(x, sd, zq)  {body}
    }}
    """
    values = {"sc": first, "sd": first if second is None else second}
    given = {"zp": np.asarray(zeros[0]), "zq": np.asarray(zeros[1])}
    return model_from(text, {**values, **given}, opset=21, ir=10)


@pytest.mark.parametrize(
    ("form", "zero"),
    [
        ("uint8", np.uint8(7)),
        ("int8", np.int8(-3)),
        ("uint16", np.uint16(30000)),
        ("int16", np.int16(-9)),
    ],
)
@pytest.mark.parametrize("scale", [0.03, 1 / 3, 1e-30, 1e30])
def test_equal_pairs_cancel(form: str, zero: np.ndarray, scale: float) -> None:
    model = pair(np.float32(scale), zeros=(zero, zero), form=form)
    fused = assert_fuses(model, CANCEL, ["DequantizeLinear"], reason="of scale .* cancel", rtol=0)
    assert fused.proto.graph.node[0].input[0] == "q"
    size = 4 + np.dtype(form).itemsize
    assert [d.bytes_saved for d in fused.decisions] == [2 * 24 * size]


def test_half_floats_cancel() -> None:
    body = "y = DequantizeLinear(r, sc, zp)"
    model = pair(np.float16(0.03), ends="float16[N,4,6] y", body=body)
    assert_fuses(model, CANCEL, ["DequantizeLinear"], rtol=0)


def test_the_float_stays_for_another_reader() -> None:
    ends = "float[N,4,6] y, float[N,4,6] z"
    body = "y = DequantizeLinear(r, sc, zp)  z = Neg(x)"
    fused = assert_fuses(
        pair(np.float32(0.03), ends=ends, body=body),
        CANCEL,
        ["DequantizeLinear", "DequantizeLinear", "Neg"],
        rtol=0,
    )
    assert [d.bytes_saved for d in fused.decisions] == [24 * 5]


def test_the_float_stays_as_an_output_of_the_model() -> None:
    model = pair(np.float32(0.03), ends="float[N,4,6] y, float[N,4,6] x")
    fused = assert_fuses(model, CANCEL, ["DequantizeLinear", "DequantizeLinear"], rtol=0)
    assert [d.bytes_saved for d in fused.decisions] == [24 * 5]


def test_every_reader_reads_the_integers() -> None:
    ends = "float[N,4,6] y, uint8[N,6,4] z"
    body = "y = DequantizeLinear(r, sc, zp)  z = Transpose<perm=[0,2,1]>(r)"
    model = pair(np.float32(0.03), ends=ends, body=body)
    assert_fuses(model, CANCEL, ["DequantizeLinear", "Transpose"], rtol=0)


@pytest.mark.parametrize("scale", [1e-45, 1e-44, 3e37])
def test_skips_a_scale_at_the_end_of_the_float_range(scale: float) -> None:
    model = pair(np.float32(scale))
    if scale > 1:
        assert_skips(model, CANCEL, "not every uint8 comes back from scale")
        return
    # subnormal, but each step is still exact
    fused = fuse(model, [CANCEL])
    assert_same_numbers(model, fused, rtol=0)


def test_skips_half_floats_that_overflow() -> None:
    model = pair(np.float16(500), ends="float16[N,4,6] y")
    assert_skips(model, CANCEL, "not every uint8 comes back from scale 500")


def test_skips_half_floats_too_coarse_for_their_integers() -> None:
    zero = np.int16(0)
    model = pair(np.float16(0.5), zeros=(zero, zero), form="int16", ends="float16[N,4,6] y")
    assert_skips(model, CANCEL, "not every int16 comes back")


@pytest.mark.parametrize(
    ("scale", "zero"), [(0.031, np.uint8(7)), (0.03, np.uint8(8)), (0.03, np.int8(7))]
)
def test_skips_another_form(scale: float, zero: np.ndarray) -> None:
    kind = np.asarray(zero).dtype
    model = pair(
        np.float32(0.03),
        np.float32(scale),
        (np.uint8(7), zero),
        ends=f"{kind}[N,6,4] y",
        body="y = Transpose<perm=[0,2,1]>(r)",
    )
    assert_skips(model, CANCEL, rf"it quantizes to {kind} of scale .* what was uint8 of scale")


def test_a_missing_zero_point_is_zero() -> None:
    text = """
    g (uint8[N,4,6] q) => (uint8[N,6,4] y) {
        x = DequantizeLinear(q, sc)  r = QuantizeLinear(x, sc, zq)
        y = Transpose<perm=[0,2,1]>(r)
    }
    """
    model = model_from(text, {"sc": np.float32(0.03), "zq": np.uint8(0)})
    assert_fuses(model, CANCEL, ["Transpose"], rtol=0)


def test_skips_integers_that_leave_the_model() -> None:
    model = pair(np.float32(0.03), ends="uint8[N,4,6] r", body="")
    assert_skips(model, CANCEL, "'r' is an output of the model")


def test_skips_one_scale_per_channel() -> None:
    scales = np.float32([0.1, 0.2, 0.3, 0.4])
    zeros = (np.uint8([1, 2, 3, 4]), np.uint8([1, 2, 3, 4]))
    model = pair(scales, zeros=zeros)
    assert_skips(model, CANCEL, "QuantizeLinear has 4 scales")


def test_skips_one_scale_in_front_and_several_behind() -> None:
    scales = np.float32([0.1, 0.2, 0.3, 0.4])
    model = pair(scales, np.float32(0.1), (np.uint8([1, 2, 3, 4]), np.uint8(1)))
    assert_skips(model, CANCEL, "DequantizeLinear has 4 scales")


def test_a_quantizer_behind_arithmetic_is_none() -> None:
    text = "g (float[N,4] x) => (uint8[N,4] y) { t = Neg(x) y = QuantizeLinear(t, sc, zp) }"
    values = {"sc": np.float32(0.03), "zp": np.uint8(7)}
    assert fuse(model_from(text, values), [CANCEL]).decisions == ()


def test_a_shuffle_between_two_layers_ends_up_in_integers() -> None:
    """Quantizer up, dequantizer down, and the pair between them is gone."""
    text = """
    g (uint8[N,4,6] q) => (float[N,4,6] y) {
        x = DequantizeLinear(q, sc, zp)
        a = Reshape(x, s)  b = Transpose<perm=[0,2,1,3]>(a)  c = Reshape(b, u)
        r = QuantizeLinear(c, sc, zp)  y = DequantizeLinear(r, sd, zp)
    }
    """
    shapes = integers({"s": [0, 2, 2, 6], "u": [0, 4, 6]})
    values = {"sc": np.float32(0.03), "sd": np.float32(0.04), "zp": np.uint8(7)}
    model = model_from(text, {**shapes, **values})
    fused = fuse(model, ["hoist_quantize", "sink_dequantize", CANCEL])
    assert ops(fused) == ["Reshape", "Transpose", "Reshape", "DequantizeLinear"]
    assert_same_numbers(model, fused, rtol=0)
