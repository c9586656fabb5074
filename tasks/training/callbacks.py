"""Callbacks that Keras does not have: progress lines, clocks, a stop on divergence, the ratio of the losses."""

import logging
import math
import time
from pathlib import Path

import keras

from config import paths
from runtime.errors import UserError
from runtime.progress_line import StepProgress

logger = logging.getLogger(__name__)


class ProgressLog(keras.callbacks.Callback):
    """Logs a line per epoch, at most one every `interval_seconds`, and always the last one.

    Within a long epoch it logs the share that is done every `within_seconds`.
    """

    def __init__(self, interval_seconds: float = 2.0, within_seconds: float = 20.0):
        super().__init__()
        self.interval_seconds, self.within_seconds = interval_seconds, within_seconds

    def on_train_begin(self, logs=None):
        self.began = self.last_line = time.monotonic()
        self.first = None

    def on_epoch_begin(self, epoch, logs=None):
        self.first = epoch if self.first is None else self.first
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        now = time.monotonic()
        if now - self.last_line >= self.within_seconds:
            self.last_line = now
            share = (batch + 1) / self.params["steps"]
            logger.info("%s", StepProgress("epoch", self.epoch + 1, self.params["epochs"], (f"{100 * share:.0f} %",)))

    def on_epoch_end(self, epoch, logs=None):
        now = time.monotonic()
        done, epochs = epoch + 1, self.params["epochs"]
        if done < epochs and now - self.last_line < self.interval_seconds:
            return
        self.last_line = now
        measured = (f"{name} {value:.4f}" for name, value in (logs or {}).items())
        left = (now - self.began) / (done - self.first) * (epochs - done)
        logger.info("%s", StepProgress("epoch", done, epochs, (*measured, f"{left:.0f} s left" if left else "done")))


class EpochClock(keras.callbacks.Callback):
    """Records when each epoch ended, by `time.perf_counter`."""

    def __init__(self):
        super().__init__()
        self.ends: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(time.perf_counter())


class TimeSpent(keras.callbacks.Callback):
    """Writes into `file`, after each epoch, the seconds that a training has taken: `earlier` ones, and since then."""

    def __init__(self, file: Path, earlier: float):
        super().__init__()
        self.file, self.earlier = file, earlier
        self.began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.file.write_text(f"{self.earlier + time.monotonic() - self.began:.3f}\n", encoding="utf-8")


class StopOnNonFiniteLoss(keras.callbacks.Callback):
    """Stops the training of model `name` with a UserError when a loss is NaN or infinite."""

    def __init__(self, name: str):
        super().__init__()
        self.name = name

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.check("loss", logs)

    def on_epoch_end(self, epoch, logs=None):
        self.check("val_loss", logs)

    def check(self, metric, logs):
        value = (logs or {}).get(metric)
        if value is not None and not math.isfinite(value):
            rate = float(self.model.optimizer.learning_rate)
            raise UserError(
                f"{self.name}: {metric} is {float(value)} in epoch {self.epoch + 1}; training diverged. Lower "
                f"models.{self.name}.compile.learning_rate in {paths.PARAMS} (now {rate:g})."
            )


class LossRatio(keras.callbacks.Callback):
    """Adds `loss_ratio`, the validation loss divided by the training loss, to the logs of each epoch.

    Far above 1 it indicates overfitting. The callbacks behind this one and the history get it, too.
    """

    def on_epoch_end(self, epoch, logs=None):
        if logs:
            logs["loss_ratio"] = logs["val_loss"] / logs["loss"] if logs["loss"] else math.nan
