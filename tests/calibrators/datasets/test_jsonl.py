"""Lines of token ids, pairs with scores, padding, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibrators.datasets import jsonl
from calibrators.samples import DatasetSpec, InputSpec, Sample, evenly_spaced
from calibrators.truths import PairScore

I64 = np.dtype(np.int64)


def spec(length: int | None = None, **keys: str) -> DatasetSpec:
    names = ("input_ids", "attention_mask", "token_type_ids")
    return DatasetSpec(tuple(InputSpec(n, (None, length), I64) for n in names), keys=keys)


def samples(path: Path, text: str, wanted: DatasetSpec) -> list[Sample]:
    path.write_text(text)
    data = jsonl.open(str(path), wanted)
    return list(data.read(range(len(data.splits))))


def test_what_a_line_lacks_is_filled(tmp_path: Path) -> None:
    text = '{"input_ids": [5, 6, 7], "label": 2, "split": "test"}\n\n{"input_ids": [8]}\n'
    one, two = samples(tmp_path / "t.jsonl", text, spec())
    assert one.feeds["input_ids"].tolist() == [[5, 6, 7]]
    assert one.feeds["attention_mask"].tolist() == [[1, 1, 1]]
    assert one.feeds["token_type_ids"].tolist() == [[0, 0, 0]]
    assert {x.dtype for x in one.feeds.values()} == {I64}
    assert (one.label, one.split, one.truth) == (2, "test", None)
    assert (two.name, two.feeds["input_ids"].tolist()) == ("t.jsonl[2]", [[8]])


def test_tokens_are_padded_to_a_fixed_length(tmp_path: Path) -> None:
    (one,) = samples(tmp_path / "t.jsonl", '{"input_ids": [5, 6, 7]}', spec(5))
    assert one.feeds["input_ids"].tolist() == [[5, 6, 7, 0, 0]]
    assert one.feeds["attention_mask"].tolist() == [[1, 1, 1, 0, 0]]


PAIRS = "".join(f'{{"ids_a": [{i}, 1], "ids_b": [{i}, 2], "score": {i / 2}}}\n' for i in range(10))


def test_a_line_with_a_score_is_two_samples(tmp_path: Path) -> None:
    found = samples(tmp_path / "t.jsonl", PAIRS, spec(input_ids="ids"))
    assert len(found) == 20
    assert [s.name for s in found[:2]] == ["t.jsonl[0].a", "t.jsonl[1].a"]
    assert found[10].name == "t.jsonl[0].b"
    assert found[3].feeds["input_ids"].tolist() == [[3, 1]]
    assert found[13].feeds["input_ids"].tolist() == [[3, 2]]
    assert found[3].truth == found[13].truth == PairScore("t.jsonl[3]", 1.5)


@pytest.mark.parametrize("count", [2, 6, 8, 14])
def test_evenly_spaced_samples_are_whole_pairs(tmp_path: Path, count: int) -> None:
    found = samples(tmp_path / "t.jsonl", PAIRS, spec(input_ids="ids"))
    chosen = [found[i].truth for i in evenly_spaced(range(20), count)]
    assert all(chosen.count(truth) == 2 for truth in chosen)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", r"0 lines in .*t\.jsonl"),
        ("[1]", r"list in .*t\.jsonl line 1; a line is an object"),
        ('{"input_ids": [1]}\n{', r"in .*t\.jsonl line 2; write JSON"),
        ('{"inputs": [1]}', r"keys inputs in t\.jsonl\[0\], none is 'input_ids'"),
        ('{"input_ids": "abc"}', r"no list of numbers for key 'input_ids' of t\.jsonl\[0\]"),
        ('{"input_ids": [[1], [2, 3]]}', r"no list of numbers for key 'input_ids'"),
        ('{"input_ids": [1.5]}', r"float64 values at input 'input_ids' of t\.jsonl\[0\]"),
        ('{"input_ids": [1, 2, 3, 4]}', r"4 tokens at .*; the input takes 3: cut them"),
        (
            '{"input_ids_a": [1], "input_ids_b": [2], "score": "high"}',
            r"score 'high' at t\.jsonl\[0\]\.a; allowed: a number",
        ),
        ('{"input_ids_a": [1], "score": 1}', r"t\.jsonl\[0\]\.b"),
    ],
)
def test_lines_that_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        samples(tmp_path / "t.jsonl", text, spec(3))
