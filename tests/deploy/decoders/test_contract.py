"""What every decoder promises; finds the decoders by their files."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from decoder_cases import BOXES, CASES, CLASSES, SCORES, SIZE, DecoderCase
from task_cases import spec

from deploy import registry
from deploy.detection.boxes import Decoder, likely, relative
from deploy.errors import RecipeError

NAMES = registry.names("decoder")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def case(name: str) -> DecoderCase:
    return CASES[name]()


@pytest.fixture
def decoder(name: str, case: DecoderCase) -> Decoder:
    found: Decoder = registry.load("decoder", name).of(case.specs, case.options)
    return found


def test_it_finds_the_boxes(decoder: Decoder, case: DecoderCase) -> None:
    found = likely(decoder.decode(case.outputs, SIZE), 0.01)
    assert found.classes.tolist() == list(CLASSES)
    assert found.scores == pytest.approx(np.array(SCORES), rel=1e-5)
    assert found.corners == pytest.approx(relative(BOXES, SIZE), rel=1e-4, abs=1e-5)


def test_dtypes_and_lengths(decoder: Decoder, case: DecoderCase) -> None:
    found = decoder.decode(case.outputs, SIZE)
    assert found.corners.shape == (len(found), 4)
    assert found.scores.shape == found.classes.shape == (len(found),)
    assert (found.corners.dtype, found.scores.dtype) == (np.float64, np.float64)
    assert found.classes.dtype.kind == "i"


def test_outputs_are_left_as_they_were(decoder: Decoder, case: DecoderCase) -> None:
    before = {key: x.copy() for key, x in case.outputs.items()}
    decoder.decode(case.outputs, SIZE)
    assert all((x == before[key]).all() for key, x in case.outputs.items())


def test_it_travels_and_says_what_it_is_made_of(decoder: Decoder) -> None:
    assert repr(pickle.loads(pickle.dumps(decoder))) == repr(decoder)


def test_an_unknown_option_is_refused(name: str, case: DecoderCase) -> None:
    with pytest.raises(RecipeError, match=r"--task-option of task 'detect': unknown key 'colour'"):
        registry.load("decoder", name).of(case.specs, {**case.options, "colour": "red"})


def test_outputs_without_boxes_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=r"\d outputs could hold .*--task-option \w+="):
        registry.load("decoder", name).of([spec("y")], {})
