"""Which layers go back to float: few of them, and no more evaluations than allowed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from deploy.artifacts.precision import LayerNoise
from deploy.int8.fallback import noisiest, smallest_passing
from deploy.placement import NOTHING, Exclude


def layers(*noise_db: float, ops: Sequence[str] | None = None) -> tuple[LayerNoise, ...]:
    """Layers l0, l1, … of these noises, which come sorted."""
    powers = 10 ** (np.array(noise_db) / 10)
    totals = 10 * np.log10(np.cumsum(powers[::-1])[::-1])
    kinds = ops or ["Conv"] * len(noise_db)
    return tuple(
        LayerNoise(f"l{i}", kinds[i], f"t{i}", db, float(totals[i]), 32)
        for i, db in enumerate(noise_db)
    )


def equal(count: int) -> tuple[LayerNoise, ...]:
    return layers(*[-40.0] * count)


def names(exclude: Exclude | None) -> list[str]:
    assert exclude is not None
    return list(exclude.layers)


class TestNoisiest:
    def test_the_fewest_that_gain_enough(self) -> None:
        # of 20 equal ones 12 have to go for 4 dB, which is more than a fifth
        assert len(noisiest(equal(20)).layers) == 4
        assert len(noisiest(equal(20), most=19).layers) == 13
        assert len(noisiest(equal(20), gain_db=3.0, most=19).layers) == 10

    def test_the_noisiest_go(self) -> None:
        found = noisiest(layers(-20, -22, -23, -40, -41, -42, -43, -44, -45, -46))
        assert names(found) == ["l0", "l1"]
        assert found.tensors == {} and found.kinds == {}

    def test_the_second_goes_although_the_first_is_most(self) -> None:
        assert names(noisiest(layers(-10, -40, -41, -42, -43))) == ["l0", "l1"]

    def test_of_few_layers_three_at_the_most(self) -> None:
        assert names(noisiest(equal(8))) == ["l0", "l1", "l2"]

    def test_a_reason_says_what_each_costs_and_what_is_gained(self) -> None:
        found = noisiest(layers(-20, -22, -40, -41))
        assert found.layers["l1"] == (
            "noise -22.0 dB alone; without the 2 noisiest of 4 layers -37.5 dB are predicted "
            "instead of -17.8"
        )

    @pytest.mark.parametrize("noise", [(), (-20.0,)])
    def test_the_last_layer_stays(self, noise: tuple[float, ...]) -> None:
        assert noisiest(layers(*noise)) == NOTHING

    def test_a_layer_with_weights_stays(self) -> None:
        # with both convolutions gone the sums alone would be INT8
        found = noisiest(layers(-20, -21, -22, -23, ops=["Conv", "Conv", "Add", "Add"]), gain_db=99)
        assert names(found) == ["l0"]

    def test_none_may_be_asked_for(self) -> None:
        assert noisiest(equal(9), most=0) == NOTHING


class Gate:
    """Passes where the number of layers in float is one of these; keeps what it was asked."""

    def __init__(self, passing: Callable[[int], bool]) -> None:
        self.passing = passing
        self.asked: list[int] = []

    def __call__(self, exclude: Exclude) -> bool:
        assert list(exclude.layers) == [f"l{i}" for i in range(len(exclude.layers))]
        self.asked.append(len(exclude.layers))
        return self.passing(self.asked[-1])


class TestSmallestPassing:
    @pytest.mark.parametrize("needed", range(1, 40))
    def test_is_found_where_more_is_never_worse(self, needed: int) -> None:
        gate = Gate(lambda length: length >= needed)
        assert len(names(smallest_passing(equal(40), gate, most=20))) == needed
        assert len(gate.asked) == len(set(gate.asked)) <= 12

    def test_doubles_and_then_halves(self) -> None:
        gate = Gate(lambda length: length >= 11)
        assert len(names(smallest_passing(equal(63), gate))) == 11
        assert gate.asked == [1, 2, 4, 8, 16, 12, 10, 11]

    def test_says_how_many_in_the_reason(self) -> None:
        found = smallest_passing(layers(-20, -22, -40, -41), Gate(lambda length: length >= 2))
        assert found is not None
        assert found.layers["l0"] == (
            "noise -20.0 dB alone; back in float with the 2 noisiest of 4 layers for the gate"
        )

    def test_layers_that_are_float_already_are_passed_over(self) -> None:
        asked: list[list[str]] = []

        def passes(exclude: Exclude) -> bool:
            asked.append(list(exclude.layers))
            return "l4" in exclude.layers

        found = smallest_passing(equal(9), passes, already=["l0", "l2", "l3"])
        assert names(found) == ["l1", "l4"]
        assert asked == [["l1"], ["l1", "l4"]]

    def test_none_where_nothing_passes_not_even_all_but_one(self) -> None:
        gate = Gate(lambda length: False)
        assert smallest_passing(equal(40), gate) is None
        assert gate.asked == [1, 2, 4, 8, 16, 32, 39]

    def test_out_of_tries_the_shortest_that_passed(self) -> None:
        gate = Gate(lambda length: length >= 11)
        assert len(names(smallest_passing(equal(63), gate, most=6))) == 12
        assert gate.asked == [1, 2, 4, 8, 16, 12]

    def test_the_last_try_is_for_all_that_can_go(self) -> None:
        gate = Gate(lambda length: length >= 30)
        assert len(names(smallest_passing(equal(63), gate, most=4))) == 62
        assert gate.asked == [1, 2, 4, 62]

    def test_no_try_at_all(self) -> None:
        gate = Gate(lambda length: True)
        assert smallest_passing(equal(9), gate, most=0) is None
        assert gate.asked == []

    @pytest.mark.parametrize("seed", range(20))
    def test_what_comes_back_passed_whatever_the_gate_does(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        answers = random.random(64) < 0.4
        gate = Gate(lambda length: bool(answers[length]))
        found = smallest_passing(equal(63), gate)
        assert len(gate.asked) == len(set(gate.asked)) <= 10
        if found is None:
            assert not answers[gate.asked].any()
        else:
            assert answers[len(found.layers)]
            shorter = [n for n in gate.asked if n < len(found.layers)]
            assert not answers[shorter].any()

    def test_an_island_that_was_stepped_over_is_not_found(self) -> None:
        # documented: 3 passes, nobody asks
        gate = Gate(lambda length: length == 3 or length >= 8)
        assert len(names(smallest_passing(equal(20), gate))) == 8
        assert gate.asked == [1, 2, 4, 8, 6, 7]

    def test_a_layer_with_weights_stays(self) -> None:
        gate = Gate(lambda length: False)
        kinds = ["Conv", "Conv", "Gemm", "Add", "Add"]
        assert smallest_passing(layers(-20, -21, -22, -23, -24, ops=kinds), gate) is None
        assert gate.asked == [1, 2]

    @pytest.mark.parametrize("count", [0, 1])
    def test_nothing_to_revert_asks_nothing(self, count: int) -> None:
        gate = Gate(lambda length: True)
        assert smallest_passing(equal(count), gate) is None
        assert gate.asked == []
