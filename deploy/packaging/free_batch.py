"""An OpenVINO engine that takes any batch size, proven to compute what the shipped one computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deploy.artifacts.model import Model, TensorSpec
from deploy.artifacts.stored_arrays import array_shapes
from deploy.errors import MissingBackendError, one_line
from deploy.packaging.served import Served
from deploy.packaging.sized import graph_of_any_size, rewritten_for_sizes

# the same arithmetic in another order: far above what mixing up two samples would leave
_LEAST_DB = 40.0
_MOST_SAMPLES = 5


def with_free_batch(served: Served, folder: Path) -> tuple[Served, str]:
    """The same engine with its batch dimension free, written into an existing folder, and "".

    One that was rewritten for its fixed batch is compiled from the graph before that, if the bundle
    keeps it. Where that can't be shown to be right, the engine as it is and why: a graph may hold
    its batch size in a Reshape, or mix the samples of a batch.
    """
    if served.free_batch:
        return served, ""
    if served.libraries:
        return served, "it has plugin kernels, whose code isn't run while packaging"
    if any(not s.shape or s.shape[0] != 1 for s in (*served.inputs, *served.outputs)):
        return served, "not every input and output has a batch of 1 in front"
    samples = _samples(served)
    if not samples:
        return served, "the bundle has no two stored samples to prove it on"
    core = _core()
    plain, why = graph_of_any_size(served), ""
    for graph in (None,) if plain is None else (plain, None):
        why = _freed_engine(core, served, graph, samples, folder)
        if not why:
            break
    else:
        return served, why
    sized = rewritten_for_sizes(served) if graph is None else []
    files = {part: folder / part for part in ("model.xml", "model.bin")}
    inputs, outputs = (tuple(_freed(s) for s in specs) for specs in (served.inputs, served.outputs))
    return replace(served, inputs=inputs, outputs=outputs, files=files, sized=tuple(sized)), ""


def slow_when_free(served: Served) -> list[str]:
    """A note where a freed engine is still rewritten for its fixed batch; it says what to do."""
    if not served.sized:
        return []
    note = (
        f"the engine was rewritten for a batch of 1 ({', '.join(served.sized)}) and is slower with "
        "a free one; for requests of any batch build it with --batch dynamic"
    )
    return [note]


def _freed_engine(
    core: Any,
    served: Served,
    plain: Model | None,
    samples: list[dict[str, np.ndarray]],
    folder: Path,
) -> str:
    """Write the shipped engine, or that graph, with a free batch into the folder; "", or why it
    can't be shown to be right."""
    import openvino as ov

    try:
        freed = core.read_model(served.files["model.xml"] if plain is None else plain.serialized)
        own = _names(freed, plain)
        freed.reshape({port: [-1, *list(port.get_partial_shape())[1:]] for port in freed.inputs})
        reason = _changed_shape(freed, served)
    except RuntimeError as error:
        return f"OpenVINO can't free its batch ({one_line(error, 120)})"
    reason = reason or _changed_numbers(core, freed, served, samples)
    if not reason:
        _steady_names(freed, served, own)
        half = plain is not None and served.precision == "fp16"
        ov.save_model(freed, folder / "model.xml", compress_to_fp16=half)
    return reason


def _names(engine: Any, plain: Model | None) -> set[str]:
    """The names that aren't OpenVINO's own numbering: the shipped engine's, or the graph's."""
    if plain is None:
        return {node.get_friendly_name() for node in engine.get_ordered_ops()}
    graph = plain.proto.graph
    values = [*graph.input, *graph.output, *graph.initializer, *graph.node]
    return {v.name for v in values} | {o for node in graph.node for o in node.output}


def _freed(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.dtype, (None, *spec.shape[1:]))


def _samples(served: Served) -> list[dict[str, np.ndarray]]:
    """Stored samples one by one, at least two; empty where they don't fit the inputs."""
    path = served.bundle.folder / "parity" / "samples.npz"
    if not path.is_file():
        return []
    array_shapes(path)
    with np.load(path, allow_pickle=False) as arrays:
        found = {spec.name: arrays[spec.name] for spec in served.inputs if spec.name in arrays}
    fitting = len(found) == len(served.inputs) and all(
        x.ndim == len(s.shape) and x.shape[1:] == s.shape[1:] and x.dtype == s.dtype
        for s, x in ((s, found[s.name]) for s in served.inputs)
    )
    count = min((len(x) for x in found.values()), default=0)
    if not fitting or count < 2:
        return []
    kept = range(min(count, _MOST_SAMPLES))
    return [{name: x[i : i + 1] for name, x in found.items()} for i in kept]


def _changed_shape(freed: Any, served: Served) -> str:
    for spec in served.outputs:
        got = freed.output(spec.name).get_partial_shape()
        rest = [None if d.is_dynamic else d.get_length() for d in list(got)[1:]]
        if not got[0].is_dynamic or tuple(rest) != spec.shape[1:]:
            return f"its output {spec.name} would have shape {got.to_string()}"
    return ""


def _changed_numbers(
    core: Any, freed: Any, served: Served, samples: list[dict[str, np.ndarray]]
) -> str:
    """Whether a batch of samples gives what the shipped engine gives one by one, in float32."""
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    try:
        own = core.compile_model(core.read_model(served.files["model.xml"]), "CPU", exact)
        batched = core.compile_model(freed, "CPU", exact)
        together = {name: np.concatenate([s[name] for s in samples]) for name in samples[0]}
        got = batched(together)
        rows = [own(sample) for sample in samples]
        for spec in served.outputs:
            wanted = np.concatenate([np.array(row[spec.name]) for row in rows])
            db = _sqnr_db(wanted, np.array(got[spec.name]))
            if db < _LEAST_DB:
                return f"a batch gives other numbers for {spec.name} ({db:.0f} dB)"
    except RuntimeError as error:
        return f"it doesn't run with a batch ({one_line(error, 120)})"
    return ""


def _sqnr_db(wanted: np.ndarray, got: np.ndarray) -> float:
    if wanted.shape != got.shape:
        return -np.inf
    exact, error = wanted.astype(np.float64), got.astype(np.float64) - wanted.astype(np.float64)
    noise, signal = float(np.sum(error**2)), float(np.sum(exact**2))
    if noise == 0:
        return np.inf
    return float(10 * np.log10(signal / noise)) if signal else -np.inf


def _steady_names(model: Any, served: Served, own: set[str]) -> None:
    """The same bytes every time, and one name per input and output: a server takes the first.

    own: names that the shipped engine has; OpenVINO numbers those it adds as it goes.
    """
    for index, node in enumerate(model.get_ordered_ops()):
        if node.get_friendly_name() not in own:
            node.set_friendly_name(f"{node.get_type_name()}_free_batch_{index}")
    for spec in served.inputs:
        model.input(spec.name).get_tensor().set_names({spec.name})
    for spec in served.outputs:
        model.output(spec.name).get_tensor().set_names({spec.name})


def _core() -> Any:
    try:
        import openvino as ov
    except ImportError as error:
        raise MissingBackendError(
            f"OpenVINO isn't installed ({error}); pip install openvino"
        ) from None
    return ov.Core()
