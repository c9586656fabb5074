"""Outputs that learn their own targets: trained, measured, exported, answered and shown each by itself."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from config.params import load_params
from models.common.outputs import named_outputs
from runtime.errors import UserError
from tasks.data.examples import read_examples
from tasks.data.normalization import read_normalization
from tasks.data.schema import read_schema
from tasks.evaluation.evaluate import evaluate
from tasks.prediction.answers import answer_columns
from tasks.prediction.saved_model import load_model
from tasks.publishing.export import describe_origin, export
from tasks.report.model_page import describe_output
from tasks.report.read import read_predictions
from tasks.training.fit import fit
from tasks.training.recipe_checks import check_recipe
from tests.support.workspaces import edit_params

NAME = "fashion_multitask"
FOOTWEAR = [5, 7, 9]


def small(folder: Path, **edits: object) -> None:
    smaller = {
        "build__blocks": [{"filters": 8, "kernel": 3}],
        "build__hidden": [16],
        "fit__epochs": 12,
        "fit__batch_size": 20,  # divides the rows: a smaller batch would count as much in the loss of an output
        **edits,
    }
    edit_params(folder, **{f"models__{NAME}__{key}": value for key, value in smaller.items()})


def test_each_output_learns_is_measured_and_answers_by_its_own_target(prepared, tmp_path):
    small(prepared)
    params, hardware = load_params().model(NAME), load_params().hardware
    examples = {split: read_examples(params, split) for split in ("train", "valid")}
    np.testing.assert_array_equal(examples["train"].own["footwear"][:, 0], np.isin(examples["train"].target, FOOTWEAR))
    fitted = fit(NAME, params, 42, hardware, **examples)
    assert fitted.history["footwear_accuracy"][-1] > 0.9
    assert fitted.history["loss"][-1] == pytest.approx(
        0.8 * fitted.history["output_loss"][-1] + 0.2 * fitted.history["footwear_loss"][-1], rel=1e-3
    )

    schema = read_schema(params.dataset)
    evaluation = evaluate(fitted.model, params, schema, 10**9, **examples)
    found = evaluation.predictions
    for split in ("train", "valid", "test"):
        assert {"accuracy", "footwear_accuracy", "footwear_f1_macro"} <= set(evaluation.metrics[split])
    np.testing.assert_array_equal(found["footwear_true"] == 1, found["true"].isin(FOOTWEAR))
    right = (found["footwear_predicted"] == found["footwear_true"]).mean()
    assert evaluation.metrics["test"]["footwear_accuracy"] == pytest.approx(right)
    assert {"footwear_probability footwear", "footwear_probability not footwear", "probability Bag"} <= set(found)

    folder = tmp_path / "published"
    folder.mkdir()
    export(fitted.model, params, read_normalization(params.dataset), describe_origin(NAME, params, schema, 42), folder)
    loaded = load_model(folder / "saved_model", NAME, "1")
    pictures = np.random.default_rng(0).integers(0, 256, size=(5, 28, 28)).astype(np.uint8)
    answers = loaded.answer({"image": pictures})
    columns = answer_columns(loaded, answers)
    assert {"label", "footwear_label", "footwear_probability footwear"} <= set(columns)
    labels = pa.array(columns["footwear_label"]).to_pylist()
    assert labels == ["footwear" if value >= 0.5 else "not footwear" for value in answers["footwear"][:, 0]]
    assert set(named_outputs(answers)) == {"output", "footwear"}


def test_a_shuffled_epoch_keeps_the_targets_of_a_row_together(prepared):
    small(prepared)
    examples = read_examples(load_params().model(NAME), "train")
    order = np.random.default_rng(1).permutation(examples.rows)
    taken = examples.take(order)
    np.testing.assert_array_equal(taken.own["footwear"][:, 0] == 1, np.isin(taken.target, FOOTWEAR))


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"targets": {"footware": "is_footwear"}}, "footware.*footwear"),
        ({"targets": {"footwear": "is_footware"}}, "is_footware.*is_footwear"),
        ({"targets": {"footwear": "is_setosa"}}, "targets.footwear: 'is_setosa' is for iris"),
        ({"targets": {}}, "'footwear' has 1 outputs; task 'multiclass'"),
        ({"targets": {"output": "is_footwear"}}, "targets, further outputs"),
        ({"build__heads": {"output": {"outputs": 1, "activation": "sigmoid"}}}, "cannot have the name 'output'"),
        ({"fit__class_weight": "balanced"}, "targets and fit.class_weight exclude each other"),
        ({"build__heads": {"footwear": {"outputs": 1, "activation": "tanh"}}}, "tanh; loss 'binary_crossentropy'"),
    ],
)
def test_targets_that_fit_no_output_are_refused_by_name(prepared, edits, message):
    def train() -> None:
        params = load_params().model(NAME)
        check_recipe(NAME, params)
        examples = {split: read_examples(params, split) for split in ("train", "valid")}
        fit(NAME, params, 42, load_params().hardware, **examples)

    small(prepared, **edits)
    with pytest.raises(UserError, match=message):
        train()


def test_the_report_counts_what_an_output_takes_for_what_and_tells_a_damaged_column(tmp_path):
    names = {f"footwear_probability {name}": [0.5] * 3 for name in ("not footwear", "footwear")}
    own = {"footwear_true": [0, 1, 1], "footwear_predicted": [1, 1, 0]}
    table = pd.DataFrame({"index": [0, 1, 2], "true": [1, 2, 3], "predicted": [1, 2, 3], **own, **names})
    table.to_parquet(tmp_path / "predictions.parquet")
    read = read_predictions(tmp_path / "predictions.parquet", "train@m", None)
    shown = describe_output(read, "footwear", "is_footwear")["confusion"]
    assert [(row["name"], [cell["count"] for cell in row["cells"]]) for row in shown] == [
        ("not footwear", [0, 1]),
        ("footwear", [1, 1]),
    ]
    table.assign(footwear_true=[0, 1, np.nan]).to_parquet(tmp_path / "predictions.parquet")
    with pytest.raises(UserError, match="footwear_true holds other than finite numbers"):
        read_predictions(tmp_path / "predictions.parquet", "train@m", None)
