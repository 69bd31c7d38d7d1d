"""The stage: corrections in the target's order, each on what the one before left."""

from __future__ import annotations

import pytest
from helpers import model_from, weight
from quantized import correlated, in_int8, samples_of, sqnr_db

from deploy.artifacts.model import Model
from deploy.correct import correct
from deploy.errors import RecipeError

TEXT = """g (float[N,6,5,7] x) => (float[N,4,5,7] y) {
    a = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(a) y = Conv(r, v)
}"""


def net() -> Model:
    weights = {"w": weight(8, 6, 3, 3) / 5, "b": weight(8), "v": weight(4, 8, 1, 1) / 2}
    return model_from(TEXT, weights)


def test_in_the_targets_order_each_on_the_last() -> None:
    samples = correlated(net(), 30)
    quantized, exact = in_int8(net(), samples, weight_bits=4)
    both = correct(quantized, exact, samples, ["gptq", "bias_correction"])
    rules = [d.rule for d in both.decisions]
    assert list(dict.fromkeys(rules)) == ["gptq", "bias_correction"]
    first = correct(quantized, exact, samples, ["gptq"])
    assert correct(first, exact, samples, ["bias_correction"]).sha256 == both.sha256
    alone = correct(quantized, exact, samples, ["bias_correction"])
    assert sqnr_db(exact, both, samples) > sqnr_db(exact, alone, samples) + 1


def test_none_is_the_same_model() -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples)
    after = correct(quantized, exact, [], [])
    assert after.sha256 == quantized.sha256
    assert after.decisions == ()


def test_an_unknown_name_is_told() -> None:
    samples = samples_of(net())
    quantized, exact = in_int8(net(), samples)
    with pytest.raises(RecipeError, match=r"unknown correction 'gptg'.*did you mean 'gptq'"):
        correct(quantized, exact, samples, ["gptg"])
