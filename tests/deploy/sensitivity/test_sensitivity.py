"""Noise per layer: the same figures as the whole line gives, the worst named first, resumable."""

from __future__ import annotations

import numpy as np
import pytest
from dialects import dialect
from helpers import MODELS
from noisy import CPU, chain, heads, noise_db, noises, widened
from tiny_models import ranges_of, residual, samples_of

from calibrators.samples import Sample
from deploy.artifacts.model import Model
from deploy.artifacts.ranges import Ranges
from deploy.calibrate import calibrate
from deploy.correct import correct
from deploy.errors import RecipeError
from deploy.fuse import fuse
from deploy.load import load, read
from deploy.placement import NOTHING, Exclude
from deploy.quantize import quantize
from deploy.sensitivity.alone import Effort, sensitivity
from deploy.simplify import simplify
from deploy.target import Target


class TestFigures:
    @pytest.mark.parametrize("name", ["openvino", "tensorrt", "tensorrt_8_5", "onnxruntime"])
    @pytest.mark.parametrize("layer", ["stem", "deep", "point", "late", "head"])
    def test_are_those_of_the_layer_quantized_and_corrected_alone(
        self, layer: str, name: str
    ) -> None:
        exact, to = chain(), dialect(name, bias_form="fp32")
        ranges, samples = ranges_of(exact), samples_of(exact, 12)
        found = noises(exact, ranges, samples, to)
        others = Exclude(layers={other: "" for other in found if other != layer})
        alone = quantize(exact, ranges, to, exclude=others)
        alone = correct(alone, exact, samples, ["bias_correction"])
        expected = noise_db(exact, alone, samples, constant=False)
        assert found[layer].noise_db == pytest.approx(expected, abs=0.02)

    def test_of_a_sum_are_those_of_its_two_inputs(self) -> None:
        exact = chain()
        ranges, samples = ranges_of(exact), samples_of(exact, 12)
        found = noises(exact, ranges, samples)["sum"]
        assert (found.op, found.tensor) == ("Add", "c2, r0")
        others = dict.fromkeys(("stem", "deep", "point", "late"), "")
        with_sum = quantize(exact, ranges, CPU, exclude=Exclude(layers=others))
        both = noise_db(exact, with_sum, samples, constant=False)
        head = noises(exact, ranges, samples)["head"].noise_db
        assert 10 ** (both / 10) == pytest.approx(
            10 ** (found.noise_db / 10) + 10 ** (head / 10), rel=0.25
        )

    def test_name_what_the_layer_reads_and_how_many_samples_it_took(self) -> None:
        found = noises(chain())
        assert {x.layer: (x.op, x.tensor) for x in found.values()} == {
            "stem": ("Conv", "x"),
            "deep": ("Conv", "r0"),
            "point": ("Conv", "c1"),
            "sum": ("Add", "c2, r0"),
            "late": ("Conv", "r1"),
            "head": ("Gemm", "f"),
        }
        assert {x.samples for x in found.values()} == {12}

    def test_accumulate_from_the_least_to_the_noisiest(self) -> None:
        layers = list(noises(chain()).values())
        alone = [x.noise_db for x in layers]
        assert alone == sorted(alone, reverse=True)
        powers = 10 ** (np.array(alone) / 10)
        for index, layer in enumerate(layers):
            expected = 10 * np.log10(powers[index:].sum())
            assert layer.accumulated_db == pytest.approx(expected, abs=1e-9)

    @pytest.mark.parametrize("exact", [chain(), residual()], ids=["chain", "residual"])
    def test_add_up_to_the_noise_of_the_whole(self, exact: Model) -> None:
        ranges, samples = ranges_of(exact), samples_of(exact, 24)
        predicted = next(iter(noises(exact, ranges, samples).values())).accumulated_db
        whole = correct(quantize(exact, ranges, CPU), exact, samples, ["bias_correction"])
        assert predicted == pytest.approx(noise_db(exact, whole, samples), abs=1.5)

    def test_are_the_same_every_time(self) -> None:
        exact = chain()
        assert noises(exact) == noises(exact)

    def test_of_one_sample_are_all_its_error(self) -> None:
        # a head of one value per position: its mean is corrected, the rest is no constant part
        exact = heads(1.0)
        ranges, samples = ranges_of(exact), samples_of(exact, 1)
        found = noises(exact, ranges, samples)["left"]
        others = Exclude(layers={"trunk": "", "right": ""})
        alone = quantize(exact, ranges, CPU, exclude=others)
        alone = correct(alone, exact, samples, ["bias_correction"])
        # of two heads, the other one is exact
        expected = noise_db(exact, alone, samples) - 10 * np.log10(2)
        assert found.noise_db == pytest.approx(expected, abs=0.02)

    def test_the_model_is_left_as_it_was(self) -> None:
        exact = chain()
        before = exact.serialized
        noises(exact)
        assert exact.proto.SerializeToString(deterministic=True) == before


class TestTheTerribleLayer:
    @pytest.mark.parametrize(("tensor", "name"), [("c1", "point"), ("r1", "late"), ("f", "head")])
    def test_is_first_and_without_it_the_noise_is_gone(self, tensor: str, name: str) -> None:
        exact, samples = chain(), samples_of(chain(), 12)
        good = ranges_of(exact)
        bad = widened(good, tensor, 200.0)
        layers = list(noises(exact, bad, samples).values())
        assert layers[0].layer == name
        assert layers[0].noise_db > layers[1].noise_db + 10

        def measured(ranges: Ranges, exclude: Exclude) -> float:
            whole = quantize(exact, ranges, CPU, exclude=exclude)
            whole = correct(whole, exact, samples, ["bias_correction"])
            return noise_db(exact, whole, samples)

        spoilt = measured(bad, NOTHING)
        mended = measured(bad, Exclude(layers={name: "the noisiest"}))
        assert spoilt > mended + 10
        assert mended < measured(good, NOTHING) + 0.5
        assert spoilt == pytest.approx(layers[0].accumulated_db, abs=1.5)
        assert mended == pytest.approx(layers[1].accumulated_db, abs=2.0)

    def test_of_one_scale_with_others_is_named_with_them(self) -> None:
        exact = chain()
        found = list(noises(exact, widened(ranges_of(exact), "r0", 60.0)).values())
        assert {x.layer for x in found[:2]} == {"deep", "sum"}


class Clock:
    """Says the time that has passed: `step` more at every look."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 100.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class TestEffort:
    def measure(self, effort: Effort) -> tuple[dict[str, float], tuple[str, ...]]:
        exact = chain()
        found = sensitivity(exact, ranges_of(exact), CPU, samples_of(exact, 12), effort)
        return {x.layer: x.noise_db for x in found.layers}, found.unmeasured

    def test_only_some_layers(self) -> None:
        everything, _ = self.measure(Effort())
        some, left = self.measure(Effort(layers=["late", "sum"]))
        assert some == {n: everything[n] for n in some}
        assert set(some) == {"late", "sum"} and left == ()

    def test_a_layer_that_isnt_placed_is_refused(self) -> None:
        with pytest.raises(RecipeError, match=r"no layer 'lat' .*did you mean 'late'"):
            self.measure(Effort(layers=["lat"]))

    def test_out_of_time_names_what_is_left(self) -> None:
        seen: list[str] = []
        effort = Effort(
            budget_s=3.5, clock=Clock(1.0), measured=lambda name, noise_db: seen.append(name)
        )
        found, left = self.measure(effort)
        assert 0 < len(found) < 6 and set(seen) == set(found)
        assert set(found) | set(left) == {"stem", "deep", "point", "sum", "late", "head"}
        assert not set(found) & set(left)

    def test_no_time_at_all_measures_nothing(self) -> None:
        found, left = self.measure(Effort(budget_s=0.0, clock=Clock(1.0)))
        assert found == {}
        assert left == ("stem", "deep", "point", "sum", "late", "head")

    def test_taken_up_it_gives_the_same(self) -> None:
        everything, _ = self.measure(Effort())
        first, left = self.measure(Effort(budget_s=3.5, clock=Clock(1.0)))
        advanced: list[int] = []
        second, nothing = self.measure(Effort(known=first, advance=advanced.append))
        assert second == everything and nothing == ()
        assert sum(advanced) == len(left)

    def test_all_known_runs_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        everything, _ = self.measure(Effort())
        monkeypatch.setattr("deploy.sensitivity.alone.LoneRuns", None)
        again, _ = self.measure(Effort(known=everything))
        assert again == everything

    def test_enough_time_gives_the_same_as_no_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        everything, _ = self.measure(Effort())
        monkeypatch.setattr("deploy.sensitivity.alone._PORTION", 2)
        again, left = self.measure(Effort(budget_s=1e9, clock=Clock(1.0)))
        assert again == everything and left == ()

    def test_the_one_that_looks_worst_comes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("deploy.sensitivity.alone._PORTION", 1)
        exact = chain()
        ranges = widened(ranges_of(exact), "r1", 40.0)
        order: list[str] = []
        effort = Effort(
            budget_s=1e9, clock=Clock(1.0), measured=lambda name, noise_db: order.append(name)
        )
        sensitivity(exact, ranges, CPU, samples_of(exact, 12), effort)
        assert order[0] == "late" and len(order) == 6


SHARED = MODELS.parent / "data" / "kws01" / "calib_200.npz"


@pytest.mark.skipif(not SHARED.is_file(), reason=f"{SHARED} is not there")
@pytest.mark.parametrize(("name", "within"), [("openvino", 1.5), ("tensorrt", 1.5)])
def test_a_real_networks_layers_add_up(name: str, within: float) -> None:
    to = dialect(name)
    exact = fuse(simplify(load(read(MODELS / "dscnn_kws.onnx"))), Target.load("cpu").fusions)
    values = np.load(SHARED)["x"][:64]
    samples = [Sample(str(i), {"input": x[None]}) for i, x in enumerate(values)]
    ranges = calibrate(exact, samples, "mse")
    layers = list(noises(exact, ranges, samples[:32], to).values())
    for length in (0, 1, 3):
        keep = Exclude(layers={x.layer: "noisy" for x in layers[:length]})
        whole = quantize(exact, ranges, to, exclude=keep)
        whole = correct(whole, exact, samples, ["bias_correction"])
        measured = noise_db(exact, whole, samples)
        assert layers[length].accumulated_db == pytest.approx(measured, abs=within)
