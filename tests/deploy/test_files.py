"""Files and folders that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from deploy.files import folder_aside, json_bytes, sha256_of, write_aside


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for content in (b"first, longer", b"second"):
        write_aside(tmp_path / "f.bin", content)
        assert tree(tmp_path) == {"f.bin": content}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_aside(tmp_path / "f.bin", b"old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_aside(tmp_path / "f.bin", b"new")
    assert tree(tmp_path) == {"f.bin": b"old"}


def test_a_full_disk_leaves_no_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_aside(tmp_path / "f.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    write_aside(tmp_path / "f.bin", b"old")
    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_aside(tmp_path / "f.bin", b"new")
    assert tree(tmp_path) == {"f.bin": b"old"}


def test_a_missing_folder_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_aside(tmp_path / "no" / "f.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def fill(folder: Path, content: str) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "a").write_text(content, encoding="utf-8")


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    with folder_aside(tmp_path / "deep" / "out") as aside:
        fill(aside, "new")
        assert not (tmp_path / "deep" / "out").exists()
    assert tree(tmp_path) == {"deep/out/sub/a": b"new"}


def test_a_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "stale").write_bytes(b"old")
    with folder_aside(tmp_path / "out") as aside:
        fill(aside, "new")
    assert tree(tmp_path) == {"out/sub/a": b"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_failure_in_the_block_leaves_the_old_folder(
    tmp_path: Path, error: type[BaseException]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_bytes(b"old")
    with pytest.raises(error), folder_aside(tmp_path / "out") as aside:
        fill(aside, "new")
        raise error
    assert tree(tmp_path) == {"out/kept": b"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_failure_in_the_swap_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").write_bytes(b"old")
    rename = Path.rename

    def fail_into_place(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            full_disk()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_into_place)
    with pytest.raises(OSError, match="No space left"), folder_aside(tmp_path / "out") as aside:
        fill(aside, "new")
    assert tree(tmp_path) == {"out/kept": b"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_what_has_a_name_like_ours_is_left_alone(tmp_path: Path) -> None:
    for name in ("out.partial", "out.old", "f.txt.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis").write_bytes(b"kept")
    (tmp_path / "out").mkdir()
    with folder_aside(tmp_path / "out") as aside:
        assert list(aside.iterdir()) == []
    write_aside(tmp_path / "f.txt", b"new")
    assert tree(tmp_path) == {
        "f.txt": b"new",
        **{f"{n}/thesis": b"kept" for n in ("out.partial", "out.old", "f.txt.partial")},
    }


def test_a_folder_is_filled_where_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with folder_aside(tmp_path / "out", within=tmp_path / "work") as aside:
        assert aside.parent == tmp_path / "work"
        fill(aside, "new")
    assert list((tmp_path / "work").iterdir()) == []
    assert (tmp_path / "out").is_dir()


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        write_aside(tmp_path / "no" / "f.txt", b"new")
    assert missing.value.filename == str(tmp_path / "no" / "f.txt")
    with pytest.raises(IsADirectoryError) as folder:
        write_aside(tmp_path, b"new")
    assert folder.value.filename == str(tmp_path)


def test_json_is_stable_and_ends_in_a_newline() -> None:
    assert json_bytes({"b": [1], "a": "é"}) == json_bytes({"a": "é", "b": [1]})
    assert json_bytes({"b": 1, "a": 2}) == b'{\n "a": 2,\n "b": 1\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_is_not_json(value: float) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        json_bytes({"a": value})


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 17])
def test_a_hash_is_of_the_whole_file(tmp_path: Path, size: int) -> None:
    content = bytes(i % 251 for i in range(size))
    (tmp_path / "f").write_bytes(content)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(content).hexdigest()
