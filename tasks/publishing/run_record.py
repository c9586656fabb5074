"""The record of a training: `metrics.json`, which a rerun reproduces, and `run.json`, which it does not."""

import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import keras
from prefect import task

from config.params import ModelParams
from tasks.data.schema import PreparedSchema
from tasks.evaluation.evaluate import Evaluation, write_predictions
from tasks.evaluation.metrics_files import MemberMetrics, ModelMetrics, Parameters, SplitMetrics, write_metrics
from tasks.publishing.checksums import checksums
from tasks.publishing.records import RunRecord, RunSeconds, Versions, write_run
from tasks.training.fit import Fitted, write_history
from tasks.training.hardware import processor_name

PACKAGES = ("keras", "tensorflow", "numpy", "pandas", "pyarrow", "scikit-learn", "prefect", "dvc")


def describe_metrics(
    name: str,
    params: ModelParams,
    seed: int,
    schema: PreparedSchema,
    fitted: Fitted,
    evaluation: Evaluation,
    probes: dict[str, float],
    members: dict[int, SplitMetrics],
) -> ModelMetrics:
    """Return the content of metrics.json.

    Args:
        name: of the model.
        params: its recipe.
        seed: that it was trained with.
        schema: of the data that it was trained on.
        fitted: the trained model.
        evaluation: its metrics.
        probes: its example predictions, by label.
        members: the metrics of the networks of an ensemble, by their seed.
    """
    trainable = sum(int(keras.ops.size(weight)) for weight in fitted.model.trainable_weights)
    return ModelMetrics(
        name=name,
        dataset=params.dataset,
        task=params.task,
        source=schema.source,
        raw_sha256=schema.raw_sha256,
        source_sha256=schema.source_sha256,
        seed=seed,
        parameters=Parameters(total=fitted.model.count_params(), trainable=trainable),
        epochs=len(fitted.history["loss"]),
        metrics=evaluation.metrics,
        per_class=evaluation.per_class,
        slices=evaluation.slices,
        probes=probes,
        members=[MemberMetrics(seed=own, metrics=metrics) for own, metrics in members.items()] or None,
    )


def describe_run(params: ModelParams, began: datetime, seconds: dict[str, float], fitted: Fitted) -> RunRecord:
    """Return the content of run.json, without the checksums of the files.

    Args:
        params: the recipe.
        began: when the run started (UTC).
        seconds: of each step, and in all.
        fitted: the trained model.
    """
    packages = {package: version(package) for package in PACKAGES}
    return RunRecord(
        began=began.isoformat(timespec="seconds"),
        seconds=RunSeconds(**{step: round(taken, 3) for step, taken in seconds.items()}),
        peak_memory_bytes=peak_memory_bytes(),
        device=device(),
        precision=fitted.precision,
        precision_reason=fitted.precision_reason,
        execution=fitted.execution,
        cores=os.cpu_count(),
        platform=platform.platform(),
        backend=keras.backend.backend(),
        versions=Versions(python=platform.python_version(), **packages),
        git_commit=git_commit(),
        recipe=params.model_dump(mode="json", exclude_defaults=True),
        files={},
    )


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts kilobytes


def device() -> str:
    """Return the name of the GPU that Keras uses, or of the processor."""
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
    return f"CPU ({processor_name()})"


def git_commit() -> str | None:
    """Return the commit that is checked out, with "+changes" when files differ from it; None outside git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty=+changes"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class Stopwatch:
    """Measures the seconds of consecutive steps."""

    def __init__(self) -> None:
        self.began = datetime.now(UTC)
        self.laps: dict[str, float] = {}
        self.first = self.last = time.monotonic()

    def lap(self, step: str, earlier: float = 0.0) -> None:
        """Record for `step` the seconds since the last lap, and those that an earlier process spent on it."""
        now = time.monotonic()
        self.laps[step], self.last = earlier + now - self.last, now
        self.first -= earlier

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every step, and `total` since the start."""
        return {**self.laps, "total": time.monotonic() - self.first}


def write_record(metrics: ModelMetrics, run: RunRecord, fitted: Fitted, evaluation: Evaluation, folder: Path) -> None:
    """Write metrics.json, history.csv and predictions.parquet, then run.json with the checksums of all files.

    By the checksums `tasks.publishing.checksums` finds files of another training.

    Args:
        metrics: the content of metrics.json.
        run: the content of run.json, without the checksums.
        fitted: the trained model.
        evaluation: its predictions.
        folder: what the training publishes.
    """
    write_history(fitted.history, folder)
    write_predictions(evaluation.predictions, folder)
    write_metrics(metrics, folder)
    write_run(run.model_copy(update={"files": checksums(folder)}), folder)


write_record_task = task(write_record)
