"""A network shared out between a DLA and the GPU."""

from __future__ import annotations

from helpers import model_from

from deploy.doctor.dla_segments import Segments, dla_segments
from deploy.surgery.graph import to_graph


def shared(body: str, outputs: str = "float[1,3,8,6] y") -> Segments:
    text = f"g (float[1,3,8,6] x) => ({outputs}) {{ {body} }}"
    return dla_segments(to_graph(model_from(text)), 2, 1)


def parts(found: Segments) -> list[tuple[bool, tuple[str, ...]]]:
    return [(part.dla, tuple(name[0] for name in part.layers)) for part in found.parts]


def test_one_part_when_everything_fits() -> None:
    found = shared("a = Relu(x) b = Sigmoid(a) y = Add(a, b)")
    assert (found.on_dla, found.loadables, found.transitions) == (3, 1, 0)
    assert dict(found.refused) == {}


def test_a_layer_of_the_gpu_between_makes_two_changes() -> None:
    found = shared("a = Relu(x) b = Erf(a) y = Tanh(b)")
    assert parts(found) == [(True, ("R",)), (False, ("E",)), (True, ("T",))]
    assert (found.loadables, found.transitions) == (2, 2)
    assert found.refused == {"Erf -> b": "the DLA has no Erf"}


def test_a_value_with_several_readers_there_is_copied_once() -> None:
    found = shared("a = Relu(x) b = Erf(a) c = Cos(a) d = Div(b, c) y = Tanh(d)")
    assert found.transitions == 2
    assert found.loadables == 2


def test_a_branch_around_the_gpu_joins_the_later_part() -> None:
    # the sum waits for the GPU, so it can't be in the part in front
    found = shared("a = Relu(x) b = Erf(a) y = Add(a, b)")
    assert parts(found) == [(True, ("R",)), (False, ("E",)), (True, ("A",))]
    assert found.transitions == 2


def test_branches_that_meet_are_one_part() -> None:
    found = shared("a = Relu(x) b = Sigmoid(x) y = Add(a, b)")
    assert found.loadables == 1
    apart = shared("y = Relu(x) z = Sigmoid(x)", "float[1,3,8,6] y, float[1,3,8,6] z")
    assert apart.loadables == 2


def test_what_only_passes_a_value_on_is_no_layer() -> None:
    found = shared("a = Relu(x) b = Identity(a) y = Tanh(b)")
    assert (found.on_dla, found.loadables) == (2, 1)
