"""What is special about folders of .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrators.datasets import npz_folder
from calibrators.samples import DatasetSpec


def fill(folder: Path, **counts: int) -> None:
    for name, count in counts.items():
        x = np.full((count, 3, 4, 6), ord(name), np.float32)
        x[:, 0, 0, 0] = range(count)
        y = np.arange(count) + ord(name)
        np.savez(folder / f"{name}.npz", x=x, y=y, split=np.array([name] * count))


def test_files_by_name_samples_in_order(tmp_path: Path, spec: DatasetSpec) -> None:
    fill(tmp_path, b=1, c=2, a=3)
    data = npz_folder.open(str(tmp_path), spec)
    assert list(data.splits) == ["a", "a", "a", "b", "c", "c"]
    got = list(data.read([0, 2, 3, 5]))
    assert [s.name for s in got] == ["a.npz[0]", "a.npz[2]", "b.npz[0]", "c.npz[1]"]
    assert [s.label for s in got] == [97, 99, 98, 100]
    assert [s.feeds["x"][0, 0, 0, 0] for s in got] == [0, 2, 0, 1]
    assert [s.feeds["x"][0, 2, 3, 5] for s in got] == [97, 97, 98, 99]


def test_samples_are_checked_when_their_file_is_read(tmp_path: Path, spec: DatasetSpec) -> None:
    fill(tmp_path, a=1)
    np.savez(tmp_path / "b.npz", x=np.full((2, 3, 4, 6), np.nan, np.float32))
    reading = npz_folder.open(str(tmp_path), spec).read([0, 1])
    assert next(reading).name == "a.npz[0]"
    with pytest.raises(ValueError, match=r"nan at key 'x' of b\.npz\[0\]"):
        next(reading)


def test_a_broken_part_is_named_when_opened(tmp_path: Path, spec: DatasetSpec) -> None:
    fill(tmp_path, a=1)
    (tmp_path / "b.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"unreadable .*b\.npz"):
        npz_folder.open(str(tmp_path), spec)


def test_a_folder_without_npz_is_neither_accepted_nor_opened(
    tmp_path: Path, spec: DatasetSpec
) -> None:
    assert not npz_folder.accepts(str(tmp_path))
    with pytest.raises(ValueError, match=r"0 \.npz files in .*; put at least one in"):
        npz_folder.open(str(tmp_path), spec)
