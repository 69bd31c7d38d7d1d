"""The work folder: what is reused, what is made again, and what an interruption leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.errors import RecipeError
from deploy.work import Work, tool_versions

TOOLS = {"onnx": "1.18"}


class Maker:
    """Counts how often it was asked, and writes two files."""

    def __init__(self, content: str = "made") -> None:
        self.calls = 0
        self.content = content

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        assert list(folder.iterdir()) == []
        (folder / "a.txt").write_text(self.content, encoding="utf-8")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.txt").write_text("b", encoding="utf-8")


def staged(
    root: Path, make: Callable[[Path], None], key: object = 1, tools: dict[str, str] = TOOLS
) -> tuple[Path, bool]:
    with Work(root, tools) as work:
        return work.stage("load", {"key": key}, make)


def test_a_finished_stage_is_reused(tmp_path: Path) -> None:
    make = Maker()
    first, was_there = staged(tmp_path / "w", make)
    second, again = staged(tmp_path / "w", make)
    assert (was_there, again, make.calls) == (False, True, 1)
    assert first == second
    assert first.name.startswith("load-")
    assert (first / "a.txt").read_text(encoding="utf-8") == "made"


def test_the_record_says_what_it_was_made_from(tmp_path: Path) -> None:
    folder, _ = staged(tmp_path / "w", Maker())
    record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    assert {k: record[k] for k in ("stage", "key", "tools")} == {
        "stage": "load",
        "key": {"key": 1},
        "tools": TOOLS,
    }
    assert sorted(record["files"]) == ["a.txt", "sub/b.txt"]


@pytest.mark.parametrize(("key", "tools"), [(2, TOOLS), (1, {"onnx": "1.19"})], ids=["key", "tool"])
def test_another_key_or_tool_is_another_stage(
    tmp_path: Path, key: int, tools: dict[str, str]
) -> None:
    make = Maker()
    first, _ = staged(tmp_path / "w", make)
    second, again = staged(tmp_path / "w", make, key, tools)
    assert (again, make.calls) == (False, 2)
    assert first != second


def damage_changed(folder: Path) -> None:
    (folder / "a.txt").write_text("Made", encoding="utf-8")


def damage_missing(folder: Path) -> None:
    (folder / "sub" / "b.txt").unlink()


def damage_no_record(folder: Path) -> None:
    (folder / "stage.json").unlink()


def damage_record(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "stage.json").write_text(text, encoding="utf-8") and None


@pytest.mark.parametrize(
    "damage",
    [
        damage_changed,
        damage_missing,
        damage_no_record,
        *(damage_record(t) for t in ("{", "[]", '{"files": []}', '{"files": 3}', "{}", '""')),
    ],
)
def test_a_damaged_stage_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make = Maker()
    folder, _ = staged(tmp_path / "w", make)
    damage(folder)
    again, reused = staged(tmp_path / "w", make)
    assert (again, reused, make.calls) == (folder, False, 2)
    assert (folder / "a.txt").read_text(encoding="utf-8") == "made"
    assert staged(tmp_path / "w", make)[1]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_frees_the_folder(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise error

    with pytest.raises(error):
        staged(tmp_path / "w", fail)
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["onnx-deploy.lock"]
    make = Maker()
    assert not staged(tmp_path / "w", make)[1]


def test_a_held_lock_is_refused_and_then_free(tmp_path: Path) -> None:
    with Work(tmp_path / "w", TOOLS) as work:
        work.stage("load", {}, Maker())
        with (
            pytest.raises(RecipeError, match="w: another build is working here; wait for it or"),
            Work(tmp_path / "w", TOOLS, fresh=True),
        ):
            pass
        assert len(list((tmp_path / "w").glob("load-*"))) == 1, "fresh cleared another's work"
    with Work(tmp_path / "w", TOOLS):
        pass


def test_fresh_forgets_what_was_finished(tmp_path: Path) -> None:
    make = Maker()
    staged(tmp_path / "w", make)
    with Work(tmp_path / "w", TOOLS, fresh=True) as work:
        assert [p.name for p in (tmp_path / "w").iterdir()] == ["onnx-deploy.lock"]
        assert not work.stage("load", {"key": 1}, make)[1]
    assert make.calls == 2


def test_tidy_keeps_only_what_this_build_used(tmp_path: Path) -> None:
    old, _ = staged(tmp_path / "w", Maker(), 1)
    (tmp_path / "w" / ".load-0000.ab12.partial").mkdir()
    (tmp_path / "w" / "mydata").mkdir()
    with Work(tmp_path / "w", TOOLS) as work:
        new, _ = work.stage("load", {"key": 2}, Maker())
        reused, _ = work.stage("load", {"key": 2}, Maker())
        work.tidy()
    assert new == reused
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == sorted(
        ["onnx-deploy.lock", "mydata", new.name]
    )
    assert not old.exists()


def test_a_folder_of_the_users_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "w" / "mydata").mkdir(parents=True)
    with pytest.raises(RecipeError, match="w: holds 'mydata', which no build made"):
        staged(tmp_path / "w", Maker())
    assert [p.name for p in (tmp_path / "w").iterdir()] == ["mydata"]


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"")
    with pytest.raises(RecipeError, match="w: File exists; give another -o"):
        staged(tmp_path / "w", Maker())
    with pytest.raises(RecipeError, match="Not a directory; give another -o"):
        staged(tmp_path / "w" / "deeper", Maker())


def test_tool_versions_name_every_tool_and_the_code() -> None:
    versions = tool_versions()
    assert {"onnx", "onnxruntime", "onnxslim", "openvino", "numpy", "python"} <= set(versions)
    assert len(versions["code"]) == 16
    assert versions == tool_versions()
