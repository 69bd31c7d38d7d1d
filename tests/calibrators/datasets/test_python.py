"""What is special about samples from a user's function."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from calibrators.datasets import python
from calibrators.samples import DatasetSpec
from calibrators.truths import Text

ITEM = "{'x': np.ones((3, 4, 6), np.float32)}"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """write(body of the module) -> its name; each test's module has its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    module = f"user_{tmp_path.name}"

    def _write(body: str) -> str:
        text = "import numpy as np\n" + textwrap.dedent(body)
        (tmp_path / f"{module}.py").write_text(text)
        return module

    return _write


def test_labels_splits_names_and_numbers(write: Callable[[str], str], spec: DatasetSpec) -> None:
    module = write("""
        def samples():
            return [
                {'x': np.full((3, 4, 6), 2.0), 'label': np.int32(5), 'split': 'test'},
                {'x': np.full((1, 3, 4, 6), 3, np.float32), 'extra': None},
            ]
    """)
    data = python.open(f"python:{module}:samples", spec)
    assert list(data.splits) == ["test", None]
    got = list(data.read([0, 1]))
    assert [(s.name, s.label, s.split) for s in got] == [
        (f"{module}:samples[0]", 5, "test"),
        (f"{module}:samples[1]", None, None),
    ]
    assert [s.feeds["x"][0, 2, 3, 5] for s in got] == [2, 3]


def test_keys_map_inputs_and_labels(write: Callable[[str], str], spec: DatasetSpec) -> None:
    module = write(f"samples = lambda: [dict(image={ITEM}['x'], answer=3, label='cat')]")
    mapped = replace(spec, keys={"x": "image", "labels": "answer"})
    (sample,) = python.open(f"python:{module}:samples", mapped).read([0])
    assert sample.label == 3


def test_a_buffer_used_again_does_not_change_earlier_samples(
    write: Callable[[str], str], spec: DatasetSpec
) -> None:
    module = write("""
        def samples():
            x = np.zeros((3, 4, 6), np.float32)
            for i in range(3):
                x[:] = i
                yield {'x': x}
    """)
    got = list(python.open(f"python:{module}:samples", spec).read([0, 1, 2]))
    assert [s.feeds["x"][0, 0, 0, 0] for s in got] == [0, 1, 2]


def test_reading_stops_after_the_last_index(write: Callable[[str], str], spec: DatasetSpec) -> None:
    module = write(f"""
        made = []
        def samples():
            for i in range(4):
                made.append(i)
                yield {ITEM}
    """)
    data = python.open(f"python:{module}:samples", spec)
    made = sys.modules[module].made
    assert made == [0, 1, 2, 3]
    made.clear()
    list(data.read([0, 1]))
    assert made == [0, 1]
    made.clear()
    assert list(data.read([])) == [] and made == []


@pytest.mark.parametrize(
    "uri", ["python:a", "python:a:", "python::f", "python:a:b:c", "python:.a:f"]
)
def test_bad_uris(uri: str, spec: DatasetSpec) -> None:
    with pytest.raises(ValueError, match=r"'python:.*' has another form than python:module:func"):
        python.open(uri, spec)


def test_a_module_that_is_not_there(write: Callable[[str], str], spec: DatasetSpec) -> None:
    write("")
    reason = r"No module named 'no_such_module'.*importing 'no_such_module'; .*looked for in /"
    with pytest.raises(ValueError, match=reason):
        python.open("python:no_such_module:f", spec)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import no_such_dependency", r"No module named 'no_such_dependency', on importing 'user_"),
        ("raise ImportError", r"ImportError, on importing 'user_"),
        ("def samples(:", r"invalid syntax.*, on importing 'user_"),
        ("def sample(): pass", r"no function 'samples' in .*\.py; nearest: 'sample'"),
        ("samples = 3", r"no function 'samples' in .*\.py; it has no function"),
        ("def samples(root): pass", r"samples\(root\) in .*\.py takes arguments"),
        ("def samples(): pass", r"NoneType from user_.*:samples is not iterable"),
        ("def samples(): return []", r"0 items from user_.*:samples; yield at least one"),
        ("def samples(): yield np.ones(3)", r"ndarray from user_.*:samples, item 0; expected a d"),
        (f"def samples(): yield {ITEM} | dict(split=3)", r"split 3 of .*\[0\]; allowed: a string"),
    ],
)
def test_functions_that_are_refused_when_opened(
    write: Callable[[str], str], spec: DatasetSpec, body: str, reason: str
) -> None:
    module = write(body)
    with pytest.raises(ValueError, match=reason) as caught:
        python.open(f"python:{module}:samples", spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("{'X': 1}", r"keys X in user_.*\[0\], none is 'x'; nearest is 'X'"),
        ("{'x': [1.0]}", r"list for key 'x' of user_.*\[0\]; expected a NumPy array"),
        (f"{ITEM} | dict(label=-1)", r"label -1 at user_.*\[0\]; allowed: an integer >= 0"),
        (f"{ITEM} | dict(label=True)", r"label True at"),
        (f"{ITEM} | dict(label=np.ones(2))", r"label .* at user_"),
        ("{'x': np.ones((3, 4, 5), np.float32)}", r"shape \[3, 4, 5\] at key 'x' of user_.*\[0\]"),
        ("{'x': np.full((3, 4, 6), np.nan)}", r"nan at key 'x' of user_.*\[0\], element"),
        ("{'x': np.ones((4, 6, 3), np.uint8)}", r"uint8 values at key 'x' .*--scale, --mean"),
    ],
)
def test_items_that_are_refused_when_read(
    write: Callable[[str], str], spec: DatasetSpec, item: str, reason: str
) -> None:
    data = python.open(f"python:{write(f'def samples(): yield {item}')}:samples", spec)
    with pytest.raises(ValueError, match=reason):
        list(data.read([0]))


def test_fewer_and_more_items_on_the_second_pass(
    write: Callable[[str], str], spec: DatasetSpec
) -> None:
    module = write(f"""
        counts = [2, 1, 3]
        def samples():
            return [{ITEM}] * counts.pop(0)
        once = iter([{ITEM}] * 2)
        def used_up():
            return once
    """)
    data = python.open(f"python:{module}:samples", spec)
    with pytest.raises(ValueError, match=r"1 items from .*:samples, 2 when it was opened"):
        list(data.read([0, 1]))
    with pytest.raises(ValueError, match=r"over 2 items from .*:samples, 2 when it was opened"):
        list(data.read([0, 1]))
    data = python.open(f"python:{module}:used_up", spec)
    with pytest.raises(ValueError, match=r"0 items from .*:used_up, 2 when it was opened"):
        list(data.read([0]))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            "def samples(): raise KeyError('theirs')",
            r"KeyError: 'theirs', in user_.*:samples; mend",
        ),
        ("def samples():\n    yield {}\n    1 / 0", r"ZeroDivisionError: .*, in user_.*:samples"),
        ("def samples(): raise SystemExit", r"SystemExit, in user_.*:samples; mend the function"),
        ("raise OSError('no\\ndisk')", r"OSError: no disk, on importing 'user_.*'; mend the mod"),
    ],
)
def test_the_users_own_exception_is_named(
    write: Callable[[str], str], spec: DatasetSpec, body: str, reason: str
) -> None:
    module = write(body)
    with pytest.raises(ValueError, match=reason) as caught:
        python.open(f"python:{module}:samples", spec)
    assert caught.value.__cause__ is not None  # what -v shows


def test_truths_come_along(write: Callable[[str], str], spec: DatasetSpec) -> None:
    module = write(f"""
        from calibrators.truths import Text
        samples = lambda: [dict({ITEM}, truth=Text("TOTAL")), {ITEM}]
    """)
    data = python.open(f"python:{module}:samples", spec)
    assert [sample.truth for sample in data.read([0, 1])] == [Text("TOTAL"), None]


def test_a_truth_of_another_type(write: Callable[[str], str], spec: DatasetSpec) -> None:
    module = write(f"samples = lambda: [dict({ITEM}, truth='TOTAL')]")
    data = python.open(f"python:{module}:samples", spec)
    with pytest.raises(ValueError, match=r"str for key 'truth' of .*\[0\]; allowed: Boxes"):
        list(data.read([0]))
