"""Recipes: every option of `compile` and `fit` does what it says, and what does not fit is refused in time."""

from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from config import paths
from config.params import Compile, load_params
from runtime.errors import UserError
from tasks.data.examples import read_examples
from tasks.data.schema import read_schema
from tasks.training import checkpoints
from tasks.training.fit import Fitted, fit, make_optimizer
from tasks.training.recipe_checks import check_recipe
from tests.support.training import train as fit_model
from tests.support.workspaces import edit_params


def train(name: str, logs: Path | None = None) -> Fitted:
    """Check and fit model `name`, as the flow does."""
    check_recipe(name, load_params().model(name))
    return fit_model(name, logs)[0]


def same_weights(one: keras.Model, other: keras.Model) -> bool:
    return all(map(np.array_equal, one.get_weights(), other.get_weights()))


class Killed(Exception):
    """A training that is ended from outside."""


def killed_after(epoch: int) -> keras.callbacks.Callback:
    """Return a callback that ends a training when `epoch` epochs are done."""

    def end(now: int, logs: dict | None = None) -> None:
        if now == epoch:
            raise Killed

    return keras.callbacks.LambdaCallback(on_epoch_begin=end)


@pytest.mark.parametrize("name", ["fashion_mlp", "housing_wide_deep_subclassed", "tiny_cnn", "tiny_resnet"])
def test_an_interrupted_training_ends_with_the_weights_and_history_of_a_whole_one(prepared, caplog, name):
    """The optimizer's moments, the order of the rows, dropout's draws and the changes of pictures included."""
    edit_params(
        prepared,
        models__housing_wide_deep_subclassed__fit={"epochs": 5, "batch_size": 32, "loss_ratio": True},
        models__housing_wide_deep_subclassed__compile__average=None,
        models__tiny_cnn=tiny_cnn(prepared),
        models__tiny_resnet=tiny_resnet(prepared),
    )
    edit_params(prepared, **{f"models__{name}__fit__epochs": 5})
    whole = train(name)
    edit_params(prepared, **{f"models__{name}__fit__resume": True})
    with pytest.raises(Killed):
        fit_model(name, more=[killed_after(3)])
    with caplog.at_level("INFO"):
        resumed = train(name)
    assert "resuming after epoch 3" in caplog.text
    assert resumed.earlier_seconds > 0
    assert same_weights(whole.model, resumed.model)
    assert resumed.history == whole.history
    assert len(resumed.history["loss"]) == 5


def test_more_epochs_continue_where_the_learning_rate_is_constant(prepared, caplog):
    recipe = {"optimizer": "adam", "learning_rate": 0.001, "loss": "mean_squared_error"}
    edit_params(prepared, models__housing_mlp__compile=recipe)
    edit_params(prepared, models__housing_mlp__fit={"epochs": 5, "batch_size": 32})
    whole = train("housing_mlp")
    edit_params(prepared, models__housing_mlp__fit={"epochs": 3, "batch_size": 32, "resume": True})
    train("housing_mlp")
    edit_params(prepared, models__housing_mlp__fit__epochs=5)
    with caplog.at_level("INFO"):
        continued = train("housing_mlp")
    assert "resuming after epoch 3" in caplog.text
    assert same_weights(whole.model, continued.model)
    assert continued.history == whole.history


def tiny_cnn(workspace: Path) -> dict:
    """Return the parameters of a small network with Dropout."""
    model = load_params(workspace / "params.yaml").models["fashion_cnn"].model_dump(mode="json", exclude_none=True)
    model["build"]["blocks"] = [{"filters": 4, "kernel": 3}]
    model["build"]["hidden"] = [8]
    return {**model, "fit": {"epochs": 1, "batch_size": 32}}


def tiny_resnet(workspace: Path) -> dict:
    """Return the parameters of a small network that changes its pictures in training."""
    build = {"stem": 4, "stages": [4, 8], "outputs": 10, "output_activation": "softmax", "mirror": True}
    augment = {"shift": 1, "flip": True, "erase": 4}
    return {**tiny_cnn(workspace), "family": "resnet", "build": {**build, "augment": augment}}


def test_training_starts_anew_when_the_recipe_changed_or_fewer_epochs_are_asked(prepared, caplog):
    edit_params(prepared, models__housing_mlp__fit={"epochs": 3, "batch_size": 32, "resume": True})
    edit_params(prepared, models__housing_mlp__compile__average=None)
    train("housing_mlp")
    edit_params(prepared, models__housing_mlp__compile__learning_rate=0.01)
    with caplog.at_level("INFO"):
        changed = train("housing_mlp")
    assert "of another recipe" in caplog.text
    assert len(changed.history["loss"]) == 3
    edit_params(prepared, models__housing_mlp__fit__epochs=2)
    assert len(train("housing_mlp").history["loss"]) == 2
    assert "has 3 epochs already" in caplog.text


@pytest.mark.parametrize("change", ["nothing", "valid rows", "threads", "processor", "TensorFlow"])
def test_training_resumes_only_where_it_would_end_the_same(prepared, caplog, monkeypatch, change):
    edit_params(prepared, models__housing_mlp__fit={"epochs": 2, "batch_size": 32, "resume": True})
    edit_params(prepared, models__housing_mlp__compile__average=None)
    edit_params(prepared, hardware__execution="graph")
    params, examples = load_params().model("housing_mlp"), fit_model("housing_mlp")[1]
    hardware = load_params().hardware
    if change == "valid rows":
        examples["valid"] = examples["valid"].take(np.arange(50))
    elif change == "threads":
        hardware = hardware.model_copy(update={"threads": 7})
    elif change == "processor":
        monkeypatch.setattr(checkpoints, "processor_name", lambda: "another")
    elif change == "TensorFlow":
        monkeypatch.setattr(checkpoints, "version", lambda _: "0.0")
    with caplog.at_level("INFO"):
        fit("housing_mlp", params, 42, hardware, **examples, checkpoints=paths.checkpoints_folder("housing_mlp"))
    assert ("resuming after epoch 2" if change == "nothing" else "starting at epoch 1") in caplog.text


def test_a_checkpoint_that_was_cut_off_is_not_trusted(prepared):
    edit_params(prepared, models__housing_mlp__fit={"epochs": 2, "batch_size": 32, "resume": True})
    edit_params(prepared, models__housing_mlp__compile__average=None)
    expected = train("housing_mlp")
    (paths.checkpoints_folder("housing_mlp") / "last/training_metadata.json").write_text("{")
    again = train("housing_mlp")
    assert same_weights(expected.model, again.model)
    assert again.history == expected.history


def test_early_stopping_ends_with_the_best_epoch_and_the_checkpoint_holds_it(prepared):
    edit_params(
        prepared,
        models__iris_mlp__fit={
            "epochs": 60,
            "batch_size": 8,
            "class_weight": {"virginica": 0.0},  # so that valid, where every row counts, gets worse
            "early_stopping": {"patience": 3, "restore_best": True},
            "checkpoint": {"best_only": True, "weights_only": True},
        },
    )
    fitted = train("iris_mlp")
    losses = fitted.history["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 3 < 60
    valid = read_examples(load_params().model("iris_mlp"), "valid")
    assert fitted.model.evaluate(valid.x, valid.target, verbose=0)[0] == pytest.approx(losses[best], rel=1e-5)
    saved = keras.models.clone_model(fitted.model)
    saved.load_weights(paths.checkpoints_folder("iris_mlp") / "best.weights.h5")
    assert same_weights(fitted.model, saved)


def test_checkpoints_of_every_epoch_are_whole_models_where_the_recipe_says_so(prepared):
    edit_params(
        prepared,
        models__iris_mlp__fit={
            "epochs": 2,
            "batch_size": 8,
            "checkpoint": {"best_only": False, "weights_only": False},
        },
    )
    fitted = train("iris_mlp")
    files = sorted(paths.checkpoints_folder("iris_mlp").iterdir())
    assert [file.name for file in files] == ["epoch-0001.keras", "epoch-0002.keras"]
    assert same_weights(fitted.model, keras.saving.load_model(files[1]))


def test_the_loss_ratio_is_valid_by_train_in_history_and_tensorboard(prepared):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    edit_params(prepared, models__housing_mlp__fit={"epochs": 2, "batch_size": 32, "loss_ratio": True})
    history = train("housing_mlp", prepared / "logs").history
    expected = np.divide(history["val_loss"], history["loss"])
    np.testing.assert_allclose(history["loss_ratio"], expected)
    assert "epoch_loss_ratio" in EventAccumulator(str(prepared / "logs/train")).Reload().Tags()["tensors"]


def test_tensorboard_gets_a_profile_of_the_chosen_batches(prepared):
    edit_params(prepared, models__housing_mlp__fit__profile_batches=[2, 4])
    train("housing_mlp", prepared / "logs")
    assert list((prepared / "logs").glob("train/plugins/profile/*/*.xplane.pb"))


def test_class_and_sample_weights_multiply(prepared):
    edit_params(prepared, models__iris_mlp__fit__class_weight={"versicolor": 3.0, "setosa": 0.0})
    weighted = read_examples(load_params().model("iris_mlp"), "train")
    by_class = {int(k): set(weighted.weight[weighted.target == k].tolist()) for k in range(3)}
    assert by_class == {0: {0.0}, 1: {3.0}, 2: {1.0}}
    edit_params(prepared, models__iris_mlp__fit__class_weight={"rose": 2.0})
    with pytest.raises(UserError, match=r"fit\.class_weight, classes.*setosa"):
        train("iris_mlp")

    binary = {"class_weight": {"above the median": 2.0}, "sample_weight": "capped_values_half"}
    edit_params(prepared, models__binary_mlp__fit={"epochs": 1, "batch_size": 32, **binary})
    params = load_params().model("binary_mlp")
    examples = read_examples(params, "train")
    dataset = pd.read_parquet(paths.prepared_folder("california_housing") / "train.parquet")
    value = dataset["MedHouseVal"].to_numpy()
    expected = np.where(value > read_schema("california_housing").train_median, 2, 1) * np.where(value > 5, 0.5, 1)
    np.testing.assert_allclose(examples.weight, expected)
    assert (value > 5).any()  # else the product would not be seen


def test_balanced_classes_weigh_the_same_in_all(prepared):
    edit_params(prepared, models__iris_perceptron__fit__class_weight="balanced")
    examples = read_examples(load_params().model("iris_perceptron"), "train")
    is_setosa = examples.target[:, 0] == 1
    assert examples.weight[is_setosa].sum() == pytest.approx(examples.weight[~is_setosa].sum(), rel=1e-5)


def test_a_row_of_weight_zero_teaches_nothing(prepared):
    edit_params(prepared, models__iris_mlp__fit__class_weight={"virginica": 0.0})
    edit_params(prepared, models__iris_mlp__fit__epochs=40)
    valid = read_examples(load_params().model("iris_mlp"), "valid")
    predicted = train("iris_mlp").model.predict(valid.x, verbose=0).argmax(axis=1)
    assert 2 not in predicted


def test_loss_weights_weigh_the_outputs(prepared):
    history = train("housing_wide_deep_aux").history
    weighted = 0.9 * np.array(history["val_output_loss"]) + 0.1 * np.array(history["val_aux_loss"])
    np.testing.assert_allclose(history["val_loss"], weighted, rtol=1e-4)
    assert {"rmse", "aux_rmse", "val_rmse", "val_aux_rmse"} <= set(history)


def test_a_cosine_schedule_ends_at_zero(prepared):
    edit_params(prepared, models__housing_mlp__compile__schedule="cosine")
    edit_params(prepared, models__housing_mlp__compile__average=None)
    assert float(train("housing_mlp").model.optimizer.learning_rate) == pytest.approx(0, abs=1e-9)


def test_a_rate_with_warmup_rises_to_that_of_the_recipe_and_falls_to_zero():
    recipe = Compile(
        optimizer="adamw", learning_rate=0.5, weight_decay=0.1, schedule="cosine", warmup=0.2, loss="huber"
    )
    optimizer = make_optimizer(recipe, 100)
    rates = [float(optimizer._learning_rate(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)
    assert optimizer.weight_decay == 0.1


def test_smoothed_labels_keep_a_network_from_being_certain(prepared):
    edit_params(
        prepared,
        models__iris_mlp__target="one_hot",
        models__iris_mlp__compile__loss="categorical_crossentropy",
        models__iris_mlp__fit={"epochs": 60, "batch_size": 8},
    )
    valid = read_examples(load_params().model("iris_mlp"), "valid")
    certain = train("iris_mlp").model.predict(valid.x, verbose=0).max()
    edit_params(prepared, models__iris_mlp__compile__label_smoothing=0.3)
    assert train("iris_mlp").model.predict(valid.x, verbose=0).max() < 0.9 < certain


def test_averaged_weights_are_what_training_ends_with(prepared):
    edit_params(prepared, models__housing_mlp__compile__average=0.999999)  # hardly leaves where it began
    averaged = train("housing_mlp")
    edit_params(prepared, models__housing_mlp__compile__average=None)
    plain = train("housing_mlp")
    assert not same_weights(averaged.model, plain.model)
    assert plain.history["loss"] == averaged.history["loss"]  # the average does not steer
    assert plain.history["val_loss"][-1] < averaged.history["val_loss"][-1]


@pytest.mark.parametrize(
    ("name", "compile", "figure"),
    [
        ("iris_mlp", {"metrics": ["top_3_accuracy"]}, "top_3_accuracy"),
        ("housing_mlp", {"metrics": ["mean_absolute_error"], "loss": "huber"}, "mae"),
        ("binary_mlp", {"metrics": ["precision", "recall", "auc"]}, "val_auc"),
    ],
)
def test_metrics_of_the_recipe_are_measured_each_epoch(prepared, name, compile, figure):
    edit_params(prepared, **{f"models__{name}__compile__{key}": value for key, value in compile.items()})
    assert figure in train(name).history


def test_one_hot_labels_give_the_same_loss_as_class_numbers(prepared):
    sparse = train("iris_mlp").history
    edit_params(
        prepared, models__iris_mlp__target="one_hot", models__iris_mlp__compile__loss="categorical_crossentropy"
    )
    np.testing.assert_allclose(train("iris_mlp").history["loss"], sparse["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "edits", "told"),
    [
        ("housing_mlp", {"compile__loss": "binary_crossentropy"}, "use mean_squared_error or huber"),
        ("binary_mlp", {"compile__loss": "mean_squared_error"}, "use binary_crossentropy or half_squared_error"),
        ("binary_mlp", {"compile__loss": "half_squared_error"}, "'output' is sigmoid;.*needs heaviside"),
        ("binary_mlp", {"build__output_activation": "softmax"}, "'output' is softmax;.*needs sigmoid"),
        ("iris_mlp", {"compile__loss": "categorical_crossentropy"}, "one-hot labels, and.*use target 'one_hot'"),
        ("iris_mlp", {"target": "one_hot"}, "compares with class labels.*use target 'class'"),
        ("iris_mlp", {"compile__metrics": ["auc"]}, "'auc' does not fit task 'multiclass', which can have top_3"),
        ("housing_mlp", {"fit__class_weight": "balanced"}, "class_weight is for classes"),
        ("housing_mlp", {"fit__sample_weight": "half"}, "unknown sample weight 'half'.*capped_values_half"),
        ("housing_mlp", {"target": "is_above_median"}, "use 'binary'"),
        ("binary_cnn", {"dataset": "iris"}, "needs it; the data set has"),
        ("housing_wide_deep_aux", {"compile__loss_weights": {"output": 0.9}}, "each of the outputs output, aux"),
        ("housing_wide_deep_aux", {"compile__loss_weights": {"output": 1, "ux": 1}}, "'ux'. Did you mean 'aux'"),
        (
            "housing_wide_deep_subclassed",
            {"fit__resume": True},
            r"resume and early_stopping exclude each other",
        ),
        ("housing_mlp", {"fit__resume": True}, "average and fit.resume exclude each other"),
        ("housing_mlp", {"compile__optimizer": "adamw"}, "adamw needs weight_decay"),
        ("housing_mlp", {"compile__weight_decay": 0.1}, "no other takes it"),
        ("housing_mlp", {"compile__warmup": 0.1}, "warmup needs the schedule 'cosine'"),
        ("iris_mlp", {"compile__label_smoothing": 0.1}, "needs the loss 'categorical_crossentropy'"),
        ("iris_mlp", {"build__mirror": True}, "are for pictures, and the input is a row of numbers"),
        ("fashion_mlp", {"build__normalization": True}, "are for rows of numbers, and the input is a picture"),
        ("fashion_mlp", {"build__bins": 8}, "are for rows of numbers, and the input is a picture"),
        ("fashion_cnn", {"build__augment": {"shift": 40}}, "shift is 40 pixels, and the picture has 28 x 28"),
        ("fashion_cnn", {"build__augment": {"turn": 40}}, "turn"),
        ("housing_mlp", {"fit__profile_batches": [4, 2]}, "the first, 4, is behind the last"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(prepared, name, edits, told):
    edit_params(prepared, **{f"models__{name}__{key}": value for key, value in edits.items()})
    with pytest.raises(UserError, match=told) as refused:
        train(name, prepared / "logs")
    assert name in str(refused.value)
    assert not (prepared / "logs").exists()
