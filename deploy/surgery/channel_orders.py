"""In which order the values of a region are stored, and where each reader finds its channels."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from deploy.surgery.channel_plan import Atom, Region, Value


@dataclass(frozen=True)
class Piece:
    """Channels [start, stop) of a stored value, in stored order."""

    value: int
    start: int
    stop: int


def choose_orders(region: Region) -> None:
    """Give every free value an order in which each reader's channels lie together.

    Channels are grouped by who reads them, seen through per-channel nodes to the layers behind;
    a group is stored as one stretch, in the order in which an exact reader wants it.
    """
    groups, wanted, leaders = _groups(region), _wanted_places(region), _leaders(region)
    for index, value in enumerate(region.values):
        if index in leaders and not value.fixed:
            continue
        need = region.worker_needs.get(index)
        keys: list[tuple[int, ...]] = []
        for c in range(value.count):
            if need is None:
                keys.append((groups[index][c], wanted.get((index, c), c)))
            else:
                # a per-channel node keeps the order of what it reads, group by group
                v, a = need[0][c]
                keys.append((groups[index][c], v, int(region.values[v].place[a])))
        _settle(value, keys)
    # backwards: a leader comes after what follows it
    for index in sorted(leaders, reverse=True):
        leader, channels = leaders[index]
        place = region.values[leader].place
        _settle(region.values[index], [(int(place[c]),) for c in channels])


def _settle(value: Value, keys: list[tuple[int, ...]]) -> None:
    order = range(value.count) if value.fixed else sorted(range(value.count), key=keys.__getitem__)
    value.order = np.asarray(order, np.int64)


def _leaders(region: Region) -> dict[int, tuple[int, list[int]]]:
    """Values that only feed the factors of one excitation, alone or through per-channel nodes:
    the value whose order they have to follow, and per channel the channel of it."""
    readers: dict[int, set[int]] = defaultdict(set)
    for number, (_, atoms) in enumerate((*region.free_readers, *region.fixed_readers)):
        for v, _ in atoms:
            readers[v].add(-1 - number)
    for index, needs in region.worker_needs.items():
        for atoms in needs:
            for v, _ in atoms:
                readers[v].add(index)
    leaders: dict[int, tuple[int, list[int]]] = {}
    for index in range(len(region.values) - 1, -1, -1):
        worker = next(iter(readers[index])) if len(readers[index]) == 1 else -1
        if worker < 0:
            continue
        needs = region.worker_needs[worker]
        follows = leaders.get(worker) if len(needs) == 1 else (worker, list(range(len(needs[0]))))
        atoms = needs[-1]
        if follows is None or sorted(atoms) != [(index, c) for c in range(len(atoms))]:
            continue
        if len(needs) == 2 and any(v == index for v, _ in needs[0]):
            continue
        behind = {c: follows[1][i] for i, (_, c) in enumerate(atoms)}
        leaders[index] = (follows[0], [behind[c] for c in range(len(atoms))])
    return leaders


def _wanted_places(region: Region) -> dict[Atom, int]:
    """Where the first exact reader has each atom."""
    wanted: dict[Atom, int] = {}
    for _, atoms in region.fixed_readers:
        for position, atom in enumerate(atoms):
            wanted.setdefault(atom, position)
    return wanted


def _groups(region: Region) -> list[list[int]]:
    """Per value and channel, the number of its group; numbered by first reader."""
    readers: list[dict[int, list[tuple[int, int]]]] = [defaultdict(list) for _ in region.values]
    needs = [atoms for _, atoms in (*region.free_readers, *region.fixed_readers)]
    for number, atoms in enumerate(needs):
        for v, c in atoms:
            readers[v][c].append((number, 0))
    groups: list[list[int]] = [[] for _ in region.values]
    # values of per-channel nodes come after what they read: backwards, readers are known first
    for index in range(len(region.values) - 1, -1, -1):
        value = region.values[index]
        signatures = [tuple(sorted(readers[index][c])) for c in range(value.count)]
        numbers = {s: i for i, s in enumerate(sorted(set(signatures)))}
        groups[index] = [numbers[s] for s in signatures]
        for atoms in region.worker_needs.get(index, []):
            for c, (v, a) in enumerate(atoms):
                readers[v][a].append((len(needs) + index, groups[index][c]))
    return groups


def in_stored_order(region: Region, atoms: list[Atom]) -> np.ndarray:
    """The order in which a reader that takes any finds the atoms in the longest stretches."""
    places = [(v, int(region.values[v].place[c]), i) for i, (v, c) in enumerate(atoms)]
    return np.asarray([i for _, _, i in sorted(places)], np.int64)


def pieces(region: Region, atoms: list[Atom]) -> list[Piece]:
    """The stretches of stored values that hold the atoms, in their order."""
    found: list[Piece] = []
    for v, c in atoms:
        at = int(region.values[v].place[c])
        if found and found[-1].value == v and found[-1].stop == at:
            found[-1] = Piece(v, found[-1].start, at + 1)
        else:
            found.append(Piece(v, at, at + 1))
    return found
