"""The share of the outputs' noise that the rounding of some layers' inputs brings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from helpers import feeds_for, model_from, weight

from calibrators.ranges import Affine, Range, activation_params
from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.sensitivity.rounded_inputs import noise_shares
from deploy.surgery.graph import infer

WEIGHTS = {"w": weight(4, 3, 1, 1, seed=1), "v": weight(5, 4, 1, 1, seed=2)}


def two_layers() -> Model:
    model = model_from(
        """g (float[N,3,6,5] x) => (float[N,5,K,L] y) {
            a = Conv(x, w) r = Relu(a) y = Conv(r, v)
        }""",
        WEIGHTS,
    )
    return model.derive(infer(model.proto), ())


def samples(model: Model) -> list[Sample]:
    return [Sample(f"s{i}", feeds_for(model, batch=1, seed=i)) for i in range(6)]


def params(x: float, r: float) -> dict[str, Affine]:
    ends = {"x": Range(-x, x), "r": Range(0, r)}
    return {name: activation_params(end, "int8", symmetric=True) for name, end in ends.items()}


def test_shares_nearly_add_up() -> None:
    model = two_layers()
    shares = noise_shares(model, params(8, 40), {"in": ["x"], "inner": ["r"]}, samples(model))
    assert list(shares) == ["in", "inner"]
    assert sum(shares.values()) == pytest.approx(1, abs=0.1)
    assert min(shares.values()) > 0.1
    both = noise_shares(model, params(8, 40), {"both": ["x", "r"]}, samples(model))
    assert both == {"both": 1.0}


def test_a_share_is_what_numpy_says() -> None:
    model, given, rounded = two_layers(), samples(two_layers()), params(8, 40)

    def outputs(names: Sequence[str]) -> np.ndarray:
        found = []
        for sample in given:
            x = sample.feeds["x"]
            x = _through(rounded["x"], x) if "x" in names else x
            r = np.maximum(np.einsum("mc,nchw->nmhw", WEIGHTS["w"][..., 0, 0], x), 0)
            r = _through(rounded["r"], r) if "r" in names else r
            found.append(np.einsum("mc,nchw->nmhw", WEIGHTS["v"][..., 0, 0], r))
        return np.stack(found)

    exact = outputs(())
    errors = {names: outputs(names) - exact for names in ("x", "xr")}
    power = {n: float(np.sum((e - e.mean(axis=0)) ** 2)) for n, e in errors.items()}
    shares = noise_shares(model, rounded, {"in": ["x"]}, given)
    assert shares["in"] == pytest.approx(power["x"] / power["xr"], rel=1e-3)


def _through(params: Affine, values: np.ndarray) -> np.ndarray:
    return params.dequantize(params.quantize(values))


def test_no_noise_has_no_shares() -> None:
    model = two_layers()
    only = {"x": params(127, 1)["x"]}
    whole = [Sample(s.name, {"x": np.rint(s.feeds["x"])}) for s in samples(model)]
    assert noise_shares(model, only, {"in": ["x"]}, whole) == {"in": 0.0}
