"""How a change of type passes an operator that only moves data.

    mover -> conversion   =>   conversion -> mover      `hoist`, for conversions to a narrower type
    conversion -> mover   =>   mover -> conversion      `sink`, for conversions to a wider type

Both orders give the same bits, as movers copy elements and never compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_graphsurgeon as gs

from deploy.surgery.conversion import Conversion
from deploy.surgery.graph import is_output, label, producer
from deploy.surgery.movement import (
    RELABELS,
    Side,
    data_inputs,
    moved,
    moves,
    only_data,
    side_inputs,
    total,
)
from deploy.surgery.rewrite import New, Replace, Skip

_VERBS = {"Cast": "casting", "QuantizeLinear": "quantizing", "DequantizeLinear": "dequantizing"}

Read = Callable[[gs.Node], Conversion | Skip | None]


def hoist(node: gs.Node, read: Read, also: Sequence[str] = ()) -> Replace | Skip | None:
    """Carry this conversion to a narrower type above the data movement that feeds it.

    read: what a node converts. also: operators allowed besides those of `MOVES`.
    """
    conversion = read(node)
    mover = producer(node.inputs[0]) if conversion is not None else None
    if conversion is None or mover is None or not moves(mover, also):
        return None
    if isinstance(conversion, Skip):
        return conversion
    behind = _behind(mover, conversion, read)
    if isinstance(behind, Skip):
        return behind
    side = side_inputs(mover, conversion)
    if isinstance(side, Skip):
        return side
    twins = _twins(mover, conversion, read)
    saved = _saved_above(mover, twins, conversion)
    if saved is None:
        return Skip(f"the sizes around {mover.op} are unknown, so the gain is too")
    if saved < 0:
        return Skip(f"{_VERBS[node.op]} above {mover.op} would move {-saved} bytes more")
    return _hoisted(mover, conversion, behind, twins, side, saved)


def sink(node: gs.Node, read: Read, also: Sequence[str] = ()) -> Replace | Skip | None:
    """Carry this conversion to a wider type below the data movement that it feeds.

    All movers that read it go at once, so that a value read by several is converted only behind
    them. read: what a node converts. also: operators allowed besides those of `MOVES`.
    """
    conversion = read(node)
    if conversion is None:
        return None
    readers = {id(r): r for r in node.outputs[0].outputs if moves(r, also)}
    movers = [m for m in readers.values() if only_data(m, node.outputs[0]) and not _fixed(m)]
    if not movers or isinstance(conversion, Skip):
        return conversion if movers and isinstance(conversion, Skip) else None
    plans = [(mover, _carried(mover, conversion, read)) for mover in movers]
    sides = [(mover, side) for mover, side in plans if not isinstance(side, Skip)]
    if not sides:
        return next(side for _, side in plans if isinstance(side, Skip))
    carried = [mover for mover, _ in sides]
    names = "|".join(sorted({mover.op for mover in carried}))
    gone = _gone(carried)
    saved = _saved_below(carried, gone, conversion)
    if saved is None:
        return Skip(f"the sizes around {names} are unknown, so the gain is too")
    if saved < 0:
        return Skip(f"{_VERBS[node.op]} below {names} would move {-saved} bytes more")
    new = tuple(made for mover, side in sides for made in _sunk(mover, side, conversion))
    return Replace((*carried, *gone), new, f"{conversion} moved below {names}", saved)


def _behind(mover: gs.Node, conversion: Conversion, read: Read) -> list[gs.Node] | Skip:
    """The conversion behind every output of the mover that is read; all of them equal."""
    found = []
    for value in mover.outputs:
        if is_output(value):
            return Skip(f"{value.name!r} is an output of the model")
        for reader in value.outputs:
            if reader.inputs[0] is not value or not conversion.same(read(reader)):
                return Skip(f"{label(reader)!r} needs the wide value of {value.name!r}")
        if len(value.outputs) > 1:
            count = f"{len(value.outputs)} {conversion.op.lower()}s"
            return Skip(f"{count} read {value.name!r}; simplify first")
        found.extend(value.outputs)
    return found


def _twins(mover: gs.Node, conversion: Conversion, read: Read) -> dict[int, gs.Node]:
    """Per data input (by id) the equal conversion that reads it already."""
    return {
        id(value): reader
        for value in data_inputs(mover)
        for reader in value.outputs
        if reader.inputs[0] is value and conversion.same(read(reader))
    }


def _hoisted(
    mover: gs.Node,
    conversion: Conversion,
    behind: list[gs.Node],
    twins: dict[int, gs.Node],
    side: Side,
    saved: int,
) -> Replace:
    narrowed: list[gs.Variable] = []
    new: dict[int, New] = {}
    for index, value in enumerate(data_inputs(mover)):
        twin = twins.get(id(value))
        # an equal conversion is made again, not just read: it might lie in the body of an If
        out = twin.outputs[0] if twin else gs.Variable("", conversion.target, value.shape)
        inputs = (value, *conversion.parameters)
        new[id(twin) if twin else index] = New(conversion.op, inputs, (out,), conversion.attrs)
        narrowed.append(out)
    kept = {id(node.inputs[0]): node.outputs[0] for node in behind}
    # an output nobody reads still has its place in Split's list
    outputs = tuple(
        kept.get(id(t), gs.Variable("", conversion.target, t.shape)) for t in mover.outputs
    )
    last = New(mover.op, (*narrowed, *side), outputs, mover.attrs, mover.domain)
    remove = {id(node): node for node in (mover, *behind, *twins.values())}
    reason = f"{conversion} moved above {mover.op}"
    return Replace(tuple(remove.values()), (*new.values(), last), reason, saved)


def _saved_above(mover: gs.Node, twins: dict[int, gs.Node], conversion: Conversion) -> int | None:
    """Traffic before minus traffic after, in bytes per sample; None when a size is unknown."""
    if mover.op in RELABELS:
        return 0  # moves nothing: only the way further up is free
    elements = moved(mover)
    fresh = total(t for t in data_inputs(mover) if id(t) not in twins)
    converted = total(t for t in mover.outputs if t.outputs)
    if elements is None or fresh is None or converted is None:
        return None
    spared = elements * (conversion.wide.itemsize - conversion.narrow.itemsize)
    return spared + (converted - fresh) * conversion.bytes


def _saved_below(carried: list[gs.Node], gone: list[gs.Node], conversion: Conversion) -> int | None:
    """Traffic before minus traffic after, in bytes per sample; None when a size is unknown."""
    fed = {id(t) for mover in carried for t in data_inputs(mover)}
    if all(mover.op in RELABELS for mover in carried) and len(carried) == len(gone) == len(fed):
        return 0  # moves nothing: only the way further down is free
    converted = total(node.inputs[0] for node in gone)
    # a relabelled value has as many elements as before, even where its batch is split up
    after = total(t for m in carried for t in (data_inputs(m) if m.op in RELABELS else m.outputs))
    moved_by = [moved(mover) for mover in carried]
    if converted is None or after is None or None in moved_by:
        return None
    spared = sum(m for m in moved_by if m is not None)
    narrower = conversion.wide.itemsize - conversion.narrow.itemsize
    return spared * narrower + (converted - after) * conversion.bytes


def _fixed(mover: gs.Node) -> bool:
    """Whether all it reads comes from weights: vendors fold that, and want it next to a layer."""
    return all(
        isinstance(t, gs.Constant)
        or t.is_empty()
        or ((node := producer(t)) and all(isinstance(w, gs.Constant) for w in node.inputs))
        for t in mover.inputs
    )


def _carried(mover: gs.Node, conversion: Conversion, read: Read) -> Side | Skip:
    """The mover's side inputs, when all its data comes from equal conversions."""
    for value in data_inputs(mover):
        source = producer(value)
        if source is None or not conversion.same(read(source)):
            return Skip(
                f"{mover.op} also reads {value.name!r}, which doesn't come from the same "
                f"{conversion.op}"
            )
    return side_inputs(mover, conversion)


def _gone(carried: list[gs.Node]) -> list[gs.Node]:
    """The conversions in front of the movers that nobody else needs."""
    movers = {id(mover) for mover in carried}
    sources = {id(t): t for mover in carried for t in data_inputs(mover)}
    return [
        t.inputs[0]
        for t in sources.values()
        if not is_output(t)
        and all(id(reader) in movers and only_data(reader, t) for reader in t.outputs)
    ]


def _sunk(mover: gs.Node, side: Side, conversion: Conversion) -> list[New]:
    narrow = tuple(value.inputs[0].inputs[0] for value in data_inputs(mover))
    outs = tuple(gs.Variable("", conversion.source, t.shape) for t in mover.outputs)
    first = New(mover.op, (*narrow, *side), outs, mover.attrs, mover.domain)
    return [first] + [
        New(conversion.op, (out, *conversion.parameters), (t,), conversion.attrs)
        for out, t in zip(outs, mover.outputs, strict=True)
    ]
