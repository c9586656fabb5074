"""A candidate is judged against the champion: real exports of sample models, in clean processes."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from config import paths
from config.gates import Gates
from config.params import load_params
from datasets import get_dataset
from tasks.data.normalization import read_normalization
from tasks.data.schema import read_schema, read_split_rows
from tasks.evaluation.metrics_files import read_metrics
from tasks.promotion.judge import RowSelection, Version, judge, select_rows
from tasks.promotion.verdict import Verdict, read_verdict, write_verdict
from tasks.publishing.export import describe_origin, export
from tests.support.training import train
from tests.support.workspaces import edit_params, make_workspace

pytestmark = [pytest.mark.xdist_group("warm"), pytest.mark.usefixtures("warm_scores")]

GATES = Gates(draws=1000, slice_rows=50, load={"seconds": 240, "tries": 1})
# name of an export: the model, and its epochs.
EXPORTS = {
    "housing good": ("housing_mlp", 30),
    "housing poor": ("housing_mlp", 1),
    "aux": ("housing_wide_deep_aux", 1),
    "perceptron": ("iris_perceptron", 20),
    "iris": ("iris_mlp", 60),
}


@pytest.fixture(scope="module")
def judged(tmp_path_factory, prepared_data: Path) -> Iterator[Path]:
    """A workspace with prepared data, which is the current directory, and with exports of some trainings."""
    folder = make_workspace(tmp_path_factory.mktemp("judged") / "a workspace")
    shutil.copytree(prepared_data, folder / "data", dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, (model, epochs) in EXPORTS.items():
            averaged = {f"models__{model}__compile__average": None} if model.startswith("housing") else {}
            edit_params(folder, **{f"models__{model}__fit__epochs": epochs}, **averaged)
            params = load_params().model(model)
            fitted, _ = train(model)
            origin = describe_origin(model, params, read_schema(params.dataset), 42)
            (folder / name).mkdir()
            export(fitted.model, params, read_normalization(params.dataset), origin, folder / name)
        yield folder


def version(name: str, number: str | None = None) -> Version:
    return Version(Path(name, "saved_model"), number, "c0ffee" if number else None)


def compare(candidate: str, champion: str | None, reason: str | None = None, gates: Gates = GATES) -> Verdict:
    model = EXPORTS[candidate][0]
    dataset = load_params().model(model).dataset
    rows = select_rows(dataset, np.arange(400, 10_000))
    return judge(model, version(candidate), champion and version(champion, "v7"), rows, gates, reason)


def test_a_better_candidate_is_promoted_and_a_worse_one_is_not_for_new_rows_either(judged):
    verdict = compare("housing good", "housing poor")
    assert (verdict.outcome, verdict.promote, verdict.failed) == ("better", True, [])
    assert verdict.candidate.metrics["valid"]["rmse"] < verdict.champion.metrics["valid"]["rmse"]
    assert (verdict.champion.version, verdict.champion.commit) == ("v7", "c0ffee")
    names = [found.name for found in verdict.comparisons]
    assert names[:2] == ["valid", "new rows"]
    assert names[-1] == "test"
    assert not {rule.name for rule in verdict.rules} & {"test"}
    assert {rule.name for rule in verdict.rules} >= {"loads", "answers", "size", "latency", *names[:-1]}

    worse = compare("housing poor", "housing good", "new rows arrived")
    assert (worse.outcome, worse.promote) == ("regression", False)
    assert "valid" in worse.reason
    gain = verdict.comparison("valid"), worse.comparison("valid")
    assert gain[0].low > 0 > gain[1].high
    assert (worse.candidate.metrics, worse.champion.metrics) == (verdict.champion.metrics, verdict.candidate.metrics)
    assert worse.rows == verdict.rows

    folder = paths.artifacts_folder("housing_mlp")
    folder.mkdir(parents=True, exist_ok=True)
    write_verdict(worse, folder)
    assert read_verdict("housing_mlp") == worse


def test_the_metrics_are_those_of_the_training(two_models, monkeypatch):
    monkeypatch.chdir(two_models)
    rows = select_rows("iris", np.array([]))
    verdict = judge("iris_mlp", Version(paths.artifacts_folder("iris_mlp") / "saved_model"), None, rows, GATES, None)
    assert (verdict.outcome, verdict.promote) == ("first", True)
    measured = read_metrics("iris_mlp").metrics
    for split in ("valid", "test"):
        for metric, value in verdict.candidate.metrics[split].items():
            assert value == pytest.approx(measured[split][metric], abs=1e-5)
    assert "new rows" not in verdict.candidate.metrics


@pytest.mark.parametrize("name", ["aux", "perceptron"])
def test_a_model_against_itself_changes_nothing(judged, name):
    again = Path(f"{name} again")
    shutil.copytree(name, again)
    (again / "saved_model/assets.extra/note.txt").write_text("another export of the same weights")
    model = EXPORTS[name][0]
    rows = select_rows(load_params().model(model).dataset, np.array([]))
    verdict = judge(model, Version(again / "saved_model"), version(name, "v1"), rows, GATES, None)
    assert (verdict.outcome, verdict.promote, verdict.failed) == ("no measurable change", False, [])
    assert {(found.gain, found.low <= 0 <= found.high) for found in verdict.comparisons} == {(0.0, True)}
    further = {metric for metric in verdict.candidate.metrics["valid"] if metric.startswith("aux_")}
    assert bool(further) == (name == "aux")
    same = judge(model, version(name), version(name, "v1"), rows, GATES, "new rows arrived")
    assert (same.promote, same.reason) == (False, "the candidate is the champion")


def test_a_threshold_and_limits_keep_a_better_candidate_out(judged):
    strict = {"size": {"most": 1000}, "models": {"housing_mlp": {"absolute": {"rmse": 0.001}}}}
    verdict = compare("housing good", "housing poor", gates=Gates.model_validate({**strict, "draws": 1000}))
    assert (verdict.outcome, verdict.promote) == ("better", False)
    assert [rule.name for rule in verdict.failed] == ["size", "rmse threshold"]


def test_a_candidate_with_weights_that_are_no_numbers_is_a_regression(judged):
    import keras

    params = load_params().model("iris_mlp")
    fitted, _ = train("iris_mlp")
    fitted.model.set_weights([np.full_like(weight, np.nan) for weight in fitted.model.get_weights()])
    Path("broken").mkdir()
    export(
        fitted.model,
        params,
        read_normalization("iris"),
        describe_origin("iris_mlp", params, read_schema("iris"), 42),
        Path("broken"),
    )
    keras.backend.clear_session()
    rows = select_rows("iris", np.array([]))
    verdict = judge("iris_mlp", version("broken"), version("iris", "v1"), rows, GATES, "new rows arrived")
    assert (verdict.outcome, verdict.promote) == ("regression", False)
    [rule] = verdict.failed
    assert (rule.name, rule.text) == ("answers", "66 of 66 answers are not finite")
    assert verdict.candidate.metrics == {}
    assert verdict.champion.metrics["valid"]["accuracy"] > 0


def test_a_candidate_is_not_promoted_over_a_champion_that_does_not_load(judged):
    shutil.copytree("iris", "damaged")
    Path("damaged/saved_model/saved_model.pb").write_bytes(b"garbage")
    rows = select_rows("iris", np.array([]))
    verdict = judge("iris_mlp", version("iris"), version("damaged", "v1"), rows, GATES, "new rows arrived")
    assert (verdict.outcome, verdict.promote) == ("no measurable change", False)
    [rule] = verdict.failed
    assert rule.name == "champion answers"
    first = judge("iris_mlp", version("damaged"), None, rows, GATES, None)
    assert (first.outcome, first.promote, [rule.name for rule in first.failed]) == ("regression", False, ["loads"])


def test_new_rows_are_those_of_valid_and_no_row_of_train_is_judged(judged):
    dataset = get_dataset("california_housing")
    schema = read_schema(dataset.name)
    splits = read_split_rows(dataset, schema, schema.rows.total)
    rows = select_rows(dataset.name, np.arange(schema.rows.total))
    np.testing.assert_array_equal(np.sort(rows.new), np.sort(splits["valid"]))
    assert not np.intersect1d([*rows.valid, *rows.test], splits["train"]).size
    assert select_rows(dataset.name, np.array([], np.int64)).new.size == 0


@pytest.mark.parametrize(
    "rows", [([0, 0], [], []), ([0, 1], [2], []), ([0], [], [0]), ([0, 150], [], []), ([1], [], [2]), ([-1, 1], [], [])]
)
def test_a_selection_that_makes_no_sense_is_refused(judged, rows):
    selection = RowSelection(*(np.array(part, np.int64) for part in rows))
    with pytest.raises(ValueError, match="row"):
        judge("iris_mlp", version("iris"), None, selection, GATES, None)
