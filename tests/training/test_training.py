"""Fit, evaluate, export: what a user would miss if it broke, on the sample."""

import contextlib
import math

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, root_mean_squared_error

from config import paths
from config.params import load_params
from datasets import get_dataset
from datasets.dataset import to_values
from runtime.errors import UserError
from tasks.data.examples import read_examples
from tasks.data.files import read_table, write_table
from tasks.data.normalization import read_normalization
from tasks.data.schema import read_schema
from tasks.evaluation import evaluate as evaluation
from tasks.evaluation.evaluate import evaluate
from tasks.evaluation.metrics import metrics_per_quarter
from tasks.publishing.export import describe_origin, export, sample_outputs, verify_export
from tasks.publishing.run_record import Stopwatch
from tasks.training.fit import write_history
from tasks.training.recipe_checks import check_recipe
from tasks.training.tensorboard_logs import KEPT_RUNS, run_logs
from tests.support.training import raw_rows, train
from tests.support.workspaces import edit_params


@pytest.mark.slow  # a process loads the export
def test_an_export_that_differs_from_the_trained_model_is_refused(prepared, tmp_path):
    fitted, examples = train("housing_mlp")
    params = load_params().model("housing_mlp")
    wrong = read_normalization("california_housing")
    wrong = wrong.model_copy(update={"mean": {**wrong.mean, "MedInc": wrong.mean["MedInc"] + 1}})
    export(
        fitted.model, params, wrong, describe_origin("housing_mlp", params, read_schema(params.dataset), 42), tmp_path
    )
    sample = sample_outputs(fitted.model, examples["valid"])
    with pytest.raises(UserError, match="differ"):
        verify_export(sample, params, read_schema("california_housing").raw_sha256, {}, tmp_path)


def test_training_learns(prepared):
    edit_params(prepared, models__housing_mlp__fit__epochs=5, models__housing_mlp__compile__average=None)
    history = train("housing_mlp")[0].history
    assert history["loss"][-1] < history["loss"][0] / 2


def test_a_diverging_training_stops_with_the_batch_and_the_remedy(prepared):
    edit_params(prepared, models__linear_neuron__compile__learning_rate=1e30)
    edit_params(prepared, models__linear_neuron__fit__epochs=50)
    with pytest.raises(
        UserError,
        match=r"linear_neuron: (val_)?loss is (nan|inf).*models\.linear_neuron\.compile\.learning_rate.*1e\+30",
    ):
        train("linear_neuron")


def test_tensorboard_can_read_the_logs_of_a_run(prepared):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train("housing_mlp", paths.logs_folder("housing_mlp") / "run")
    for split in ("train", "validation"):
        events = EventAccumulator(str(prepared / "logs/housing_mlp/run" / split)).Reload()
        assert "epoch_loss" in events.Tags()["tensors"]
        if split == "train":
            assert any("hidden" in node.name for node in events.Graph().node)


def test_history_has_a_row_an_epoch(prepared, tmp_path):
    edit_params(prepared, models__linear_neuron__fit__epochs=3)
    fitted = train("linear_neuron")[0]
    write_history(fitted.history, tmp_path)
    history = pd.read_csv(tmp_path / "history.csv")
    assert history["epoch"].tolist() == [1, 2, 3]
    assert history["val_loss"].tolist() == pytest.approx(fitted.history["val_loss"])


def test_evaluation_equals_scikit_learn_on_the_saved_predictions(prepared):
    for name, column, figure in (
        ("housing_mlp", "rmse", root_mean_squared_error),
        ("fashion_mlp", "accuracy", accuracy_score),
    ):
        fitted, examples = train(name)
        params = load_params().model(name)
        measured = evaluate(fitted.model, params, read_schema(params.dataset), 10**9, **examples)
        predictions = measured.predictions
        assert measured.metrics["test"][column] == pytest.approx(figure(predictions["true"], predictions["predicted"]))
        raw = raw_rows(name, predictions["index"].to_numpy())
        target = to_values(raw[get_dataset(params.dataset).target])
        np.testing.assert_allclose(predictions["true"], target, rtol=1e-6)


def test_probabilities_add_up_to_1_and_the_largest_is_the_prediction(prepared):
    for name in ("fashion_mlp", "iris_perceptron"):
        fitted, examples = train(name)
        params = load_params().model(name)
        frame = evaluate(fitted.model, params, read_schema(params.dataset), 10**9, **examples).predictions
        probabilities = frame.filter(like="probability ").to_numpy()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_array_equal(probabilities.argmax(axis=1), frame["predicted"])


def test_further_outputs_are_measured_and_predicted_under_their_name(prepared):
    for name in ("housing_wide_deep_aux", "housing_wide_deep_subclassed"):
        fitted, examples = train(name)
        params = load_params().model(name)
        measured = evaluate(fitted.model, params, read_schema(params.dataset), 10**9, **examples)
        frame, test = measured.predictions, measured.metrics["test"]
        for start in ("", "aux_"):
            expected = root_mean_squared_error(frame["true"], frame[f"{start}predicted"])
            assert test[f"{start}rmse"] == pytest.approx(expected, rel=1e-5)
        assert test["loss"] == pytest.approx(0.9 * test["rmse"] ** 2 + 0.1 * test["aux_rmse"] ** 2, rel=1e-4)


def test_slices_cover_the_test_rows_and_recompose_the_overall_figure():
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 5, 1000)
    frame = pd.DataFrame({"true": true, "predicted": true + rng.normal(size=1000)})
    error = frame["predicted"] - frame["true"]
    slices = metrics_per_quarter("value", frame["true"], error)
    assert sum(part.rows for part in slices.values()) == 1000
    squares = sum(part.rmse**2 * part.rows for part in slices.values())
    assert math.sqrt(squares / 1000) == pytest.approx(root_mean_squared_error(frame["true"], frame["predicted"]))
    assert metrics_per_quarter("value", frame["true"].head(99), error.head(99)) == {}


def test_only_evaluate_reads_the_test_split(prepared, monkeypatch):
    (paths.prepared_folder("iris") / "test.parquet").unlink()
    fitted, examples = train("iris_perceptron")
    params = load_params().model("iris_perceptron")
    export(
        fitted.model,
        params,
        read_normalization("iris"),
        describe_origin("iris_perceptron", params, read_schema("iris"), 42),
        prepared,
    )
    sample = sample_outputs(fitted.model, examples["valid"])
    (prepared / "export").mkdir()
    verify_export(sample, params, read_schema("iris").raw_sha256, {}, prepared)
    with pytest.raises(UserError, match=r"test\.parquet not found"):
        evaluate(fitted.model, params, read_schema("iris"), 10**9, **examples)
    reads = []
    monkeypatch.setattr(evaluation, "open_split", lambda params, split, _: reads.append(split) or examples["valid"])
    evaluate(fitted.model, params, read_schema("iris"), 10**9, **examples)
    assert reads == ["test"]


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_damaged_prepared_file_is_refused_with_the_stage_that_makes_it(prepared, split):
    path = paths.prepared_folder("iris") / f"{split}.parquet"
    write_table(path, read_table(path, "").drop_columns("species"))
    with pytest.raises(UserError, match=rf"{split}\.parquet: column 'species' is missing.*prepare@iris"):
        read_examples(load_params().model("iris_perceptron"), split)


def test_only_the_latest_logs_are_kept_and_a_failed_runs_are_removed(workspace):
    for _ in range(KEPT_RUNS + 2):
        with run_logs("m", Stopwatch().began) as folder:
            folder.mkdir(parents=True)
    kept = sorted((workspace / "logs/m").iterdir())
    assert len(kept) == KEPT_RUNS
    assert kept[-1].name == folder.name
    with contextlib.suppress(RuntimeError), run_logs("m", Stopwatch().began) as failed:
        failed.mkdir()
        raise RuntimeError
    assert sorted((workspace / "logs/m").iterdir()) == kept


def test_a_folder_of_the_user_among_the_logs_stays(workspace):
    own = [workspace / "logs/m" / name for name in ("00-best", "20240101", "20240101-000000-000000")]
    for folder in own:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    for _ in range(KEPT_RUNS + 2):
        with run_logs("m", Stopwatch().began) as folder:
            (folder / "train").mkdir(parents=True)
            (folder / "train/events.out.tfevents.1.host").touch()
    assert all((folder / "notes.txt").read_text() == "mine" for folder in own)
    assert len(list((workspace / "logs/m").iterdir())) == KEPT_RUNS + len(own)


def check_and_train(name: str) -> None:
    check_recipe(name, load_params().model(name))
    train(name, paths.logs_folder(name))


@pytest.mark.parametrize(
    ("name", "key", "value", "told"),
    [
        ("fashion_mlp", "build__outputs", 5, "'output' has 5 outputs; task 'multiclass' on fashion_mnist needs 10"),
        ("fashion_mlp", "build__output_activation", "linear", "'output' is linear;.*needs softmax"),
        ("housing_mlp", "build__outputs", 2, "'output' has 2 outputs; task 'regression'.*needs 1"),
        ("housing_wide_deep_aux", "build__outputs", 2, "'output' has 2 outputs; task 'regression'.*needs 1"),
        ("housing_mlp", "target", "class", "'class' does not fit california_housing; use 'value'"),
        ("housing_mlp", "target", "is_setosa", "'is_setosa' is for iris"),
        ("iris_perceptron", "target", "class", "'binary' does not fit target 'class'; use 'multiclass'"),
        ("iris_perceptron", "family", "mpl", "unknown family 'mpl'. Did you mean 'mlp'"),
        ("iris_perceptron", "inputs", {"x": "pixels"}, r"models\.iris_perceptron\.inputs: unknown feature 'pixels'"),
        ("linear_neuron", "probes", {"a": {"y": 1}}, "probes.a: gives y; the exported model takes x"),
        ("fashion_mlp", "probes", {"a": {"image": 1}}, "'image' of fashion_mnist is a picture"),
    ],
)
def test_parts_of_a_recipe_that_do_not_fit_are_refused_before_training(prepared, name, key, value, told):
    edit_params(prepared, **{f"models__{name}__{key}": value})
    with pytest.raises(UserError, match=told):
        check_and_train(name)
    assert not (prepared / "logs").exists()
