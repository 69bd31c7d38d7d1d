"""Real models in float32: the figures that are known of them, and float against itself."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from task_cases import terms
from tiny_models import ROOT

from calibrators.preprocess import Preprocess
from calibrators.samples import Sample
from calibrators.truths import Text as Transcript
from deploy.artifacts.parity import TaskParity
from deploy.backends import reference
from deploy.data import open_data
from deploy.load import load, read
from deploy.recipe import Recipe
from deploy.task import Task
from deploy.tasks.detect import Detect
from deploy.tasks.embed import Embed
from deploy.tasks.text import Text

ASSETS = ROOT.parent / "shared" / "assets"
MODELS, DATA = ASSETS / "models", ASSETS / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ASSETS.is_dir(), reason="shared/assets is not beside the repository"),
]


def scored(path: Path, samples: Iterable[Sample], make: Any, **shape: Any) -> TaskParity:
    """What the labels say of a model, run once."""
    model = load(read(path), shape)
    judge: Task = make(model.outputs)
    found = []
    with reference.build(model) as engine:
        for sample in samples:
            outputs = engine.run(sample.feeds)
            found += terms(judge, [sample], [outputs], [outputs])
    result = judge.result(found)
    assert result.predictions.agreement_pct == pytest.approx(100)
    assert result.scored is not None and result.scored.drop == 0
    return result.scored


def test_fastestdet_on_coco() -> None:
    path = MODELS / "fastestdet_shufflenetv2_coco.onnx"
    recipe = Recipe(eval_data=str(DATA / "coco_tiny" / "train2017.json"), color="BGR")
    samples = open_data(recipe, load(read(path))).evaluation
    assert len(samples) == 40
    found = scored(path, samples, lambda outputs: Detect.of(outputs, {"decoder": "fastestdet"}))
    assert found.reference_pct == pytest.approx(35.2, abs=0.05)


def lines(every: int) -> Iterator[Sample]:
    """Text lines of the test split, normalized and filled up to a width of 480."""
    folder = DATA / "sroie_lines"
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    for row in rows[::every]:
        with Image.open(folder / "images" / row["file"]) as image:
            width = min(480, -(-image.width * 48 // image.height))
            pixels = Preprocess(resize=(48, width), color="BGR").image(image)
        x = np.zeros((1, 3, 48, 480), np.float32)
        x[0, :, :, :width] = (pixels - 0.5) / 0.5
        yield Sample(row["file"], {"x": x}, truth=Transcript(row["text"]))


def test_lines_are_padded_by_flags_as_by_hand() -> None:
    recipe = Recipe(
        eval_data=str(DATA / "sroie_lines"),
        resize_mode="pad-right",
        pad_value=127.5,
        mean=(0.5,),
        std=(0.5,),
        color="BGR",
    )
    model = load(read(MODELS / "ppocrv4_en_rec.onnx"), {"x": (None, 3, 48, 480)})
    found = {sample.name: sample for sample in open_data(recipe, model).evaluation}
    by_hand = list(lines(10))
    assert len(by_hand) == 13
    for line in by_hand:
        assert np.array_equal(found[line.name].feeds["x"], line.feeds["x"])
        assert found[line.name].truth == line.truth


def test_ppocr_on_receipts() -> None:
    options = {
        "dictionary": str(MODELS / "ppocrv4_en_rec_dict.txt"),
        "space": True,
        "ignore_case": True,
        "ignore_space": True,
    }
    found = scored(
        MODELS / "ppocrv4_en_rec.onnx",
        lines(1),
        lambda outputs: Text.of(outputs, options),
        x=(None, 3, 48, 480),
    )
    assert found.reference_pct == pytest.approx(3.1, abs=0.05)
    assert found.figures[0].engine == pytest.approx(73.4, abs=0.05)


def test_minilm_on_sentences() -> None:
    path = MODELS / "minilm_l6_trim_fp16stored.onnx"
    shape = {"input_ids": (None, None), "attention_mask": (None, None)}
    model = load(read(path), shape)
    recipe = Recipe(eval_data=str(DATA / "stsb" / "dev_500.jsonl"), data_key={"input_ids": "ids"})
    samples = sorted(open_data(recipe, model).evaluation, key=length)
    judge = Embed.of(model.outputs, {})
    found = []
    with reference.build(model) as engine:
        # sentences of one length together: a run of each would take a minute
        for _, group in groupby(samples, length):
            rows = list(group)
            names = rows[0].feeds
            outputs = engine.run({n: np.concatenate([s.feeds[n] for s in rows]) for n in names})
            each = [{judge.output: x[None]} for x in outputs[judge.output]]
            found += terms(judge, rows, each, each)
    task = judge.result(found).scored
    assert task is not None and task.samples == 500
    assert task.reference_pct == pytest.approx(92.6, abs=0.05)


def length(sample: Sample) -> int:
    """How many tokens a sentence has."""
    return sample.feeds["input_ids"].shape[1]
