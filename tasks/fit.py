"""Fit: build a model and train it on the train split, watching the valid split."""

import csv
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import keras
from prefect import task

from config import paths
from config.errors import UserError
from config.params import ModelParams
from models import adapt_normalization, build_model
from models.losses import get_loss
from tasks.examples import Examples
from tasks.recipe import check_network

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A trained model, and the value of every logged figure after each epoch."""

    model: keras.Model
    history: dict[str, list[float]]


class ProgressLog(keras.callbacks.Callback):
    """Logs a line an epoch, but no more than one every `interval_seconds`; always the last one."""

    def __init__(self, interval_seconds: float = 2.0):
        super().__init__()
        self.interval_seconds = interval_seconds

    def on_train_begin(self, logs=None):
        self.began = self.last_line = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        done, epochs = epoch + 1, self.params["epochs"]
        if done < epochs and now - self.last_line < self.interval_seconds:
            return
        self.last_line = now
        figures = "  ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        left = (now - self.began) / done * (epochs - done)
        logger.info("epoch %d/%d  %s  %s", done, epochs, figures, f"{left:.0f} s left" if left else "done")


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Ends the training of model `name` with a UserError as soon as a loss is NaN or infinite."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def on_batch_end(self, batch, logs=None):
        self.check("loss", logs, f"batch {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        self.check("val_loss", logs, f"epoch {epoch + 1}")

    def check(self, figure, logs, when):
        value = (logs or {}).get(figure)
        if value is not None and not math.isfinite(value):
            rate = float(self.model.optimizer.learning_rate)
            raise UserError(
                f"{self.name}: {figure} is {value} after {when}; training diverged. Lower "
                f"models.{self.name}.compile.learning_rate in {paths.PARAMS} (now {rate:g})."
            )


def metrics_of(task_name: str) -> list[str | keras.metrics.Metric]:
    """Return what Keras measures during training, beside the loss."""
    if task_name == "regression":
        return [keras.metrics.RootMeanSquaredError(name="rmse")]
    return ["accuracy"]


def fit(name: str, params: ModelParams, seed: int, train: Examples, valid: Examples, source: str, logs: Path) -> Fitted:
    """Build model `name`, train it by its recipe and return it; TensorBoard reads `logs`.

    source: "real", or "sample", which then stands in the network's own name.
    The same seed on the same machine gives the same weights. Raises UserError when the build arguments
    do not fit the family or the loss becomes NaN.
    """
    keras.utils.set_random_seed(seed)
    shapes = {key: rows.shape[1:] for key, rows in train.inputs.items()}
    model = build_model(params.family, shapes, name, params.build, source)
    check_network(name, model, params)
    adapt_normalization(model, train.inputs)
    optimizer = keras.optimizers.get(
        {"class_name": params.compile.optimizer, "config": {"learning_rate": params.compile.learning_rate}}
    )
    model.compile(optimizer=optimizer, loss=get_loss(params.compile.loss), metrics=metrics_of(params.task))
    logger.info("%s: %d parameters, %d rows", name, model.count_params(), len(train.target))
    history = model.fit(
        train.x,
        train.target,
        batch_size=params.fit.batch_size,
        epochs=params.fit.epochs,
        validation_data=(valid.x, valid.target),
        verbose=0,
        callbacks=[StopOnNonFiniteLoss(name), ProgressLog(), keras.callbacks.TensorBoard(log_dir=str(logs))],
    )
    return Fitted(model, history.history)


def write_history(history: dict[str, list[float]], folder: Path) -> None:
    """Write `history.csv`: a row an epoch, a column a figure."""
    with (folder / "history.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["epoch", *history])
        rows.writerows([epoch, *values] for epoch, values in enumerate(zip(*history.values(), strict=True), start=1))


fit_task = task(fit)
