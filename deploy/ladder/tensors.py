"""What the tensors of a graph hold on a few samples, and how two graphs' values differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from calibrators.preprocess import Preprocess
from calibrators.samples import Sample
from deploy.artifacts.ladder import TensorError
from deploy.artifacts.model import Model, TensorSpec
from deploy.backends import reference
from deploy.batches import batches, feeds_of, rows
from deploy.floats.widen import in_float32
from deploy.metrics import Error, without_shared_infinities
from deploy.plugin.ops import expand_plugins
from deploy.surgery.graph import infer

Values = Mapping[str, np.ndarray]
# of a tensor's mean magnitude: the decades that errors are counted in
DECADES = tuple(range(-8, 2))
# bytes of tensors that are held at once, of one graph
_MOST_BYTES = 256 << 20
# graphs whose tensors are held: the one that others are compared with, and the last of those
_KEPT = 2
# values of a tensor whose errors are counted by size
_COUNTED = 16384
_JSON_MAX = 1e308  # JSON has no infinity


def observable(model: Model) -> Model:
    """The model in float32, plugins spelled out, with the type of every tensor written down."""
    wide = in_float32(model)
    return wide.derive(infer(expand_plugins(wide.proto, wide.name)), wide.decisions)


@dataclass
class Difference:
    """One tensor against its twin in another graph, over the samples seen.

    counts: how many values, of some thousands, are off by each decade of the reference's root mean
    square, from below 1e-8 up to 10 and more.
    """

    error: Error = field(default_factory=Error)
    counts: np.ndarray = field(default_factory=lambda: np.zeros(len(DECADES) + 1, np.int64))
    same_shape: bool = True

    def add(self, expected: np.ndarray, got: np.ndarray) -> None:
        """One more pair."""
        expected, got = without_shared_infinities(expected, got)
        self.error.add(expected, got)
        if expected.shape != got.shape:
            self.same_shape = False
            return
        step = max(1, expected.size // _COUNTED)
        exact = expected.reshape(-1)[::step].astype(np.float64)
        size = float(np.sqrt(np.mean(exact**2))) if exact.size else 0.0
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            off = np.abs(got.reshape(-1)[::step].astype(np.float64) - exact) / (size or 1.0)
            decade = np.floor(np.log10(off)) - DECADES[0] + 1
        last = len(DECADES)
        bins = np.clip(np.nan_to_num(decade, nan=last, posinf=last, neginf=0), 0, last)
        self.counts += np.bincount(bins.astype(np.int64), minlength=last + 1)

    @property
    def sqnr_db(self) -> float:
        return self.error.sqnr_db

    def row(self, tensor: str, operator: str) -> TensorError:
        """The figures, ready to be kept."""
        return figures(tensor, operator, self.error, self.counts.tolist())


def figures(tensor: str, operator: str, error: Error, counts: Sequence[int] = ()) -> TensorError:
    """The sums over all samples, as they are kept."""
    largest = min(error.max_abs, _JSON_MAX)
    relative = largest / error.reference_max if error.reference_max else largest
    return TensorError(
        tensor,
        operator,
        error.sqnr_db,
        error.cosine,
        largest,
        min(relative, _JSON_MAX),
        tuple(counts),
    )


def makers(model: Model) -> dict[str, str]:
    """Every tensor a node makes -> the operator, in the graph's order."""
    return {o: n.op_type for n in model.proto.graph.node for o in n.output if o}


def typed(model: Model) -> dict[str, int]:
    """Every tensor of known type and rank that a node makes -> its element type."""
    graph = model.proto.graph
    kinds = {v.name: v.type for v in (*graph.value_info, *graph.output)}
    weights = {w.name for w in graph.initializer}
    return {
        name: kinds[name].tensor_type.elem_type
        for name, op in makers(model).items()
        if name in kinds
        and name not in weights
        and op != "Constant"
        and kinds[name].tensor_type.elem_type
        and kinds[name].tensor_type.HasField("shape")
    }


def common(before: Model, after: Model) -> list[str]:
    """Tensors that both graphs make with the same type, in the order of `after`."""
    left = typed(before)
    return [name for name, kind in typed(after).items() if left.get(name) == kind]


Feed = Callable[[Values], Values]


@dataclass(frozen=True)
class Feeding:
    """Gives a model the inputs it asks for: raw images become what the float model takes."""

    preprocess: Preprocess | None = None

    def of(self, model: Model, feeds: Values) -> dict[str, np.ndarray]:
        """The feeds of one run, in the model's own types."""
        return self.given(model.inputs, feeds)

    def given(self, inputs: Sequence[TensorSpec], feeds: Values) -> dict[str, np.ndarray]:
        """The same for an engine, which may have dropped an input that nothing reads."""
        return {spec.name: self._one(spec, feeds[spec.name]) for spec in inputs}

    def _one(self, spec: TensorSpec, x: np.ndarray) -> np.ndarray:
        if x.dtype == spec.dtype:
            return x
        raw = self.preprocess is not None and self.preprocess.raw
        if raw and x.dtype == np.uint8 and spec.dtype.kind == "f" and self.preprocess is not None:
            return np.stack([self.preprocess.normalized(image) for image in x]).astype(spec.dtype)
        return x.astype(spec.dtype)


AS_IS = Feeding()


def in_wide_floats(samples: Iterable[Sample]) -> list[Sample]:
    """The samples as the graphs take them: float16 inputs in float32, which loses nothing."""
    return [replace(s, feeds={n: _wide(x) for n, x in s.feeds.items()}) for s in samples]


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.name in ("float16", "bfloat16") else x


def runs_of(model: Model, samples: Iterable[Sample]) -> list[tuple[dict[str, np.ndarray], int]]:
    """The feeds of every run, with how many samples of it count."""
    return [(feeds_of(group, size), len(group)) for group, size in batches(samples, model.inputs)]


def observed(
    model: Model,
    names: Sequence[str],
    runs: Sequence[Values],
    feeding: Feeding = AS_IS,
    *,
    exact: bool = True,
) -> list[dict[str, np.ndarray]]:
    """Per run, the named tensors and all outputs; fewer runs where they don't fit into memory."""
    found: list[dict[str, np.ndarray]] = []
    room = _MOST_BYTES
    with reference.build_observer(model, list(names), exact=exact) as engine:
        wanted = {spec.name for spec in engine.outputs} | set(names)
        for feeds in runs:
            out = engine.run(feeding.of(model, feeds))
            found.append({name: out[name] for name in wanted if name in out})
            size = sum(x.nbytes for x in out.values())
            room -= size
            if room < size:
                break
    return found


class Held:
    """What all tensors of a graph hold on some runs; of the last graphs asked for it is kept."""

    def __init__(self, runs: Sequence[Values], feeding: Feeding = AS_IS) -> None:
        self._runs, self._feeding = runs, feeding
        self._kept: dict[int, tuple[Model, list[dict[str, np.ndarray]]]] = {}

    def of(self, model: Model) -> list[dict[str, np.ndarray]]:
        """Per run, by tensor; fewer runs where they don't fit into memory."""
        # the model is kept too: another one might get its id
        kept = self._kept.pop(id(model), None)
        found = kept[1] if kept else observed(model, [*typed(model)], self._runs, self._feeding)
        self._kept[id(model)] = (model, found)
        while len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return found


def differences(
    expected: Sequence[Values], got: Sequence[Values], names: Iterable[str], counts: Sequence[int]
) -> dict[str, Difference]:
    """Tensor by tensor, over as many runs as both have. counts: samples of each run that count."""
    found = {}
    for name in names:
        found[name] = Difference()
        for left, right, count in zip(expected, got, counts, strict=False):
            a, b = left[name], right[name]
            size = a.shape[0] if a.ndim and a.shape[0] > count else 1
            if size > 1 and a.shape == b.shape:
                # a batch that wasn't full repeats its last sample
                a, b = (np.concatenate([rows(x, i, size) for i in range(count)]) for x in (a, b))
            found[name].add(a, b)
    return found
