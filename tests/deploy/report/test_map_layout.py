"""The layout of the precision map: nothing overlaps, data flows downwards, long chains fold."""

from __future__ import annotations

import random
from itertools import combinations, pairwise

import pytest
from mapped import random_edges

from deploy.report.graph_layers import layered
from deploy.report.graph_layout import HEIGHT, Box, Layout, Point, isotonic, layout

SHAPES = [(seed, count) for seed, count in enumerate((1, 2, 3, 7, 25, 60, 140))]


def drawn(seed: int, count: int) -> tuple[Layout, list[tuple[int, int]]]:
    edges = random_edges(seed, count)
    sizes = random.Random(seed + 1)
    return layout([sizes.uniform(60, 170) for _ in range(count)], edges), edges


def apart(one: Box, other: Box) -> bool:
    across = one.x + one.width <= other.x or other.x + other.width <= one.x
    return across or one.y + HEIGHT <= other.y or other.y + HEIGHT <= one.y


def crosses(before: Point, after: Point, box: Box) -> bool:
    """Whether the line between two corners of a way runs through the inside of a box."""
    (x, y), (to_x, to_y) = before, after
    for step in range(51):
        part = step / 50
        at_x, at_y = x + part * (to_x - x), y + part * (to_y - y)
        if box.x < at_x < box.x + box.width and box.y + 1e-6 < at_y < box.y + HEIGHT - 1e-6:
            return True
    return False


@pytest.mark.parametrize(("seed", "count"), SHAPES)
def test_no_boxes_overlap_and_all_lie_in_the_picture(seed: int, count: int) -> None:
    found, _ = drawn(seed, count)
    assert all(apart(one, other) for one, other in combinations(found.boxes, 2))
    for box in found.boxes:
        assert box.x >= 0 and box.x + box.width <= found.width
        assert box.y >= 0 and box.y + HEIGHT <= found.height


@pytest.mark.parametrize(("seed", "count"), SHAPES)
def test_every_edge_leads_down_or_to_a_column_further_right(seed: int, count: int) -> None:
    found, edges = drawn(seed, count)
    for (source, target), route in zip(edges, found.routes, strict=True):
        one, other = found.boxes[source], found.boxes[target]
        assert one.column <= other.column
        if one.column == other.column:
            assert one.y + HEIGHT <= other.y
            assert all(before[1] <= after[1] for before, after in pairwise(route))
        assert route[0] == pytest.approx((one.centre, one.y + HEIGHT))
        assert route[-1] == pytest.approx((other.centre, other.y))


@pytest.mark.parametrize(("seed", "count"), SHAPES)
def test_no_edge_runs_through_a_box_or_out_of_the_picture(seed: int, count: int) -> None:
    found, _ = drawn(seed, count)
    for route in found.routes:
        assert all(0 <= x <= found.width and 0 <= y <= found.height for x, y in route)
        for before, after in pairwise(route):
            assert not any(crosses(before, after, box) for box in found.boxes)


def test_a_broken_layout_would_be_noticed() -> None:
    box = Box(0, 0, 100, 0)
    assert not apart(box, Box(99, HEIGHT - 1, 100, 0))
    assert crosses((50, -10), (50, 10), box) and not crosses((101, -10), (101, 80), box)


def test_a_long_chain_is_folded_into_columns() -> None:
    found = layout([120.0] * 100, [(i, i + 1) for i in range(99)])
    assert {box.column for box in found.boxes} == set(range(6))
    assert 0.7 < found.width / found.height < 1.8
    # and each column is straight
    for column in range(6):
        assert len({round(b.centre, 6) for b in found.boxes if b.column == column}) == 1


def test_a_chain_stays_straight_beside_a_long_way_around() -> None:
    edges = [(i, i + 1) for i in range(11)] + [(0, 11)]
    found = layout([120.0] * 12, edges)
    first = [box.centre for box in found.boxes if box.column == 0]
    assert max(first) - min(first) < 40


def test_many_readers_share_one_way() -> None:
    edges = [(i, i + 1) for i in range(30)] + [(0, i) for i in range(2, 31)]
    assert len(layered(31, edges).layer) == 31 + 29
    # as wide as a chain and one line beside it
    found = layout([120.0] * 31, edges)
    assert found.width < 3 * (120 + 12 + 6 + 4 * 12) + 60


def test_so_many_side_by_side_and_no_more() -> None:
    found = layout([120.0] * 41, [(0, i) for i in range(1, 41)])
    rows = [round(box.y) + 10_000 * box.column for box in found.boxes]
    assert max(rows.count(row) for row in rows) == 8


def test_the_same_graph_gives_the_same_picture() -> None:
    edges = random_edges(5, 80)
    shuffled = random.Random(1).sample(edges, len(edges))
    one, other = layout([90.0] * 80, edges), layout([90.0] * 80, shuffled)
    assert one.boxes == other.boxes
    assert dict(zip(edges, one.routes, strict=True)) == dict(
        zip(shuffled, other.routes, strict=True)
    )


def test_edges_in_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match="run in a circle"):
        layout([90.0] * 3, [(0, 1), (1, 2), (2, 0)])


def test_nothing_to_draw() -> None:
    assert layout([], []) == Layout(0.0, 0.0, (), ())


def test_isotonic_regression() -> None:
    assert isotonic([(1.0, 1.0), (2.0, 1.0)]) == [1.0, 2.0]
    assert isotonic([(3.0, 1.0), (1.0, 1.0), (2.0, 1.0)]) == [2.0, 2.0, 2.0]
    assert isotonic([(3.0, 3.0), (1.0, 1.0)]) == [2.5, 2.5]
