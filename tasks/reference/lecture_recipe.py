"""Train a model by the recipe of the lecture notes with several seeds and normalizations, to compare its metrics."""

import logging
from fractions import Fraction
from pathlib import Path

import keras
import pandas as pd
from prefect import task

from config import paths
from config.params import Hardware, ModelParams, Normalization
from models.common.registry import network_name
from tasks.data.contracts import write_contract
from tasks.data.raw_splits import RawSplits, normalized_examples, read_raw_splits
from tasks.data.schema import PreparedSchema
from tasks.evaluation.evaluate import measure
from tasks.evaluation.metrics_files import LectureRecipeMetrics, LectureRecipeRun, LectureRun, write_metrics
from tasks.training.fit import fit

logger = logging.getLogger(__name__)


def train_once(
    name: str,
    params: ModelParams,
    data: RawSplits,
    normalization: Normalization,
    tail: Fraction | None,
    seed: int,
    hardware: Hardware,
) -> tuple[LectureRun, pd.DataFrame]:
    """Train a model once by the recipe of the lecture notes, and measure it.

    Args:
        name: of the model.
        params: the model, with the compile and fit settings of the lecture recipe.
        data: the raw rows of its data set.
        normalization, tail: how their features are normalized (`tasks.data.normalization`).
        seed, hardware: as in `tasks.training.fit.fit`.

    Returns:
        The metrics, and the history with a row per epoch.
    """
    splits = normalized_examples(params, data, normalization, tail, paths.SPLITS)
    logger.info("%s: seed %d, %s", name, seed, normalization)
    keras.backend.clear_session()
    network = network_name(name, data.schema.source)
    fitted = fit(name, params, seed, hardware, splits["train"], splits["valid"], network)
    history = pd.DataFrame({"normalization": normalization, "seed": seed, **fitted.history})
    history.insert(2, "epoch", range(1, len(history) + 1))
    metrics = measure(fitted.model, params, data.schema, splits).metrics
    return LectureRun(normalization=normalization, seed=seed, epochs=len(history), metrics=metrics), history


def write_lecture_recipe(
    name: str, schema: PreparedSchema, runs: list[tuple[LectureRun, pd.DataFrame]], seconds: float, folder: Path
) -> None:
    """Write `metrics.json`, `history.csv` and `run.json`: metrics, learning curves, and how long it took.

    Args:
        name: of the model.
        schema: of the data that it was trained on.
        runs: what `train_once` returned.
        seconds: that they took.
        folder: where the files are put.
    """
    metrics, histories = zip(*runs, strict=True)
    made = LectureRecipeMetrics(
        name=name,
        source=schema.source,
        raw_sha256=schema.raw_sha256,
        source_sha256=schema.source_sha256,
        runs=list(metrics),
    )
    write_metrics(made, folder)
    write_contract(folder / "run.json", LectureRecipeRun(seconds=round(seconds, 3)))
    pd.concat(histories).to_csv(folder / "history.csv", index=False)


train_once_task = task(task_run_name="{name}-{normalization}-seed-{seed}")(train_once)
write_lecture_recipe_task = task(write_lecture_recipe)
read_raw_splits_task = task(read_raw_splits)
