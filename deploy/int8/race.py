"""The candidates of one build in the order to try them, by measured or by predicted time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx

from deploy.analysis.layer_cost import layer_costs
from deploy.analysis.roofline import predict
from deploy.artifacts.model import Model
from deploy.artifacts.precision import MISSED, Tried
from deploy.errors import BuildError
from deploy.files import json_bytes, write_aside
from deploy.int8.choose import Choice, preferred
from deploy.int8.variants import WITH_PLUGINS, Candidate
from deploy.line import Judged
from deploy.precisions import computed_in
from deploy.target import QUANTIZED

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Entry:
    """A candidate in the race, as JSON keeps it. ms: None where there is no figure."""

    name: str
    description: str
    precision: str
    int8_layers: int
    float_layers: int
    median_ms: float | None = None
    predicted_ms: float | None = None
    rounds: int = 0
    final: bool = False
    note: str = ""


@dataclass(frozen=True)
class Race:
    """order: names, the one to try first in front. measured_here: else times are predicted.
    of_device: measured by the device's own clock."""

    order: tuple[str, ...]
    entries: tuple[Entry, ...]
    measured_here: bool
    of_device: bool = False

    def save(self, path: Path) -> None:
        """Write JSON."""
        write_aside(path, json_bytes(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Race:
        """Read what `save` wrote; BuildError when it isn't that."""
        try:
            row = json.loads(path.read_text(encoding="utf-8"))
            entries = tuple(Entry(**entry) for entry in row["entries"])
            return cls(tuple(row["order"]), entries, row["measured_here"], row["of_device"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{path}: damaged ({error!r}); build again with --fresh") from None

    @property
    def times(self) -> dict[str, float]:
        """Milliseconds of every candidate that has a figure, measured before predicted."""
        figures = {
            e.name: e.predicted_ms if e.median_ms is None else e.median_ms for e in self.entries
        }
        return {name: ms for name, ms in figures.items() if ms is not None}

    def is_int8(self, name: str) -> bool:
        """Whether a candidate is one of 8 bits."""
        return any(e.precision in QUANTIZED for e in self.entries if e.name == name)

    def also(self, later: Race) -> Race:
        """A later race's order, and its figures in place of this one's."""
        names = {entry.name for entry in later.entries}
        earlier = tuple(entry for entry in self.entries if entry.name not in names)
        entries = (*later.entries, *earlier)
        return Race(later.order, entries, later.measured_here, later.of_device)

    @property
    def how(self) -> str:
        """Where the times come from."""
        if not self.measured_here:
            return "predicted from the roofline"
        return "measured on this machine" + (", GPU time" if self.of_device else "")

    def words(self) -> str:
        """How the race ended, in one line."""
        ms = self.times.get(self.order[0])
        how = "measured" if self.measured_here else "predicted"
        time = f", {shown_ms(ms)} {how}" if ms is not None else ""
        return f"{self.order[0]}{time}, of {len(self.entries)} candidates"

    def tried(self, judged: Mapping[str, Judged]) -> list[Tried]:
        """A row per candidate, and per engine that was judged without having raced."""
        raced = [_row(entry, judged.get(entry.name)) for entry in self.entries]
        names = {entry.name for entry in self.entries}
        later = [
            _row(entry_of(name, name, found.built.graph, found.built.precision), found)
            for name, found in judged.items()
            if name not in names
        ]
        return raced + later


def shown_ms(ms: float) -> str:
    """Milliseconds in words; what rounds to nothing in microseconds."""
    return f"{ms:.3f} ms" if ms >= 0.01 else f"{1e3 * ms:.2g} µs"


def of_plugins(name: str, race: Race) -> str:
    """What kernels of ours gain or cost a candidate, or why it has none; "" where there are none to
    have."""
    plain = name.removesuffix(WITH_PLUGINS)
    entry = next((e for e in race.entries if e.name == plain + WITH_PLUGINS), None)
    if entry is None:
        return ""
    if entry.note:
        return f"; without kernels of ours: {entry.note}"
    ms = [race.times.get(n) for n in (entry.name, plain)]
    if None in ms:
        return ""
    ours, without = (shown_ms(x) for x in ms if x is not None)
    return f"; {ours} with kernels of ours, {without} without"


def entry_of(name: str, description: str, model: Model, precision: str) -> Entry:
    """A candidate without a time."""
    quantized, other = layer_counts(model)
    return Entry(name, description, precision, quantized, other)


def preference(entries: Sequence[Entry]) -> list[str]:
    """Whom to ship of those equally fast: fewer layers in 8 bits lose less, and 8 bits were asked
    for, so that float engines come last."""
    ranks = {e.name: (e.precision not in QUANTIZED, e.int8_layers) for e in entries}
    return sorted(ranks, key=lambda name: ranks[name])


def layer_counts(model: Model) -> tuple[int, int]:
    """How many layers with weights run in INT8, and how many in float."""
    graph = model.proto.graph
    makers = {o: node for node in graph.node for o in node.output}
    layers = [node for node in graph.node if node.op_type in _LAYERS]
    integers = sum(_dequantized(node, makers) for node in layers)
    return integers, len(layers) - integers


def quantized_layers(model: Model) -> list[str]:
    """The names of the layers that read 8 bits, as NVIDIA's parser calls them."""
    graph = model.proto.graph
    makers = {o: node for node in graph.node for o in node.output}
    return [
        node.name or f"node_of_{node.output[0]}"
        for node in graph.node
        if node.op_type in _LAYERS and _dequantized(node, makers)
    ]


def timed(entries: Sequence[Entry], choice: Choice) -> Race:
    """The race as it was run on this machine."""
    times = {row.name: row for row in choice.measured}
    rows = []
    for entry in entries:
        found = times.get(entry.name)
        note = choice.left_out.get(entry.name, entry.note)
        figures = (
            {}
            if found is None
            else {
                "median_ms": found.median_ms,
                "rounds": found.rounds,
                "final": found.final,
            }
        )
        rows.append(Entry(**(asdict(entry) | figures | {"note": note})))
    return Race(choice.order, tuple(rows), True, choice.of_device)


def foretold(entries: Sequence[Entry], listed: Mapping[str, tuple[Candidate, Model]]) -> Race:
    """The race as the roofline predicts it, for a device that isn't here.

    INT8 was asked for, and a bound without caches or launches is no reason to take it away: float
    engines come last whatever is predicted.
    """
    rows, times = [], {}
    for entry in entries:
        candidate, model = listed[entry.name]
        rest = computed_in(candidate.target, candidate.precision)
        found = predict(layer_costs(model), candidate.target.roofline, rest)
        times[entry.name] = 1e3 * sum(layer.seconds for layer in found)
        rows.append(Entry(**(asdict(entry) | {"predicted_ms": times[entry.name]})))
    parts = ([e.name for e in entries if (e.precision in QUANTIZED) is q] for q in (True, False))
    order = [name for part in parts for name in preferred(part, times)]
    return Race(tuple(order), tuple(rows), False)


def _row(entry: Entry, judged: Judged | None) -> Tried:
    report = judged.report if judged else None
    drop = report.task.drop if report is not None and report.task is not None else None
    if report is None:
        outcome = entry.note or "not judged: another one came first"
    else:
        outcome = "passed" if report.passed else f"{MISSED}: {report.verdict()}"
    return Tried(
        entry.name,
        entry.description,
        entry.int8_layers,
        entry.float_layers,
        entry.median_ms,
        entry.predicted_ms,
        entry.rounds,
        entry.final,
        min(o.sqnr_db for o in report.outputs) if report else None,
        drop,
        outcome,
    )


def _dequantized(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether data and weights of a layer both come through DequantizeLinear."""
    return all(_behind_dq(name, makers) for name in node.input[:2])


def _behind_dq(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    while name in makers and makers[name].op_type in ("Reshape", "Transpose", "Flatten"):
        name = makers[name].input[0]
    return name in makers and makers[name].op_type == "DequantizeLinear"
