"""The inner tensors of an OpenVINO engine: its own graph cut open, compiled and run as it is run.

Every tensor that is given out ends a fusion, so kernels may differ from the whole engine's; what
each computes from given inputs is what it computes there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.errors import BuildError, one_line
from deploy.plugin.libraries import read

_XML, _IO = "model.xml", "engine.json"


def is_open(folder: Path) -> bool:
    """Whether the engine's graph lies there to be looked into."""
    return (folder / _XML).is_file()


def tensors(folder: Path) -> list[str]:
    """Names of the tensors in the engine's graph, those of inputs left out, in its order."""
    return list(_ports(_ir(folder)[1]))


def engine_steps(
    folder: Path,
    precision: str,
    names: Sequence[str],
    runs: Sequence[Mapping[str, np.ndarray]],
    values: Sequence[Mapping[str, np.ndarray]],
) -> list[dict[str, np.ndarray]]:
    """Per run, each named tensor as the engine makes it out of the given values of the others.

    precision: what its float layers compute in, as the engine's properties say: f32, bf16, f16.
    values: what each named tensor holds on those runs. Names the graph lacks are left out.
    """
    import openvino as ov
    import openvino.opset13 as ops

    core, ir = _ir(folder)
    ports = {name: port for name, port in _ports(ir).items() if name in set(names)}
    results, takes = [], []
    for name, port in ports.items():
        shape = list(values[0][name].shape)
        readers = [r for r in port.get_target_inputs() if r.get_node().get_type_name() != "Result"]
        if readers:
            given = ops.parameter(shape, port.get_element_type(), name=f"{name}//given")
            for reader in readers:
                reader.replace_source_output(given.output(0))
            takes.append((name, given))
        results.append(ops.result(port))
    own = [(next(iter(p.output(0).get_names())), p) for p in ir.get_parameters()]
    cut = ov.Model(results, [p for _, p in [*own, *takes]], "stepped")
    config = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    try:
        compiled = core.compile_model(cut, "CPU", config)
        found = []
        for feeds, held in zip(runs, values, strict=False):
            fed = [feeds[n] for n, _ in own] + [held[n] for n, _ in takes]
            out = compiled(fed)
            found.append({n: np.array(out[i]) for i, n in enumerate(ports)})
    except RuntimeError as error:
        raise BuildError(
            f"{folder}: OpenVINO can't run the engine's graph cut open: {one_line(error)}; its "
            "layers can't be judged one by one"
        ) from None
    return found


def _ir(folder: Path) -> tuple[Any, Any]:
    import openvino as ov

    core = ov.Core()
    try:
        described = json.loads((folder / _IO).read_text(encoding="utf-8"))
        for library in read(folder, described.get("libraries", [])):
            core.add_extension(str(library.file))
        return core, core.read_model(folder / _XML)
    except (OSError, RuntimeError, ValueError) as error:
        raise BuildError(f"{folder}: no OpenVINO engine ({one_line(error)})") from None


def _ports(ir: Any) -> dict[str, Any]:
    """Every computed float tensor that has a name -> where it comes out, in the graph's order."""
    found: dict[str, Any] = {}
    for node in ir.get_ordered_ops():
        if node.get_type_name() in ("Parameter", "Constant", "Result"):
            continue
        for port in node.outputs():
            if not port.get_element_type().is_real():
                continue
            for name in sorted(port.get_names()):
                found.setdefault(name, port)
                break
    return found
