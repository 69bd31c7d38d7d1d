"""ONNX's own backend suite: simplify and every fusion leave each case that ONNX Runtime can run
with the same outputs, and the others are refused in one line.

The cases ship inside the `onnx` package; nothing is downloaded. The values fed are the case's own.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fusion_orders import every_fusion
from onnx import numpy_helper

from deploy.artifacts.model import Model
from deploy.backends import reference
from deploy.errors import DeployError
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.simplify import seeded_feeds, simplify

pytestmark = pytest.mark.slow

RELATIVE = 1e-5
# two units in the last place: a graph that computes in float16 rounds each inner value to it
RELATIVE_HALF = 2e-3
FUSIONS = every_fusion()
# what ONNX Runtime runs and this project doesn't: none, and a new one has to be looked at
REFUSED: set[str] = set()
# how many cases there are at least: a loader that finds none must not pass
KINDS = {"node": 1500, "simple": 20, "pytorch-converted": 80, "pytorch-operator": 30, "real": 8}
# 240 to 575 MB of constant weights around a few plain layers: they pass as well, in one to two
# minutes and 3 to 7 GB each; this variable, set to anything, runs them
LARGE = ("test_vgg19", "test_bvlc_alexnet", "test_zfnet512")
RUN_LARGE = "ONNX_SUITE_LARGE"
Values = list[Any]


@dataclass(frozen=True)
class Case:
    """A model file with what to feed it and what its author expects (empty where unknown)."""

    name: str
    path: Path
    fed: Values
    expected: Values
    rtol: float


@dataclass
class Tally:
    """What became of every case; all but those that passed with the reason, in one line."""

    cases: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, outcome: str, name: str, reason: object = "") -> None:
        self.cases[outcome].append(f"{name}: {reason}" if reason else name)

    def text(self, kind: str) -> str:
        counts = ", ".join(f"{len(names)} {outcome}" for outcome, names in self.cases.items())
        silent = ("passed",)
        rows = [f"{o}: {n}" for o, names in self.cases.items() for n in names if o not in silent]
        return "\n  ".join([f"{kind}: {counts}", *(row[:220] for row in rows)])


@pytest.mark.parametrize("kind", KINDS)
def test_every_case_keeps_its_outputs_or_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally = Tally()
    for case in cases(kind, tmp_path):
        if case.name in LARGE and RUN_LARGE not in os.environ:
            tally.add("left out", case.name, f"too large; {RUN_LARGE}=1 runs it")
            continue
        try:
            outcome, reason = judged(case)
        # anything at all that is not a DeployError is a failure, with the case's name
        except Exception as error:
            outcome, reason = "FAILED", f"{type(error).__name__}: {error}"
        tally.add(outcome, case.name, reason)
    with capsys.disabled():
        print(f"\n{tally.text(kind)}")
    assert sum(map(len, tally.cases.values())) >= KINDS[kind]
    assert not tally.cases["FAILED"]
    assert {row.split(":")[0] for row in tally.cases["refused"]} == REFUSED


def judged(case: Case) -> tuple[str, str]:
    """What became of one case, and why; AssertionError where it computes something else."""
    source = read(case.path)
    feeds = dict(zip(inputs_of(source), case.fed, strict=False)) if case.fed else None
    try:
        feeds = feeds or seeded_feeds(source.inputs)
        before, again = (run(source, feeds) for _ in range(2))
    except CannotRunError as error:
        return refused(case, source, feeds, str(error))
    try:
        after = run(through_the_line(source, feeds), feeds)
    except DeployError as error:
        assert "\n" not in str(error)
        return "refused", str(error)
    for first, second, got in zip(parts(before), parts(again), parts(after), strict=True):
        rtol = RELATIVE_HALF if np.asarray(first).dtype == np.float16 else RELATIVE
        assert_close(first, got, rtol, random=not same(first, second))
    return "passed", ""


def parts(values: Values) -> Values:
    """Every tensor in these outputs, sequences taken apart and their lengths put in front."""
    found: Values = []
    for value in values:
        found += [len(value), *parts(value)] if isinstance(value, list) else [value]
    return found


def refused(
    case: Case, source: Model, feeds: dict[str, Any] | None, reason: str
) -> tuple[str, str]:
    """A case that ONNX Runtime can't run as it is: one line, or (an old opset, converted) the
    outputs that its author expects."""
    try:
        got = reference.build(through_the_line(source, feeds or {})).run(feeds or {})
    except DeployError as error:
        assert "\n" not in str(error)
        return "not runnable and refused", str(error)
    for wanted, value in zip(case.expected, got.values(), strict=True):
        assert_close(wanted, value, case.rtol)
    return "runs only after load", reason


def through_the_line(source: Model, feeds: dict[str, Any]) -> Model:
    """Loaded, simplified and fused; open dimensions are those of the values fed."""
    try:
        loaded = load(source)
    except DeployError as error:
        if "dynamic dimension" not in str(error):
            raise
        known = {spec.name for spec in source.inputs}
        shapes = {n: tuple(d or None for d in np.shape(v)) for n, v in feeds.items() if n in known}
        loaded = load(source, shapes)
    return fuse(simplify(loaded), FUSIONS)


class CannotRunError(Exception):
    """ONNX Runtime can't run the model; the text says why."""


def run(model: Model, feeds: dict[str, Any]) -> Values:
    """What ONNX Runtime gives, sequences and other values no engine takes included."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(
            model.serialized, options, providers=["CPUExecutionProvider"]
        )
        return list(session.run(None, feeds))
    # ONNX Runtime's exceptions share no base class of their own
    except Exception as error:
        raise CannotRunError(" ".join(str(error).split())) from None


def inputs_of(model: Model) -> list[str]:
    weights = {w.name for w in model.proto.graph.initializer}
    return [v.name for v in model.proto.graph.input if v.name not in weights]


def same(first: Any, second: Any) -> bool:
    first, second = np.asarray(first), np.asarray(second)
    return np.array_equal(first, second, equal_nan=first.dtype.kind == "f")


def assert_close(expected: Any, got: Any, rtol: float, *, random: bool = False) -> None:
    """Equal to round-off of the largest value; of random numbers only shape and type count."""
    expected, got = np.asarray(expected), np.asarray(got)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    if random or same(expected, got):
        return
    assert expected.dtype.kind in "fiub", "other values have to be the same"
    wide, other = expected.astype(np.float64), got.astype(np.float64)
    scale = np.abs(wide, where=np.isfinite(wide), out=np.zeros_like(wide)).max()
    np.testing.assert_allclose(other, wide, rtol=rtol, atol=rtol * scale, equal_nan=True)


def cases(kind: str, folder: Path) -> Iterator[Case]:
    """The suite's cases of one kind, their models as files."""
    # the cases compute their expected values as they are imported, overflows included
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test import loader

        found = sorted(loader.load_model_tests(kind=kind), key=lambda case: case.name)
    for case in found:
        if case.model is not None:
            path = folder / f"{case.name}.onnx"
            onnx.save(case.model, path)
            fed, expected = ([value_of(v) for v in part] for part in case.data_sets[0])
        elif case.model_dir:
            path = Path(case.model_dir) / "model.onnx"
            samples = path.parent / "test_data_set_0"
            fed, expected = (stored(samples, part) for part in ("input", "output"))
        else:
            path = Path(loader.DATA_DIR) / "light" / Path(case.url).name
            fed, expected = [], []
        yield Case(case.name, path, fed, expected, case.rtol)


def value_of(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if value is None or isinstance(value, Sequence) else np.asarray(value)


def stored(folder: Path, part: str) -> Values:
    files = sorted(folder.glob(f"{part}_*.pb"), key=lambda file: int(file.stem.split("_")[1]))
    found = []
    for file in files:
        tensor = onnx.TensorProto()
        tensor.ParseFromString(file.read_bytes())
        found.append(numpy_helper.to_array(tensor))
    return found
