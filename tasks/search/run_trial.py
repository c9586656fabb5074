"""Train a trial or a finalist, or measure the winner on test; each in a process of its own."""

import logging
import time

import keras
import numpy as np

from config.params import DatasetParams, Hardware, ModelParams
from datasets import get_dataset
from models.common.registry import network_name
from runtime.errors import UserError
from tasks.data.raw_splits import normalized_examples, read_raw_splits
from tasks.data.schema import PreparedSchema, read_schema
from tasks.data.streaming import Split, open_split
from tasks.evaluation.evaluate import measure
from tasks.search.pruning import Pruning
from tasks.search.records import (
    TEST,
    FinalRecord,
    Job,
    TrialRecord,
    WinnerRecord,
    final_name,
    model_file,
    read_record,
    record_file,
    trial_name,
    write_whole,
)
from tasks.search.tensorboard_logs import log_trial
from tasks.training.fit import Fitted, fit
from tasks.training.hardware import memory_limit
from tasks.training.recipe_checks import check_recipe

DIGITS = 3  # of the seconds

logger = logging.getLogger(__name__)


def open_splits(job: Job, names: tuple[str, ...]) -> tuple[dict[str, Split], PreparedSchema]:
    """Return the rows of some splits as the job wants them prepared, and the schema of the prepared data.

    Raises UserError where a file is missing or damaged.
    """
    recipe = recipe_of(job)
    if job.preparation is None:
        memory = memory_limit(hardware_of(job))
        return {name: open_split(recipe, name, memory) for name in names}, read_schema(recipe.dataset)
    prepared = DatasetParams.model_validate(job.preparation)
    data = read_raw_splits(get_dataset(recipe.dataset))
    return {**normalized_examples(recipe, data, prepared.normalization, prepared.tail, names)}, data.schema


def recipe_of(job: Job) -> ModelParams:
    return ModelParams.model_validate(job.recipe)


def hardware_of(job: Job) -> Hardware:
    return Hardware.model_validate(job.hardware)


def run_trial(job: Job) -> None:
    """Train a trial and write its record: of a training that diverges, or does not fit into memory, too.

    Raises UserError where a file of the data is missing or damaged.
    """
    began = time.perf_counter()
    known = [read_record(job.model, trial_name(number), TrialRecord) for number in range(job.known)]
    pruning = Pruning(job, known)
    splits, schema = open_splits(job, ("train", "valid"))
    reason, value = "", None
    try:
        fitted = train(job, splits, schema, [pruning])
        value = pruning.values[-1 if pruning.pruned else last_epoch(recipe_of(job), fitted)]
    except UserError as error:
        reason = str(error)
        logger.warning("trial %d failed: %s", job.number, reason)
    record = TrialRecord(
        number=job.number,
        state="failed" if reason else "pruned" if pruning.pruned else "complete",
        seed=job.seed,
        parameters=job.parameters,
        value=value,
        epochs=pruning.values,
        notes=pruning.notes(),
        seconds=round(time.perf_counter() - began, DIGITS),
        reason=reason,
    )
    log_trial(job, record)
    write_whole(record_file(job.model, trial_name(job.number)), record)


def train(job: Job, splits: dict[str, Split], schema: PreparedSchema, more: list[keras.callbacks.Callback]) -> Fitted:
    """Check the recipe of a job and fit it; raises UserError where it does not fit the data, or diverges."""
    recipe = recipe_of(job)
    check_recipe(job.model, recipe)
    network = network_name(job.model, schema.source)
    return fit(
        job.model, recipe, job.seed, hardware_of(job), splits["train"], splits["valid"], network=network, more=more
    )


def last_epoch(recipe: ModelParams, fitted: Fitted) -> int:
    """Return the epoch, from 0, whose weights the trained model has."""
    stopping = recipe.fit.early_stopping
    if stopping and stopping.restore_best:
        return int(np.argmin(fitted.history["val_loss"]))
    return -1


def run_finalist(job: Job) -> None:
    """Train a finalist with the seed of the job; write its network, and then its record."""
    began = time.perf_counter()
    splits, schema = open_splits(job, ("train", "valid"))
    fitted = train(job, splits, schema, [])
    kept = model_file(job.model, job.number, job.seed)
    kept.parent.mkdir(parents=True, exist_ok=True)
    fitted.model.save(kept)
    record = FinalRecord(
        number=job.number,
        seed=job.seed,
        epochs=len(fitted.history["loss"]),
        metrics=measure(fitted.model, recipe_of(job), schema, splits).metrics,
        seconds=round(time.perf_counter() - began, DIGITS),
    )
    write_whole(record_file(job.model, final_name(job.number, job.seed)), record)


def run_test(job: Job) -> None:
    """Measure the networks of the winner on test, and write the record."""
    splits, schema = open_splits(job, ("test",))
    metrics = []
    for seed in job.seeds:
        network = keras.models.load_model(model_file(job.model, job.number, seed))
        metrics.append(measure(network, recipe_of(job), schema, splits).metrics["test"])
    write_whole(record_file(job.model, TEST), WinnerRecord(number=job.number, seeds=job.seeds, metrics=metrics))
