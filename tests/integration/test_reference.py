"""The notes' recipes and the baselines, as flows."""

import json

import numpy as np
import pandas as pd
import pytest

from config import paths
from config.params import load_params
from runtime.errors import UserError
from tasks.data.files import read_table, write_table
from tasks.data.schema import read_schema
from tasks.reference.baselines import baseline, read_rows
from tests.support.workspaces import edit_params


@pytest.mark.rotates
def test_parity_runs_every_seed_with_every_preparation(prepared, run_flow):
    edit_params(prepared, lecture_recipes__housing_wide_deep_aux__seeds=[1, 2])
    done = run_flow("lecture_recipe", "housing_wide_deep_aux")
    assert done.returncode == 0, done.stderr[-2000:]
    folder = paths.lecture_recipe_folder("housing_wide_deep_aux")
    runs = json.loads((folder / "metrics.json").read_text())["runs"]
    assert [(run["normalization"], run["seed"]) for run in runs] == [
        (normalization, seed) for normalization in ("standard", "clipped") for seed in (1, 2)
    ]
    assert len({run["metrics"]["test"]["rmse"] for run in runs}) == 4
    history = pd.read_csv(folder / "history.csv")
    assert history.groupby(["normalization", "seed"])["epoch"].max().tolist() == [1, 1, 1, 1]


@pytest.mark.rotates
def test_baselines_are_measured_on_the_same_rows(prepared, run_flow):
    done = run_flow("baselines")
    assert done.returncode == 0, done.stderr[-2000:]
    measured = json.loads((paths.BASELINES / "metrics.json").read_text())
    assert list(measured) == list(load_params().baselines)
    train_rows, test_rows = (
        pd.read_parquet(paths.prepared_folder("california_housing") / f"{split}.parquet")["MedHouseVal"]
        for split in ("train", "test")
    )
    guess = np.sqrt(((test_rows.astype(float) - train_rows.astype(float).mean()) ** 2).mean())
    assert measured["dummy_housing"]["metrics"]["test"]["rmse"] == pytest.approx(guess, rel=1e-6)
    assert measured["sklearn_housing_mlp"]["metrics"]["test"]["rmse"] < guess / 2
    cut = paths.prepared_folder("line") / "valid.parquet"
    whole = cut.read_bytes()
    write_table(cut, read_table(cut, "").drop_columns("index"))
    refused = run_flow("baselines")
    assert refused.returncode == 1
    assert f"error: {cut}: column 'index' is missing" in refused.stderr
    assert json.loads((paths.BASELINES / "metrics.json").read_text()) == measured
    cut.write_bytes(whole)
    edit_params(prepared, baselines__dummy_line__arguments={"strategy": "luck"})
    with pytest.raises(UserError, match=r"baselines\.dummy_line\.arguments"):
        baseline("dummy_line", load_params().baselines["dummy_line"])


def test_a_baseline_gets_derived_columns_too(prepared):
    edit_params(prepared, baselines__boosting_housing__inputs="housing_with_ratios")
    params = load_params().baselines["boosting_housing"]
    rows = read_rows("boosting_housing", params, read_schema(params.dataset))
    rooms, bedrooms, people, *_, bedrooms_a_room, people_a_room = rows["test"][0][:, [2, 3, 5, 8, 9]].T
    np.testing.assert_allclose(bedrooms_a_room, bedrooms / rooms, rtol=1e-6)
    np.testing.assert_allclose(people_a_room, people / rooms, rtol=1e-6)
