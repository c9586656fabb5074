"""Fit: build a model and train it on the train split, watching the valid split."""

import csv
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from prefect import task

from config.params import Compile, ModelParams
from models import MAIN_OUTPUT, adapt_normalization, build_model, output_shapes, spread
from models.losses import get_loss
from tasks.batches import EpochOrder, shuffled_batches
from tasks.callbacks import LossRatio, ProgressLog, StopOnNonFiniteLoss
from tasks.checkpoints import checkpoint_callbacks, open_checkpoints, read_history
from tasks.evaluate import BATCH_ROWS
from tasks.examples import Examples
from tasks.recipe import check_network

# Batches that one call of the compiled program trains on; TensorFlow returns to Python in between.
STEPS_PER_EXECUTION = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A trained model, and the value of every logged figure after each epoch."""

    model: keras.Model
    history: dict[str, list[float]]


def fit(
    name: str,
    params: ModelParams,
    seed: int,
    train: Examples,
    valid: Examples,
    source: str,
    logs: Path | None,
    checkpoints: Path,
) -> Fitted:
    """Build model `name`, train it by its recipe and return it.

    source: "real", or "sample", which then stands in the network's own name. logs: folder for TensorBoard, or None.
    checkpoints: folder for what the recipe saves during training.
    The same seed on the same machine gives the same weights, bit for bit, whether in one go or resumed.
    Raises UserError when the build arguments do not fit the family or the loss becomes NaN.
    """
    make_reproducible(seed)
    shapes = {key: rows.shape[1:] for key, rows in train.inputs.items()}
    model = build_model(params.family, shapes, name, params.build, source)
    check_network(name, model, params, shapes)
    adapt_normalization(model, train.inputs)
    outputs = list(output_shapes(model, shapes))
    steps = math.ceil(len(train.target) / params.fit.batch_size)
    model.compile(
        optimizer=make_optimizer(params.compile, steps * params.fit.epochs),
        loss=spread(get_loss(params.compile.loss), outputs),
        loss_weights=params.compile.loss_weights if len(outputs) > 1 else None,
        metrics=metrics_of(params, outputs),
        steps_per_execution=1 if params.fit.profile_batches else min(STEPS_PER_EXECUTION, steps),
    )
    logger.info("%s: %d parameters, %d rows", name, model.count_params(), len(train.target))
    open_checkpoints(params, seed, train, checkpoints)
    order = EpochOrder(len(train.target), seed)
    profiled = params.fit.profile_batches or 0
    history = model.fit(
        shuffled_batches(train, spread(train.target, outputs), params.fit.batch_size, order),
        epochs=params.fit.epochs,
        validation_data=(valid.x, spread(valid.target, outputs)),
        validation_batch_size=BATCH_ROWS,
        shuffle=False,  # the batches are shuffled already
        verbose=0,
        callbacks=[
            order,
            # First, so that whatever looks at an epoch's end sees the averaged weights.
            *([keras.callbacks.SwapEMAWeights(swap_on_epoch=True)] if params.compile.average else []),
            StopOnNonFiniteLoss(name),
            *([LossRatio()] if params.fit.loss_ratio else []),
            ProgressLog(),
            *([keras.callbacks.TensorBoard(log_dir=str(logs), profile_batch=profiled)] if logs else []),
            *checkpoint_callbacks(params, checkpoints),
            *early_stopping(params),
        ],
    )
    figures = read_history(checkpoints) if params.fit.resume else history.history
    return Fitted(model, {plain_name(figure): values for figure, values in figures.items()})


def make_reproducible(seed: int) -> None:
    """Seed every generator, and have TensorFlow choose deterministic operations, which matters on a GPU."""
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def make_optimizer(recipe: Compile, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of a recipe. steps: of the whole training, over which a cosine falls to 0."""
    rate: Any = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    average = {"use_ema": True, "ema_momentum": recipe.average} if recipe.average else {}
    return {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[recipe.optimizer](learning_rate=rate, **average)


def metrics_of(params: ModelParams, outputs: list[str]) -> Any:
    """Return what Keras measures each epoch beside the loss: the task's own figure first."""
    one_hot = params.compile.loss == "categorical_crossentropy"
    top = keras.metrics.TopKCategoricalAccuracy if one_hot else keras.metrics.SparseTopKCategoricalAccuracy
    make = {
        "mean_absolute_error": lambda: keras.metrics.MeanAbsoluteError(name="mae"),
        "precision": lambda: keras.metrics.Precision(name="precision"),
        "recall": lambda: keras.metrics.Recall(name="recall"),
        "auc": lambda: keras.metrics.AUC(name="auc"),
        "top_3_accuracy": lambda: top(k=3, name="top_3_accuracy"),
    }

    def chosen() -> list[str | keras.metrics.Metric]:
        own = keras.metrics.RootMeanSquaredError(name="rmse") if params.task == "regression" else "accuracy"
        return [own, *(make[metric]() for metric in params.compile.metrics)]

    return {output: chosen() for output in outputs} if len(outputs) > 1 else chosen()


def early_stopping(params: ModelParams) -> list[keras.callbacks.Callback]:
    chosen = params.fit.early_stopping
    if chosen is None:
        return []
    return [keras.callbacks.EarlyStopping(patience=chosen.patience, restore_best_weights=chosen.restore_best)]


def plain_name(figure: str) -> str:
    """Return Keras' name of a figure without that of the main output; the losses keep theirs."""
    if figure.endswith("_loss"):
        return figure
    start = "val_" if figure.startswith("val_") else ""
    return start + figure.removeprefix(start).removeprefix(f"{MAIN_OUTPUT}_")


def write_history(history: dict[str, list[float]], folder: Path) -> None:
    """Write `history.csv`: a row an epoch, a column a figure."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", *history])
        rows.writerows([epoch, *values] for epoch, values in enumerate(zip(*history.values(), strict=True), start=1))


fit_task = task(fit)
