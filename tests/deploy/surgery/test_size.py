"""Sizes as arithmetic: equal ones compare equal, and never two that may differ."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import product as every
from math import prod
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.surgery.size import Atom, Floored, Named, Size, Unknown, Whole, product

N, H, W = (Size.of(Named(name)) for name in "NHW")


def of(value: int) -> Size:
    return Size.of(value)


def valued(size: Size, dims: Mapping[str, int]) -> Fraction:
    """What a size is for concrete dimensions."""

    def atom(a: Atom) -> Fraction:
        if isinstance(a, Named):
            return Fraction(dims[a.name])
        if isinstance(a, Whole):
            return valued(a.sum, dims)
        assert isinstance(a, Floored)
        return Fraction(valued(a.numerator, dims) // a.divisor)

    return sum(
        (
            factor * prod(atom(a) ** power for a, power in monomial)
            for monomial, factor in size.terms
        ),
        Fraction(0),
    )


def test_a_stride_after_a_stride_is_one_of_both() -> None:
    """What a convolution's sizes are, and what PyTorch's exporter writes for them."""
    size = H
    for _ in range(3):
        size = (size + of(2 - 3)).floor_over(2) + of(1)
    assert size == (H + of(-1)).floor_over(8) + of(1)
    assert size != (H + of(-1)).floor_over(4) + of(1)
    assert size.least == 1


def test_products_divide_back() -> None:
    tall = (H + of(2)) * of(3)
    assert (N * tall * W).over(W * tall) == N
    assert (tall * W).over(of(3)) == (H + of(2)) * W
    assert (of(16) * N * H).over(of(8) * H) == of(2) * N
    assert (N * H).over(W) is None
    assert N.over(of(0)) is None
    half = N.over(of(2))
    assert half is not None and not half.is_integral


def test_numbers() -> None:
    assert (of(7) - of(7)).number == 0
    assert product([of(2), of(3)]).number == 6
    assert product([]).number == 1
    assert (N - N).number == 0
    assert N.number is None
    assert of(29).floor_over(8).number == 3
    assert (of(-1)).floor_over(8).number == -1


def test_least() -> None:
    assert (H + of(-1)).least == 0
    assert (H - W).least is None
    assert (of(16) * N * H).least == 16
    assert H.floor_over(32).least == 0
    assert Size.of(Unknown()).least == 0


def test_unknown_sizes_are_equal_to_themselves_alone() -> None:
    one, other = Size.of(Unknown()), Size.of(Unknown())
    assert one * N == N * one
    assert one != other


@st.composite
def sizes(draw: Any, depth: int = 3) -> tuple[Size, Any]:
    """A size, and the function of the dimensions that it stands for."""
    if depth == 0 or draw(st.booleans()):
        name = draw(st.sampled_from(["H", "W", "N", ""]))
        number = draw(st.integers(-5, 9))
        if name:
            return Size.of(Named(name)), lambda dims: Fraction(dims[name])
        return of(number), lambda dims: Fraction(number)
    (left, f), (right, g) = draw(sizes(depth - 1)), draw(sizes(depth - 1))
    operator = draw(st.sampled_from(["+", "-", "*", "//", "//"]))
    if operator == "+":
        return left + right, lambda dims: f(dims) + g(dims)
    if operator == "-":
        return left - right, lambda dims: f(dims) - g(dims)
    if operator == "*":
        return left * right, lambda dims: f(dims) * g(dims)
    by = draw(st.integers(1, 12))
    return left.floor_over(by), lambda dims: Fraction(f(dims) // by)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(drawn=sizes(), other=sizes(), dims=st.tuples(*[st.integers(1, 40)] * 3))
def test_arithmetic_is_that_of_numbers(
    drawn: tuple[Size, Any], other: tuple[Size, Any], dims: tuple[int, int, int]
) -> None:
    size, function = drawn
    given_dims = dict(zip("NHW", dims, strict=True))
    value = function(given_dims)
    assert valued(size, given_dims) == value
    assert size.least is None or size.least <= value
    assert size.number is None or size.number == value
    if size == other[0]:
        assert value == other[1](given_dims)
    quotient = size.over(other[0])
    divisor = other[1](given_dims)
    if quotient is not None and divisor:
        assert valued(quotient, given_dims) == value / divisor


@pytest.mark.parametrize(("by", "then"), [*every([1, 2, 3, 8], [2, 3, 4])])
def test_floors_of_floors(by: int, then: int) -> None:
    size = (H.floor_over(by) + of(1)).floor_over(then)
    for height in range(1, 60):
        assert valued(size, {"H": height}) == (height // by + 1) // then
