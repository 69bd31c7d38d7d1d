"""The engine's outputs against the float32 model's and against the host's simulation of INT8.

The same figures, by the same formulas, as the host's parity (deploy/metrics.py).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from deploy.on_device.device_error import DeviceError

# what is reported for identical tensors, where the ratio is infinite
EQUAL_DB = 200.0
# how far below the figure for integers off by one an engine may fall: types and orders of sums
# that the host doesn't have
ROUNDING_MARGIN_DB = 3.0
# 3 dB for twice the noise, and 3 for what floats between the integers differ
TWO_ROUNDINGS_DB = 6.0
_LARGEST = 1e308  # JSON has no infinity


class ErrorSums:
    """Sums over all samples seen, in float64; every figure is derived from them.

    NaN or Inf on either side, or another shape, counts as infinitely wrong.
    """

    def __init__(self) -> None:
        self.signal = self.candidate = self.product = self.noise = self.max_abs = 0.0

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        """One more pair of tensors of equal shape."""
        finite = np.isfinite(reference).all() and np.isfinite(candidate).all()
        if reference.shape != candidate.shape or not finite:
            self.noise = self.max_abs = float("inf")
            return
        if reference.size == 0:
            return
        x = reference.astype(np.float64).reshape(-1)
        y = candidate.astype(np.float64).reshape(-1)
        gap = y - x
        self.signal += float(x @ x)
        self.candidate += float(y @ y)
        self.product += float(x @ y)
        self.noise += float(gap @ gap)
        self.max_abs = max(self.max_abs, float(np.abs(gap).max()))

    @property
    def sqnr_db(self) -> float:
        """10 log10(sum x^2 / sum (x - y)^2)."""
        if self.noise == 0:
            return EQUAL_DB
        if self.signal == 0 or not np.isfinite(self.noise):
            return -EQUAL_DB
        return float(np.clip(10 * np.log10(self.signal / self.noise), -EQUAL_DB, EQUAL_DB))

    @property
    def cosine(self) -> float:
        """sum xy / sqrt(sum x^2 sum y^2); 1 for two zero tensors."""
        if not np.isfinite(self.noise):
            return 0.0
        norm = np.sqrt(self.signal * self.candidate)
        if norm == 0:
            return 1.0 if self.noise == 0 else 0.0
        return float(np.clip(self.product / norm, -1.0, 1.0))


class Evaluate(Protocol):
    """The engine: all outputs by name for these feeds."""

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]: ...


class ParityData(NamedTuple):
    """Inputs, and what the float32 model and the simulation gave; samples along the first axis."""

    samples: Mapping[str, np.ndarray]
    reference: Mapping[str, np.ndarray]
    simulated: Mapping[str, np.ndarray]

    @property
    def total(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.samples.values())))

    def first(self, count: int) -> ParityData:
        """The first so many samples."""
        return ParityData(*({name: x[:count] for name, x in table.items()} for table in self))


def load_parity(folder: Path) -> ParityData:
    """The arrays of parity/; DeviceError when they don't fit together."""
    tables = []
    for name in ("samples", "reference", "simulated"):
        path = folder / f"{name}.npz"
        try:
            # given as a stream, a damaged file is closed too
            with path.open("rb") as stream:
                file = np.load(stream, allow_pickle=False)
                tables.append({key: file[key] for key in file.files})
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise DeviceError(f"{path}: unreadable ({error}); copy the folder again") from None
    counts = {len(x) if x.ndim else 0 for table in tables for x in table.values()}
    if len(counts) != 1 or 0 in counts or not all(tables):
        raise DeviceError(
            f"{folder}: arrays with {sorted(counts)} samples; build the bundle again on the host"
        )
    odd = [f"{n!r} is {x.dtype}" for table in tables for n, x in table.items() if not _is_real(x)]
    if set(tables[1]) != set(tables[2]):
        odd.append(f"reference has {sorted(tables[1])}, simulated {sorted(tables[2])}")
    if odd:
        raise DeviceError(f"{folder}: {odd[0]}; build the bundle again on the host")
    return ParityData(*tables)


def _is_real(x: np.ndarray) -> bool:
    return x.dtype.kind in "biuf"


class Runs(NamedTuple):
    """feeds: of one run of the engine; samples: the indices of those it holds, in order."""

    feeds: dict[str, np.ndarray]
    samples: Sequence[int]
    batch: int


def parity_runs(data: ParityData, inputs: Sequence[Mapping[str, Any]]) -> Iterator[Runs]:
    """The samples as the engine takes them: one by one, or as many as its fixed batch has.

    inputs: name and shape (None where free) per input, as the manifest lists them. A run that isn't
    full repeats its last sample.
    """
    for row in inputs:
        if row["name"] not in data.samples:
            raise DeviceError(
                f"parity/samples.npz has no input {row['name']!r}, only "
                f"{', '.join(data.samples)}; build the bundle again on the host"
            )
    batch = _fixed_batch(data, inputs)
    for start in range(0, data.total, batch):
        held = list(range(start, min(start + batch, data.total)))
        full = held + held[-1:] * (batch - len(held))
        feeds = {row["name"]: _fed(data.samples[row["name"]], row, full) for row in inputs}
        yield Runs(feeds, held, batch)


def _fixed_batch(data: ParityData, inputs: Sequence[Mapping[str, Any]]) -> int:
    """The first size that all inputs share whose samples are rows of a batch; else 1."""
    sliced = [row for row in inputs if data.samples[row["name"]].ndim == len(row["shape"])]
    first = {row["shape"][0] for row in sliced if row["shape"]}
    return int(first.pop() or 1) if len(first) == 1 else 1


def _fed(x: np.ndarray, row: Mapping[str, Any], held: Sequence[int]) -> np.ndarray:
    """Rows of an array of samples: as a batch, or a sample as it is where it has no batch axis."""
    picked = x[list(held)]
    whole = x.ndim == len(row["shape"]) + 1
    return np.ascontiguousarray(picked[0] if whole else picked)


def compare_numbers(
    data: ParityData,
    inputs: Sequence[Mapping[str, Any]],
    run: Evaluate,
    scores: str | None = None,
) -> dict[str, Any]:
    """Figures per output over all samples, and how often the best class is float32's.

    simulated_sqnr_db is the engine against the host's simulation. scores: the output with class
    scores. DeviceError when the engine lacks an output.
    """
    against_float: dict[str, ErrorSums] = {name: ErrorSums() for name in data.reference}
    against_host: dict[str, ErrorSums] = {name: ErrorSums() for name in data.simulated}
    agreed = 0
    for feeds, held, batch in parity_runs(data, inputs):
        got = run(feeds)
        for position, index in enumerate(held):
            for name, wanted in data.reference.items():
                row = _sample_row(_output(got, name), position, batch, wanted[index])
                against_float[name].add(wanted[index], row)
                if name in against_host:
                    against_host[name].add(data.simulated[name][index], row)
                if name == scores:
                    agreed += bool(np.argmax(row) == np.argmax(wanted[index]))
    return {
        "samples": data.total,
        "outputs": [_figures(name, sums, against_host) for name, sums in against_float.items()],
        "top1_agreement_pct": 100 * agreed / data.total if scores in against_float else None,
    }


def _output(got: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in got:
        raise DeviceError(
            f"the engine has no output {name!r}, only {', '.join(got)}; build the bundle again"
        )
    return got[name]


def _sample_row(x: np.ndarray, position: int, batch: int, like: np.ndarray) -> np.ndarray:
    """One sample of an output, in the shape the reference has it where sizes allow."""
    if batch > 1 and x.ndim and x.shape[0] == batch:
        x = x[position]
    return x.reshape(like.shape) if x.size == like.size else x


def _figures(name: str, sums: ErrorSums, host: Mapping[str, ErrorSums]) -> dict[str, Any]:
    return {
        "name": name,
        "sqnr_db": sums.sqnr_db,
        "cosine": sums.cosine,
        "max_abs": min(sums.max_abs, _LARGEST),
        "simulated_sqnr_db": host[name].sqnr_db if name in host else None,
    }


def number_gates(parity: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every threshold of the manifest's `parity` with what was observed.

    Against the simulation an output passes with ROUNDING_MARGIN_DB less than integers off by at
    most one give (rounding_sqnr_db). Where every integer off by one would leave nothing of the
    output, that says little: two engines whose rounding has nothing in common differ by twice the
    noise of one, so TWO_ROUNDINGS_DB less than the simulation's own SQNR is asked at the least.
    """
    gates = []
    rounding = wanted.get("rounding_sqnr_db") or {}
    for row in parity["outputs"]:
        name = row["name"]
        gates.append((f"SQNR of {name!r} (dB)", wanted.get("min_sqnr_db"), row["sqnr_db"]))
        gates.append((f"cosine of {name!r}", wanted.get("min_cosine"), row["cosine"]))
        limit = None
        if name in rounding:
            own = (wanted.get("simulated_sqnr_db") or {}).get(name, rounding[name])
            limit = max(rounding[name] - ROUNDING_MARGIN_DB, own - TWO_ROUNDINGS_DB)
        label = f"SQNR of {name!r} against the host's simulation (dB)"
        gates.append((label, limit, row["simulated_sqnr_db"]))
    label = f"top-1 agreement of {wanted.get('scores')!r} (%)"
    gates.append((label, wanted.get("min_agreement_pct"), parity["top1_agreement_pct"]))
    return [
        {"name": name, "limit": limit, "observed": observed, "passed": bool(observed >= limit)}
        for name, limit, observed in gates
        if limit is not None and observed is not None
    ]
