"""A size as arithmetic in the free dimensions of a model's inputs: 8 * N, (H + 3) // 4.

Two sizes that are equal whatever the model is given compare equal, as far as this arithmetic sees;
two that may differ never do. A dimension that an input names is at least 1: no engine takes an
empty image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import gcd, lcm, prod


@dataclass(frozen=True)
class Named:
    """A free dimension of an input; the same name is the same size in the whole model."""

    name: str

    @property
    def least(self) -> int:
        """The smallest it can be."""
        return 1


@dataclass(frozen=True, eq=False)
class Unknown:
    """A size that nothing is known of; equal to itself alone."""

    least: int = 0


@dataclass(frozen=True)
class Whole:
    """A sum that is a factor of a product."""

    sum: Size

    @property
    def least(self) -> int | None:
        """The smallest it can be; None when that isn't known."""
        return self.sum.least


@dataclass(frozen=True)
class Floored:
    """numerator // divisor, rounded down."""

    numerator: Size
    divisor: int

    @property
    def least(self) -> int | None:
        """The smallest it can be; None when that isn't known."""
        least = self.numerator.least
        return None if least is None else least // self.divisor


Atom = Named | Unknown | Whole | Floored
# atoms multiplied, each with its power
Monomial = frozenset[tuple[Atom, int]]
_ONE: Monomial = frozenset()
# an int wherever it is one: that costs a fiftieth
Number = int | Fraction


@dataclass(frozen=True)
class Size:
    """A sum of products of free dimensions, each times a number."""

    terms: frozenset[tuple[Monomial, Number]]

    @staticmethod
    @lru_cache(1024)
    def of(value: Number | Atom) -> Size:
        """A number, or one free dimension."""
        if isinstance(value, int | Fraction):
            return _size([(_ONE, value)])
        return _size([(frozenset({(value, 1)}), 1)])

    @property
    def number(self) -> int | None:
        """The size where it doesn't depend on anything; None otherwise."""
        if not self.terms:
            return 0
        ((monomial, factor), *more) = self.terms
        known = not more and not monomial and factor.denominator == 1
        return int(factor) if known else None

    @property
    def is_integral(self) -> bool:
        """Whether it is an integer whatever the dimensions are."""
        return all(factor.denominator == 1 for _, factor in self.terms)

    @property
    def least(self) -> int | None:
        """A bound from below; None when none is known."""
        total: Number = 0
        for monomial, factor in self.terms:
            lowest = [(atom.least, power) for atom, power in monomial]
            if any(low is None or low < 0 for low, _ in lowest) or (monomial and factor < 0):
                return None
            total += factor * prod((low or 0) ** power for low, power in lowest)
        return -(-total.numerator // total.denominator)

    def __add__(self, other: Size) -> Size:
        return _size([*self.terms, *other.terms])

    def __sub__(self, other: Size) -> Size:
        return self + Size.of(-1) * other

    def __mul__(self, other: Size) -> Size:
        for one, two in ((self, other), (other, self)):
            if len(one.terms) < 2 and not any(monomial for monomial, _ in one.terms):
                factor = sum((f for _, f in one.terms), 0)
                return _size([(monomial, factor * f) for monomial, f in two.terms])
        (left, a), (right, b) = _one_term(self), _one_term(other)
        powers = Counter(dict(left))
        powers.update(dict(right))
        return _size([(frozenset(powers.items()), a * b)])

    def over(self, other: Size) -> Size | None:
        """The exact quotient, which may have fractions; None when there is none."""
        if not other.terms:
            return None
        if self == other:
            return Size.of(1)
        if not self.terms:
            return self
        (left, a), (right, b) = _one_term(self), _one_term(other)
        powers = dict(left)
        for atom, power in right:
            powers[atom] = powers.get(atom, 0) - power
        if any(power < 0 for power in powers.values()):
            return None
        return _size([(frozenset((t, p) for t, p in powers.items() if p), Fraction(a) / b)])

    def floor(self) -> Size:
        """Rounded down to an integer."""
        return self.floor_over(1)

    def floor_over(self, divisor: int) -> Size:
        """Divided by a positive integer and rounded down."""
        scale = lcm(*(factor.denominator for _, factor in self.terms), 1)
        divisor *= scale
        whole, rest = [], []
        for monomial, factor in self.terms:
            quotient, left = divmod(int(factor * scale), divisor)
            whole.append((monomial, quotient))
            rest.append((monomial, left))
        return _size(whole) + _floored(_size(rest), divisor)


def product(sizes: Iterable[Size]) -> Size:
    """All of them multiplied; 1 for none."""
    total = Size.of(1)
    for size in sizes:
        total = total * size
    return total


def _size(terms: Iterable[tuple[Monomial, Number]]) -> Size:
    total: dict[Monomial, Number] = {}
    for monomial, factor in terms:
        total[monomial] = total.get(monomial, 0) + factor
    kept = [(monomial, _plain(factor)) for monomial, factor in total.items() if factor]
    if len(kept) == 1:
        ((monomial, factor),) = kept
        atoms = list(monomial)
        # a sum that is a factor of nothing but a number is a sum again
        if len(atoms) == 1 and isinstance(atoms[0][0], Whole) and atoms[0][1] == 1:
            return Size.of(factor) * atoms[0][0].sum
    return Size(frozenset(kept))


def _plain(number: Number) -> Number:
    return number.numerator if number.denominator == 1 else number


def _one_term(size: Size) -> tuple[Monomial, Number]:
    """The size as a number times one product, a sum being one factor of it."""
    if len(size.terms) == 1:
        return next(iter(size.terms))
    factors = [factor for _, factor in size.terms]
    common = Fraction(gcd(*(f.numerator for f in factors)), lcm(*(f.denominator for f in factors)))
    inner = Size(
        frozenset((monomial, _plain(Fraction(factor) / common)) for monomial, factor in size.terms)
    )
    return frozenset({(Whole(inner), 1)}), common


def _floored(rest: Size, divisor: int) -> Size:
    """rest // divisor for integers from 0 to the divisor; nested ones become one."""
    if not any(monomial for monomial, _ in rest.terms):
        return Size.of(0)  # a number below the divisor
    inner = [
        (monomial, atom)
        for monomial, factor in rest.terms
        for atom, power in monomial
        if isinstance(atom, Floored) and power == len(monomial) == factor == 1
    ]
    if len(inner) == 1:
        # (a // b + c) // d is (a + b * c) // (b * d), for any integer c
        monomial, atom = inner[0]
        others = _size([term for term in rest.terms if term[0] != monomial])
        return (atom.numerator + Size.of(atom.divisor) * others).floor_over(divisor * atom.divisor)
    common = gcd(divisor, *(int(f) for monomial, f in rest.terms if monomial))
    if common > 1:
        # what isn't divided without a rest is a number, and its rest is below the common factor
        fewer = _size([(m, int(f) // common) for m, f in rest.terms])
        return fewer.floor_over(divisor // common)
    return Size.of(Floored(rest, divisor))
