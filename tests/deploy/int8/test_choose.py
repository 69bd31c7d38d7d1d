"""choose: who is measured, how often, and which candidate comes first; on a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy.artifacts.engine import Engine
from deploy.artifacts.model import TensorSpec
from deploy.errors import BuildError
from deploy.int8.choose import Choice, choose, preferred

FEEDS = {"x": np.zeros((1, 3), np.float32)}


@dataclass
class World:
    """Time that passes only where a candidate compiles or runs."""

    now: float = 0.0
    calls: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def engine(
        self, name: str, *ms: float, compiles_s: float = 0.0, **more: Any
    ) -> Callable[[], Engine]:
        """What opens a candidate; its latency is the n-th of `ms` when compiled for the n-th
        time, then the last one. more: as Fake takes it."""

        def opened() -> Engine:
            before = self.opened.count(name)
            self.opened.append(name)
            self.now += compiles_s
            return Fake(self, name, ms[min(before, len(ms) - 1)] / 1e3, **more)

        return opened


class Fake(Engine):
    """gpu_ms: what its own clock says of a run; fails_at: the run that it stops in."""

    def __init__(
        self,
        world: World,
        name: str,
        seconds: float,
        gpu_ms: float | None = None,
        fails_at: int = 0,
    ) -> None:
        super().__init__((TensorSpec("x", np.dtype(np.float32), (None, 3)),), ())
        self.world, self.name, self.seconds = world, name, seconds
        self.gpu_ms, self.left = gpu_ms, fails_at

    def _prepare(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], None]:
        raise AssertionError("only timed calls race")

    def _timed(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], float | None]:
        def call() -> float | None:
            self.world.calls.append(self.name)
            self.world.now += self.seconds
            self.left -= 1
            if self.left == 0:
                raise BuildError("the kernel stopped")
            return self.gpu_ms

        return call

    def _run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    def close(self) -> None:
        super().close()
        self.world.closed.append(self.name)


def chosen(world: World, engines: Mapping[str, tuple[float, ...]], budget_s: float = 1e6) -> Choice:
    openers = {name: world.engine(name, *ms) for name, ms in engines.items()}
    return choose(openers, lambda _: FEEDS, budget_s=budget_s, clock=world.clock)


class TestOrder:
    @pytest.mark.parametrize(
        "medians, order",
        [
            ({"a": 1.0, "b": 0.98, "c": 0.971}, "abc"),
            ({"a": 1.0, "b": 0.969, "c": 1.2}, "bac"),
            ({"a": 1.0, "b": 0.95, "c": 0.94}, "bca"),
            ({"a": 1.0, "b": 0.90, "c": 0.80}, "cba"),
            ({"a": 2.0}, "a"),
        ],
    )
    def test_within_three_percent_the_first_listed_wins(
        self, medians: dict[str, float], order: str
    ) -> None:
        assert "".join(preferred("abc"[: len(medians)], medians)) == order

    def test_the_default_stays_where_others_are_no_faster(self) -> None:
        found = chosen(World(), {"default": (1.0,), "other": (0.986,), "slow": (1.1,)})
        assert found.order == ("default", "other", "slow")
        assert found.left_out == {}

    def test_half_of_that_where_each_was_compiled_three_times(self) -> None:
        found = chosen(World(), {"default": (1.0,), "other": (0.984,)})
        assert found.order == ("other", "default")

    def test_of_equal_ones_the_preferred_wins_however_listed(self) -> None:
        world = World()
        openers = {
            name: world.engine(name, ms) for name, ms in zip("abc", (1.0, 1.01, 0.99), strict=True)
        }
        found = choose(openers, lambda _: FEEDS, preference="bca", clock=world.clock)
        assert found.order == ("c", "b", "a")
        openers["c"] = world.engine("c", 1.0)
        found = choose(openers, lambda _: FEEDS, preference="bca", clock=world.clock)
        assert found.order == ("b", "c", "a")

    def test_the_fastest_are_the_finalists_however_preferred(self) -> None:
        engines = {"a": (1.0,), **{name: (0.98 - i / 1e3,) for i, name in enumerate("bcdef")}}
        found = chosen(World(), engines)
        assert {m.name for m in found.measured if m.final} == set("acdef")

    def test_and_goes_where_one_is(self) -> None:
        found = chosen(World(), {"default": (1.0,), "fast": (0.9,), "twin": (0.89,)})
        assert found.order == ("fast", "twin", "default")

    def test_a_lucky_compilation_does_not_win(self) -> None:
        """Neither while screening nor as one of three in the final loop."""
        found = chosen(World(), {"default": (1.0,), "lucky": (0.95, 0.99, 0.9, 0.99)})
        assert found.order == ("default", "lucky")
        assert {m.name: m.median_ms for m in found.measured} == pytest.approx(
            {"default": 1.0, "lucky": 0.99}
        )

    def test_figures_say_which_loop_they_are_from(self) -> None:
        engines = {"a": (1.0,), "b": (1.01,), "c": (1.02,), "d": (1.03,), "e": (1.04,), "f": (9.0,)}
        found = chosen(World(), engines)
        assert [(m.name, m.final) for m in found.measured] == [
            *[(name, True) for name in "abcd"],
            *[(name, False) for name in "ef"],
        ]
        assert found.order == tuple("abcdef")

    def test_the_default_is_in_the_final_loop_however_slow(self) -> None:
        fast = dict.fromkeys("bcdef", (1.0,))
        found = chosen(World(), {"a": (5.0,), **fast})
        assert {m.name for m in found.measured if m.final} == set("abcde")

    def test_so_is_the_fastest_rival(self) -> None:
        """A lead over the best float engine isn't told from a few rounds."""
        world = World()
        ms = {**dict.fromkeys("abcde", 1.0), "fp32": 9.0, "bf16": 5.0}
        openers = {name: world.engine(name, each) for name, each in ms.items()}
        rivals = ("fp32", "bf16")
        found = choose(openers, lambda _: FEEDS, rivals=rivals, budget_s=1e6, clock=world.clock)
        assert {m.name for m in found.measured if m.final} == {*"abcd", "bf16"}
        assert {m.name: m.rounds for m in found.measured}["bf16"] == 100


class TestLoop:
    def test_candidates_take_turns_twice_each(self) -> None:
        world = World()
        chosen(world, {"a": (1.0,), "b": (1.0,)})
        warm_up = ["a"] * 3 + ["b"] * 3
        assert world.calls[:14] == warm_up + ["a", "a", "b", "b"] * 2

    def test_what_is_clearly_slower_leaves_after_eight_rounds(self) -> None:
        found = chosen(World(), {"a": (1.0,), "near": (1.14,), "far": (1.16,)})
        rounds = {m.name: m.rounds for m in found.measured if m.name == "far"}
        # it came to the final loop as one of three
        assert rounds == {"far": 100}
        many = dict.fromkeys("abcd", (1.0,))
        found = chosen(World(), {**many, "near": (1.14,), "far": (1.16,)})
        rounds = {m.name: m.rounds for m in found.measured}
        assert (rounds["near"], rounds["far"]) == (100, 8)

    def test_every_engine_is_compiled_anew_for_the_final_loop_and_closed(self) -> None:
        """Three times, where that is quick."""
        world = World()
        chosen(world, {"a": (1.0,), "b": (1.0,)})
        assert world.opened == ["a", "b"] * 4
        assert sorted(world.closed) == ["a"] * 4 + ["b"] * 4

    def test_compilations_take_turns(self) -> None:
        found = chosen(World(), {"a": (9.0, 1.0, 2.0, 3.0), "b": (9.0,)})
        assert found.measured[0].median_ms == pytest.approx(2.0)
        assert [m.rounds for m in found.measured] == [100, 100]

    @pytest.mark.parametrize("budget_s, times", [(24.0, 2), (50.0, 4)])
    def test_where_compiling_takes_its_time_it_is_done_once(
        self, budget_s: float, times: int
    ) -> None:
        world = World()
        openers = {name: world.engine(name, 1.0, compiles_s=2.0) for name in "ab"}
        found = choose(openers, lambda _: FEEDS, budget_s=budget_s, clock=world.clock)
        assert world.opened == ["a", "b"] * times
        assert found.left_out == {}

    def test_nor_where_it_fails_the_second_time(self) -> None:
        """Short of memory: what compiled once goes on."""
        world, opened = World(), iter(range(9))
        plain = world.engine("b", 1.0)
        openers = {
            "a": world.engine("a", 1.0),
            "b": lambda: plain() if next(opened) < 2 else refused(),
        }
        found = choose(openers, lambda _: FEEDS, clock=world.clock)
        assert (found.order, found.left_out) == (("a", "b"), {})
        assert sorted(world.closed) == sorted(world.opened)

    def test_one_candidate_is_measured_once(self) -> None:
        world = World()
        found = chosen(world, {"a": (1.0,)})
        assert (found.order, world.opened) == (("a",), ["a"])
        assert [m.final for m in found.measured] == [False]


class TestBudget:
    def test_ends_the_rounds(self) -> None:
        world = World()
        chosen(world, {"a": (1.0,), "b": (1.0,)}, budget_s=0.1)
        # eight rounds at least, and no more than that past the end
        assert 0.1 <= world.now < 0.116

    def test_eight_rounds_at_least(self) -> None:
        found = chosen(World(), {"a": (1.0,), "b": (1.0,)}, budget_s=0.0)
        assert [m.rounds for m in found.measured] == [8, 8]

    def test_what_there_is_no_time_to_compile_is_said(self) -> None:
        world = World()
        openers = {name: world.engine(name, 1.0, compiles_s=2.0) for name in "abcd"}
        found = choose(openers, lambda _: FEEDS, budget_s=10.0, clock=world.clock)
        reason = "not compiled: the time budget was spent; raise it"
        assert found.left_out == {"c": reason, "d": reason}
        assert found.order == ("a", "b")


def refused() -> Engine:
    raise BuildError("no kernel for it")


class TestRefused:
    def test_a_candidate_that_does_not_compile_is_noted(self) -> None:
        world = World()
        openers = {"a": world.engine("a", 1.0), "b": refused, "c": world.engine("c", 0.5)}
        found = choose(openers, lambda _: FEEDS, clock=world.clock)
        assert found.left_out == {"b": "no kernel for it"}
        assert found.order == ("c", "a")

    def test_the_default_has_to_compile(self) -> None:
        world = World()
        with pytest.raises(BuildError, match="no kernel for it"):
            choose({"a": refused, "b": world.engine("b", 1.0)}, lambda _: FEEDS, clock=world.clock)


class TestStopped:
    @pytest.mark.parametrize("at", [1, 3, 9, 40])
    def test_a_candidate_that_stops_is_out(self, at: int) -> None:
        """While warming up, in its first rounds, or as one of the last."""
        world = World()
        openers = {
            "a": world.engine("a", 1.0),
            "b": world.engine("b", 0.5, fails_at=at),
            "c": world.engine("c", 0.8),
        }
        found = choose(openers, lambda _: FEEDS, clock=world.clock)
        assert found.left_out == {"b": "the kernel stopped"}
        assert found.order == ("c", "a")
        assert {row.name for row in found.measured} == {"a", "c"}

    def test_only_in_the_final_loop(self) -> None:
        """It was screened: 8 rounds twice and three to warm up; the figure of then is no reason."""
        world = World()
        often = {"budget_s": 0.0, "clock": world.clock}
        opened = iter([0, 10])

        def b() -> Engine:
            return Fake(world, "b", 0.5e-3, fails_at=next(opened))

        openers = {"a": world.engine("a", 1.0), "b": b, "c": world.engine("c", 0.8)}
        found = choose(openers, lambda _: FEEDS, needed=("c",), **often)
        assert (found.order, found.left_out) == (("c", "a"), {"b": "the kernel stopped"})

    def test_the_default_names_who_stopped_before_it(self) -> None:
        """A kernel that reads where nothing lies stops the GPU for everybody."""
        world = World()
        openers = {
            "a": world.engine("a", 1.0, fails_at=6),
            "b": world.engine("b", 1.0, fails_at=4),
        }
        reason = r"^the kernel stopped \(and before it b: the kernel stopped\)$"
        with pytest.raises(BuildError, match=reason):
            choose(openers, lambda _: FEEDS, clock=world.clock)


class TestClock:
    def test_the_devices_own_decides(self) -> None:
        world = World()
        openers = {
            "a": world.engine("a", 1.0, gpu_ms=0.3),
            "b": world.engine("b", 1.1, gpu_ms=0.2),
        }
        found = choose(openers, lambda _: FEEDS, clock=world.clock)
        assert found.of_device
        assert found.order == ("b", "a")
        assert [row.median_ms for row in found.measured] == [0.2, 0.3]

    def test_where_one_has_none_the_hosts_decides(self) -> None:
        world = World()
        openers = {"a": world.engine("a", 1.0, gpu_ms=0.3), "b": world.engine("b", 1.1)}
        found = choose(openers, lambda _: FEEDS, clock=world.clock)
        assert not found.of_device
        assert found.order == ("a", "b")
        assert [row.median_ms for row in found.measured] == pytest.approx([1.0, 1.1])


def test_what_is_needed_is_compiled_whatever_it_takes() -> None:
    """Float engines come last in the list, and INT8 is never shipped without having met them."""
    world = World()
    openers = {name: world.engine(name, 1.0) for name in ("a", "b", "c", "float")}
    found = choose(openers, lambda _: FEEDS, needed=("float",), budget_s=0.0, clock=world.clock)
    assert "float" in {row.name for row in found.measured}
    assert "c" in found.left_out
