from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from deploy.metrics import Error
from deploy.on_device.device_error import DeviceError
from deploy.on_device.numbers_check import (
    ErrorSums,
    ParityData,
    compare_numbers,
    load_parity,
    number_gates,
    parity_runs,
)

INPUTS = [{"name": "x", "dtype": "float32", "shape": [1, 4]}]
random = np.random.default_rng(3)


def doubled(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"y": 2 * feeds["x"]}


def parity_data(count: int = 5, noise: float = 0.01) -> ParityData:
    x = random.standard_normal((count, 4)).astype(np.float32)
    host = 2 * x + noise * random.standard_normal((count, 4)).astype(np.float32)
    return ParityData({"x": x}, {"y": 2 * x}, {"y": host})


@pytest.mark.parametrize(
    "pairs",
    [
        [(random.standard_normal((3, 5)), random.standard_normal((3, 5))) for _ in range(3)],
        [(np.ones((2, 2)), np.ones((2, 2)))],
        [(np.zeros(4), np.zeros(4))],
        [(np.zeros(4), np.ones(4))],
        [(np.ones(4), np.zeros(4))],
        [(np.ones((2, 2)), np.ones((2, 3)))],
        [(np.ones(3), np.array([1.0, np.nan, 1.0])), (np.ones(3), np.ones(3))],
        [(np.zeros((0, 3)), np.zeros((0, 3)))],
        [(np.float16([1, 2, 3]), np.float16([1, 2, 3.5]))],
    ],
)
def test_figures_are_the_hosts(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    ours, hosts = ErrorSums(), Error()
    for reference, candidate in pairs:
        ours.add(reference, candidate)
        hosts.add(reference, candidate)
    assert ours.sqnr_db == hosts.sqnr_db
    assert ours.cosine == hosts.cosine
    assert ours.max_abs == hosts.max_abs


def test_every_sample_counts() -> None:
    data = parity_data()
    found = compare_numbers(data, INPUTS, doubled)
    error = Error()
    error.add(data.simulated["y"], data.reference["y"])
    (row,) = found["outputs"]
    assert (found["samples"], row["sqnr_db"], row["max_abs"]) == (5, 200.0, 0.0)
    assert row["simulated_sqnr_db"] == pytest.approx(error.sqnr_db, abs=1e-9)


def test_one_wrong_sample_is_not_averaged_away() -> None:
    data = parity_data()

    def broken(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        bad = bool((feeds["x"] == data.samples["x"][3:4]).all())
        return {"y": np.full((1, 4), np.nan) if bad else 2 * feeds["x"]}

    (row,) = compare_numbers(data, INPUTS, broken)["outputs"]
    assert (row["sqnr_db"], row["cosine"], row["max_abs"]) == (-200.0, 0.0, 1e308)


def test_a_fixed_batch_is_filled_up() -> None:
    data, sizes = parity_data(5), []

    def fixed(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes.append(len(feeds["x"]))
        return doubled(feeds)

    inputs = [{"name": "x", "dtype": "float32", "shape": [2, 4]}]
    (row,) = compare_numbers(data, inputs, fixed)["outputs"]
    assert (sizes, row["sqnr_db"]) == ([2, 2, 2], 200.0)


def test_a_sample_without_batch_axis_is_fed_as_it_is() -> None:
    data = parity_data(3)
    inputs = [{"name": "x", "dtype": "float32", "shape": [4]}]
    runs = list(parity_runs(data, inputs))
    assert [run.feeds["x"].shape for run in runs] == [(4,)] * 3
    (row,) = compare_numbers(data, inputs, doubled)["outputs"]
    assert row["sqnr_db"] == 200.0


def test_a_scalar_beside_a_batch() -> None:
    x = random.standard_normal((4, 3)).astype(np.float32)
    data = ParityData({"x": x, "rate": np.float32([2, 2, 2, 2])}, {"y": 2 * x}, {"y": 2 * x})
    inputs = [{"name": "x", "shape": [2, 3]}, {"name": "rate", "shape": []}]
    (row,) = compare_numbers(data, inputs, lambda feeds: {"y": feeds["x"] * feeds["rate"]})[
        "outputs"
    ]
    assert row["sqnr_db"] == 200.0


def test_agreement_of_the_best_class() -> None:
    data = ParityData({"x": np.eye(4, dtype=np.float32)}, {"y": np.eye(4)}, {"y": np.eye(4)})

    def one_off(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.where(feeds["x"][:, :1] == 1, np.eye(4)[1:2], feeds["x"])}

    found = compare_numbers(data, INPUTS, one_off, "y")
    assert found["top1_agreement_pct"] == 75.0
    assert compare_numbers(data, INPUTS, one_off)["top1_agreement_pct"] is None


def test_gates_and_their_limits() -> None:
    data = parity_data(noise=0.02)
    found = compare_numbers(data, INPUTS, doubled, "y")
    host = found["outputs"][0]["simulated_sqnr_db"]
    wanted = {
        "min_sqnr_db": 30.0,
        "min_cosine": 0.999,
        "scores": "y",
        "min_agreement_pct": 100.0,
        "rounding_sqnr_db": {"y": host + 3.0},
    }
    gates = number_gates(found, wanted)
    assert [gate["passed"] for gate in gates] == [True] * 4
    wanted["rounding_sqnr_db"] = {"y": host + 3.1}
    missed = [gate for gate in number_gates(found, wanted) if not gate["passed"]]
    assert [gate["name"] for gate in missed] == ["SQNR of 'y' against the host's simulation (dB)"]
    assert missed[0]["limit"] == pytest.approx(host + 0.1)


def test_what_is_not_wanted_is_no_gate() -> None:
    found = compare_numbers(parity_data(), INPUTS, doubled)
    assert number_gates(found, {"min_sqnr_db": None, "rounding_sqnr_db": None}) == []


def test_a_missing_output_is_named() -> None:
    with pytest.raises(DeviceError, match="no output 'y', only z"):
        compare_numbers(parity_data(), INPUTS, lambda feeds: {"z": feeds["x"]})


def test_a_missing_input_is_named() -> None:
    inputs = [{"name": "image", "shape": [1, 4]}]
    with pytest.raises(DeviceError, match=r"samples\.npz has no input 'image', only x"):
        compare_numbers(parity_data(), inputs, doubled)


def test_files_that_do_not_fit_together(tmp_path: Path) -> None:
    for name, count in (("samples", 3), ("reference", 3), ("simulated", 2)):
        np.savez(tmp_path / f"{name}.npz", x=np.zeros((count, 2)))
    with pytest.raises(DeviceError, match=r"arrays with \[2, 3\] samples"):
        load_parity(tmp_path)
    (tmp_path / "reference.npz").write_bytes(b"PK\3\4 no archive")
    with pytest.raises(DeviceError, match=r"reference\.npz: unreadable"):
        load_parity(tmp_path)


@pytest.mark.parametrize("kind", ["U4", "S4", "complex64", "M8[s]"])
def test_arrays_that_hold_no_numbers(tmp_path: Path, kind: str) -> None:
    for name in ("samples", "reference", "simulated"):
        np.savez(
            tmp_path / f"{name}.npz", x=np.zeros((2, 2), kind if name == "reference" else "f4")
        )
    with pytest.raises(DeviceError, match=r"'x' is .*; build the bundle again on the host"):
        load_parity(tmp_path)


def test_a_simulation_of_other_outputs(tmp_path: Path) -> None:
    """Its gate would be passed over without a word."""
    for name, output in (("samples", "x"), ("reference", "y"), ("simulated", "z")):
        np.savez(tmp_path / f"{name}.npz", **{output: np.zeros((2, 2), np.float32)})
    with pytest.raises(DeviceError, match=r"reference has \['y'\], simulated \['z'\]"):
        load_parity(tmp_path)


def test_rounding_that_leaves_nothing_of_an_output_does_not_let_everything_pass() -> None:
    """±1 in every integer may cost all of a deep network's output; a wrong engine still fails."""
    wanted = {"rounding_sqnr_db": {"y": 2.5}, "simulated_sqnr_db": {"y": 22.0}}

    def passed(db: float) -> bool:
        row = {"name": "y", "sqnr_db": 20.0, "cosine": 0.9, "simulated_sqnr_db": db}
        (gate,) = number_gates({"outputs": [row], "top1_agreement_pct": None}, wanted)
        assert gate["limit"] == 16.0
        return bool(gate["passed"])

    assert passed(27.0)
    assert not passed(0.0)
