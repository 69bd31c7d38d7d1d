"""Which samples calibrate and which ones judge, and that it is said in words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto
from tiny_models import model, node

from calibrators.samples import DatasetSpec
from deploy.artifacts.model import Model
from deploy.data import inputs_of, open_data, open_dataset, open_samples
from deploy.errors import CalibrationError, DeployError, RecipeError
from deploy.recipe import Recipe


def network(batch: int | str = "N") -> Model:
    return model([node("Relu", ["x"], ["y"])], {"x": [batch, 2]}, {"y": [batch, 2]})


def npz(folder: Path, count: int, splits: list[str] | None = None, name: str = "d.npz") -> str:
    arrays = {"x": np.arange(2 * count, dtype="f4").reshape(count, 2)}
    if splits is not None:
        arrays["split"] = np.array(splits)
    np.savez(folder / name, **arrays)  # type: ignore[arg-type]
    return str(folder / name)


def refuses(kind: type[DeployError], reason: str, recipe: Recipe, model_: Model) -> None:
    with pytest.raises(kind, match=re.escape(reason)) as caught:
        open_data(recipe, model_)
    assert "\n" not in str(caught.value)


class TestSplits:
    def test_from_a_split_array(self, tmp_path: Path) -> None:
        uri = npz(tmp_path, 7, ["calib", "test", "calib", "calib", "test", "test", "calib"])
        data = open_data(Recipe(data=uri, samples=2), network())
        assert data.calibration is not None
        assert data.calibration.indices == (0, 3)
        assert data.calibration.about == "2 of 4, from its calibration split"
        assert data.evaluation.indices == (1, 4, 5)
        assert data.evaluation.about == "3 of 3, from its test split"

    @pytest.mark.parametrize("calib", ["calib", "calibration", "train", "Train"])
    @pytest.mark.parametrize("test", ["test", "eval", "val", "validation", "VAL"])
    def test_usual_names(self, calib: str, test: str, tmp_path: Path) -> None:
        data = open_data(Recipe(data=npz(tmp_path, 3, [test, calib, test])), network())
        assert data.calibration is not None
        assert (data.calibration.indices, data.evaluation.indices) == ((1,), (0, 2))

    def test_samples_of_no_split_calibrate_where_there_is_only_a_test_split(
        self, tmp_path: Path
    ) -> None:
        data = open_data(Recipe(data=npz(tmp_path, 4, ["", "test", "", "test"])), network())
        assert data.calibration is not None
        assert (data.calibration.indices, data.evaluation.indices) == ((0, 2), (1, 3))

    def test_samples_of_another_split_judge_only_when_unused(self, tmp_path: Path) -> None:
        data = open_data(Recipe(data=npz(tmp_path, 4, ["calib"] * 4), samples=2), network())
        assert data.calibration is not None
        assert (data.calibration.indices, data.evaluation.indices) == ((0, 2), (1, 3))


class TestHeldOut:
    def test_samples_that_were_not_used(self, tmp_path: Path) -> None:
        data = open_data(Recipe(data=npz(tmp_path, 10), samples=4), network())
        assert data.calibration is not None
        assert data.calibration.indices == (0, 2, 5, 7)
        assert data.calibration.about == "4 of 10, from all of it"
        assert data.evaluation.indices == (1, 3, 4, 6, 8, 9)
        assert data.evaluation.about == "6 of 6, samples not used in calibration"

    def test_the_same_ones_is_said(self, tmp_path: Path) -> None:
        data = open_data(Recipe(data=npz(tmp_path, 5), samples=99), network())
        assert data.evaluation.indices == (0, 1, 2, 3, 4)
        assert data.evaluation.about == "5 of 5, the calibration samples themselves"

    @pytest.mark.parametrize(
        "count, judged, about",
        [
            (2, (1, 3), "2 of 2, samples not used in calibration"),
            (9, (0, 1, 2, 3), "4 of 4, the calibration samples themselves"),
        ],
    )
    def test_a_test_split_that_had_to_calibrate_is_not_called_held_out(
        self, count: int, judged: tuple[int, ...], about: str, tmp_path: Path
    ) -> None:
        recipe = Recipe(data=npz(tmp_path, 4, ["test"] * 4), samples=count)
        data = open_data(recipe, network())
        assert (data.evaluation.indices, data.evaluation.about) == (judged, about)

    def test_at_most_eval_samples_spread_evenly(self, tmp_path: Path) -> None:
        recipe = Recipe(data=npz(tmp_path, 10, ["test"] * 9 + ["calib"]), eval_samples=3)
        assert open_data(recipe, network()).evaluation.indices == (0, 3, 6)


class TestEvalData:
    def test_its_own_dataset(self, tmp_path: Path) -> None:
        calib, judged = npz(tmp_path, 5), npz(tmp_path, 3, name="e.npz")
        data = open_data(Recipe(data=calib, eval_data=judged), network())
        assert data.calibration is not None
        assert (data.calibration.uri, data.evaluation.uri) == (calib, judged)
        assert data.evaluation.about == "3 of 3, from all of it"

    def test_samples_that_calibrated_are_counted_whatever_file_they_are_in(
        self, tmp_path: Path
    ) -> None:
        calib, judged = npz(tmp_path, 5), npz(tmp_path, 8, name="e.npz")
        data = open_data(Recipe(data=calib, eval_data=judged), network())
        told = data.telling_shared()
        assert data.shared == told.shared == 5
        assert told.evaluation.about == "8 of 8, from all of it; 5 of them were calibrated on"
        assert told.evaluation.sha256() == data.evaluation.sha256()
        alone = open_data(Recipe(eval_data=judged), network())
        assert alone.shared == 0 and alone.telling_shared() == alone

    def test_without_calibration_data(self, tmp_path: Path) -> None:
        judged = npz(tmp_path, 3, ["test", "calib", "test"])
        data = open_data(Recipe(eval_data=judged), network())
        assert data.calibration is None
        assert data.evaluation.indices == (0, 2)


class TestNoData:
    def test_is_seeded_noise_and_says_so(self) -> None:
        data = open_data(Recipe(), network())
        assert data.calibration is None
        assert "seeded noise" in data.evaluation.about
        first, second = list(data.evaluation), list(data.evaluation)
        assert len(first) == 8
        assert [s.sha256() for s in first] == [s.sha256() for s in second]
        assert len({s.sha256() for s in first}) == 8
        values = np.concatenate([s.feeds["x"] for s in first])
        assert values.dtype == np.float32 and values.shape == (8, 2)
        assert values.min() < 0 < values.max()

    def test_integers_are_ones(self) -> None:
        ids = model(
            [node("Cast", ["ids"], ["y"], to=TensorProto.FLOAT)],
            {"ids": (TensorProto.INT64, [4, 3])},
            {"y": [4, 3]},
        )
        sample = next(iter(open_data(Recipe(), ids).evaluation))
        assert sample.feeds["ids"].dtype == np.int64
        assert sample.feeds["ids"].tolist() == [[1, 1, 1]]


class TestSampleSet:
    def test_first_and_length(self, tmp_path: Path) -> None:
        chosen = open_samples(npz(tmp_path, 5), Recipe(samples=4), network())
        assert len(chosen) == len(list(chosen)) == 4
        assert [s.name for s in chosen.first(2)] == [s.name for s in chosen][:2]

    def test_hash_is_of_what_is_fed_in_order(self, tmp_path: Path) -> None:
        def digest(**settings: int) -> str:
            return open_samples(uri, Recipe(**settings), network()).sha256()

        uri = npz(tmp_path, 5)
        before = digest()
        assert digest() == before
        assert digest(samples=4) != before
        x = np.load(uri)["x"]
        np.savez(uri, x=x, labels=np.arange(5))
        assert digest() != before  # labels decide the accuracy
        np.savez(uri, x=x[::-1])
        assert digest() != before

    def test_for_the_stage_commands(self, tmp_path: Path) -> None:
        uri = npz(tmp_path, 4, ["calib", "test", "test", "calib"])
        assert open_samples(uri, Recipe(), network()).indices == (0, 3)
        assert open_data(Recipe(eval_data=uri), network()).evaluation.indices == (1, 2)

    def test_a_bad_sample_is_named(self, tmp_path: Path) -> None:
        x = np.ones((3, 2), "f4")
        x[1, 0] = np.nan
        np.savez(tmp_path / "bad.npz", x=x)
        chosen = open_samples(str(tmp_path / "bad.npz"), Recipe(), network())
        with pytest.raises(CalibrationError, match=r"nan at key 'x' of bad\.npz\[1\]"):
            list(chosen)


class TestRefused:
    def test_a_missing_file_with_the_nearest_name(self, tmp_path: Path) -> None:
        npz(tmp_path, 3, name="calib.npz")
        missing = str(tmp_path / "calip.npz")
        reason = f"{missing}: no such file or folder (did you mean 'calib.npz'?); check --data"
        refuses(CalibrationError, reason, Recipe(data=missing), network())

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        uri = str(tmp_path / "notes.txt")
        refuses(
            CalibrationError, f"{uri}: not a dataset; give a folder", Recipe(data=uri), network()
        )

    def test_an_array_of_another_name(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "d.npz", xx=np.ones((3, 2), "f4"))
        recipe = Recipe(data=str(tmp_path / "d.npz"))
        refuses(CalibrationError, "pass --data-key x=xx or rename it", recipe, network())

    def test_a_data_key_of_no_input(self, tmp_path: Path) -> None:
        recipe = Recipe(data=npz(tmp_path, 3), data_key={"label": "x"})
        reason = "--data-key 'label' (did you mean 'labels'?): not an input of the model; there ar"
        refuses(RecipeError, reason, recipe, network())
        with pytest.raises(RecipeError, match="--data-key 'label'"):
            open_samples(str(recipe.data), recipe, network())

    def test_a_data_key_is_checked_without_data_too(self) -> None:
        refuses(RecipeError, "--data-key 'z'", Recipe(data_key={"z": "x"}), network())


def test_data_keys_rename(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", pixels=np.ones((3, 2), "f4"), truth=np.array([2, 0, 1]))
    recipe = Recipe(data=str(tmp_path / "d.npz"), data_key={"x": "pixels", "labels": "truth"})
    assert [s.label for s in open_data(recipe, network()).evaluation] == [2, 0, 1]


def test_the_batch_axis_is_free_for_a_dataset() -> None:
    (spec,) = inputs_of(network(4))
    assert spec.shape == (None, 2)


def test_open_dataset_takes_the_first_kind_that_accepts(tmp_path: Path) -> None:
    spec = DatasetSpec(inputs_of(network()))
    assert len(open_dataset(npz(tmp_path, 3), spec).splits) == 3
