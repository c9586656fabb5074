"""Fused epochs: the same losses and weights as Keras' own `fit`, from the same batches in the same order."""

import keras
import numpy as np
import pytest

from config.params import ModelParams, load_params
from models.common.outputs import named_outputs, network_input
from models.common.registry import build_model
from models.common.weights import draw_weights
from tasks.data.examples import Examples, read_examples
from tasks.training.fit import Fitted, fit, rows_in_groups
from tasks.training.hardware import has_convolutions
from tests.support.networks import each_model
from tests.support.workspaces import edit_params

BATCH = 32
ROWS = 2 * BATCH + 6  # two batches and a smaller one
VALID_ROWS = 40


def take(recipe: ModelParams, split: str, rows: int) -> Examples:
    examples = read_examples(recipe, split)
    return examples.take(np.arange(rows) % examples.rows)


def train(name: str, folder, execution: str, precision: str = "float32", rows: int = ROWS, **fit_params) -> Fitted:
    """Fit two epochs of model `name` of the current workspace, without what its recipe has besides."""
    params = load_params()
    recipe = params.model(name)
    short = {"epochs": 2, "batch_size": BATCH, "early_stopping": None, "checkpoint": None, "resume": False}
    recipe = recipe.model_copy(update={"fit": recipe.fit.model_copy(update={**short, **fit_params})})
    hardware = params.hardware.model_copy(update={"execution": execution, "precision": precision})
    splits = take(recipe, "train", rows), take(recipe, "valid", VALID_ROWS)
    return fit(name, recipe, 42, hardware, *splits, logs=None, checkpoints=folder / "checkpoints")


def by_hand(name: str, fitted: Fitted) -> list[np.ndarray]:
    """Return the weights after two epochs of `train_on_batch`, the batches cut from the documented order."""
    recipe = load_params().model(name)
    train_rows = take(recipe, "train", ROWS)
    shapes = {key: rows.shape[1:] for key, rows in train_rows.inputs.items()}
    model = build_model(recipe.family, shapes, name, recipe.build)
    draw_weights(model, 42)
    for layer in model.layers:
        if layer.name.startswith("normalize_"):
            layer.adapt(rows_in_groups(train_rows, layer.name.removeprefix("normalize_")))
    model.compile(
        optimizer=keras.optimizers.get(keras.optimizers.serialize(fitted.model.optimizer)),
        loss=fitted.model.loss,
        loss_weights=recipe.compile.loss_weights,
    )
    for epoch in range(2):
        order = np.random.default_rng([42, epoch]).permutation(ROWS)
        for first in range(0, ROWS, BATCH):
            batch = train_rows.take(order[first : first + BATCH])
            names = named_outputs(model(batch.x))
            target = dict.fromkeys(names, batch.target) if len(names) > 1 else batch.target
            model.train_on_batch(network_input(batch.inputs), target)
    return model.get_weights()


def assert_close(one: list[np.ndarray], other: list[np.ndarray], tolerance: float = 2e-5) -> None:
    for first, second in zip(one, other, strict=True):
        np.testing.assert_allclose(first, second, rtol=0, atol=tolerance * max(1.0, np.abs(second).max()))


def draws_numbers(model: keras.Model) -> bool:
    return any(getattr(layer, "seed_generator", None) for layer in model.layers)


def without_random_numbers(name: str) -> dict:
    """Return the edits after which nothing is drawn at random in the training of model `name`."""
    off = {"dropout": 0.0, "attention_dropout": 0.0, "augment": None}
    return {f"models__{name}__build__{key}": off[key] for key in off if key in load_params().model(name).build}


@pytest.mark.rotates
@pytest.mark.parametrize("name", each_model())
def test_a_fused_epoch_equals_keras_own_loop(prepared, tmp_path, name):
    edit_params(prepared, **{f"models__{name}__compile__average": None})
    plain = train(name, tmp_path, "batches")
    ways = ["graph"] if has_convolutions(plain.model) else ["graph", "xla"]
    for way in ways:
        if way == "xla" and draws_numbers(plain.model):  # XLA draws other random numbers from the same seed
            edit_params(prepared, **without_random_numbers(name))
            plain = train(name, tmp_path, "batches")
        fused = train(name, tmp_path, way)
        assert_close(fused.model.get_weights(), plain.model.get_weights())
        assert fused.history.keys() == plain.history.keys()
        for figure, values in fused.history.items():
            # Of several outputs' own losses Keras' loop counts each batch alike, the smaller one too.
            if figure == "val_loss" or not figure.endswith("_loss"):
                np.testing.assert_allclose(values, plain.history[figure], rtol=1e-4, atol=1e-5, err_msg=figure)


@pytest.mark.slow
def test_a_large_network_with_batch_normalization_trains_the_same_each_time(prepared, tmp_path):
    once, *again = (train("fashion_resnet", tmp_path, "graph", rows=300, batch_size=300) for _ in range(4))
    for other in again:
        for first, second in zip(once.model.get_weights(), other.model.get_weights(), strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", ["linear_neuron", "iris_mlp", "housing_wide_deep_aux", "fashion_mlp"])
def test_the_batches_are_those_of_the_seed_the_last_smaller_one_included(prepared, tmp_path, name):
    edit_params(prepared, **{f"models__{name}__compile__average": None})
    if name == "fashion_mlp":  # nothing tells the layers by hand which epoch it is
        edit_params(prepared, models__fashion_mlp__build__augment=None, models__fashion_mlp__build__mirror=False)
    fused = train(name, tmp_path, "graph")
    assert_close(fused.model.get_weights(), by_hand(name, fused))


@pytest.mark.parametrize("way", ["graph", "xla"])
def test_weights_of_classes_and_averages_of_weights_are_keras_own_too(prepared, tmp_path, way):
    edit_params(prepared, models__iris_mlp__compile__average=0.9)
    weighted = {"class_weight": {"setosa": 3.0, "virginica": 0.5}}
    plain, fused = (train("iris_mlp", tmp_path, execution, **weighted) for execution in ("batches", way))
    assert_close(fused.model.get_weights(), plain.model.get_weights())
    np.testing.assert_allclose(fused.history["val_loss"], plain.history["val_loss"], rtol=1e-4)
    without = train("iris_mlp", tmp_path, way)
    assert not np.allclose(without.history["loss"], fused.history["loss"])


def test_a_fitted_model_evaluates_as_any_keras_model(prepared, tmp_path):
    fitted = train("iris_mlp", tmp_path, "graph")
    valid = take(load_params().model("iris_mlp"), "valid", VALID_ROWS)
    loss = fitted.model.evaluate(valid.x, valid.target, verbose=0)[0]
    assert loss == pytest.approx(fitted.history["val_loss"][-1], rel=1e-5)
    fitted.model.fit(valid.x, valid.target, epochs=1, verbose=0)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["iris_mlp", "multi_input_cnn"])
def test_a_model_trained_in_mixed_precision_is_published_in_float32(prepared, tmp_path, name, precision):
    before = keras.config.dtype_policy()
    exact, mixed = (train(name, tmp_path, "graph", chosen) for chosen in ("float32", precision))
    assert keras.config.dtype_policy() == before
    assert all(layer.compute_dtype == "float32" for layer in mixed.model.layers)
    differences = [
        np.abs(a - b).max() for a, b in zip(mixed.model.get_weights(), exact.model.get_weights(), strict=True)
    ]
    assert 0 < max(differences) < 0.05
    assert mixed.history["val_loss"][-1] == pytest.approx(exact.history["val_loss"][-1], rel=0.1)
