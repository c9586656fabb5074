"""Accepted batches on their way into the workspace of `retrain`: how far they are from train, and what follows."""

import shutil
import tempfile
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from config import paths
from config.gates import Gates, LoadLimit
from datasets.dataset import Dataset
from orchestration import registry
from orchestration.model_files import fetch_saved_model
from runtime.atomic_outputs import remove, staging
from runtime.stderr import quiet_stderr
from tasks.arrivals.batches import list_batches
from tasks.arrivals.drift_record import Drift
from tasks.arrivals.failures import Failure, Reasons
from tasks.arrivals.parse import parse
from tasks.arrivals.receive import Received, reject


@dataclass(frozen=True)
class NewBatch:
    """A batch that the workspace of `retrain` has got in this run, or that its drift has kept out.

    drift: None where there are no train rows yet. rejected: its path then; None: it is used.
    """

    name: str
    drift: Drift | None
    rejected: Path | None


def bring_back(dataset: Dataset, folder: Path) -> list[str]:
    """Copy batches that `folder` has and this workspace lacks, such as after `dvc checkout`, back; return their names.

    Without them, their numbers would be given again, to other rows.

    Args:
        dataset: whose batches.
        folder: the workspace of `retrain`.
    """
    own = paths.batches_folder(dataset.name)
    with chdir(folder):
        theirs = list_batches(dataset.name)
    missing = [batch for batch in theirs if not (own / batch.name).exists()]
    if missing:
        own.mkdir(parents=True, exist_ok=True)
        with staging(own, own):  # no `receive` at the same time
            for batch in missing:
                copy_whole(folder / batch, own / batch.name)
    return [batch.name for batch in missing]


def list_new(dataset: Dataset, folder: Path) -> list[Path]:
    """Return the batches of this workspace that the workspace `folder` of `retrain` lacks."""
    place = folder / paths.batches_folder(dataset.name)
    return [batch for batch in list_batches(dataset.name) if not (place / batch.name).exists()]


def bring_batches(
    dataset: Dataset, new: list[Path], train: pa.Table | None, models: list[str], gates: Gates, folder: Path
) -> list[NewBatch]:
    """Copy new batches into `folder`, and record their drift there.

    Args:
        dataset: whose batches.
        new: what `list_new` returned.
        train: the raw train rows of `folder`; None where these are not made yet, and no drift is measured.
        models: of that data set, whose champions' predictions are compared, too.
        gates: of the data set; with `drift: block`, a batch that drifts is moved into data/rejected/D instead.
        folder: the workspace of `retrain`.
    """
    place = folder / paths.batches_folder(dataset.name)
    place.mkdir(parents=True, exist_ok=True)
    found = []
    for batch in new:
        drift = None if train is None else drift_of(dataset, batch, train, models, gates.load, folder)
        if drift and drift.alarm and gates.drift == "block":
            found.append(NewBatch(batch.name, drift, keep_out(dataset, batch, drift)))
            continue
        copy_whole(batch, place / batch.name)
        found.append(NewBatch(batch.name, drift, None))
    return found


def drift_of(
    dataset: Dataset, batch: Path, train: pa.Table, models: list[str], limit: LoadLimit, folder: Path
) -> Drift | None:
    """Measure and record the drift of a batch against the train rows; None for one that has no rows.

    Args:
        dataset: whose rows they are.
        batch: the accepted file or folder.
        train: raw rows.
        models: whose champions' predictions are compared.
        limit: of the time that a champion may take to load and to predict.
        folder: the workspace of `retrain`.
    """
    table, _ = parse(dataset, batch)
    if table is None:
        return None
    with chdir(folder):
        with quiet_stderr():  # scikit-learn and SciPy are slow to import, so only now
            from tasks.arrivals.drift import measure_drift
            from tasks.arrivals.drift_record import write_drift
        predicted = predictions(dataset, models, limit, train, table)
        drift = measure_drift(dataset, train, table, batch.name, predicted)
        write_drift(drift)
        return drift


def predictions(
    dataset: Dataset, models: list[str], limit: LoadLimit, train: pa.Table, batch: pa.Table
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return what the champions answer to the train rows and to the batch: numbers [rows, 1] or probabilities.

    Args:
        dataset: whose rows they are.
        models: of that data set; one without a champion that answers is left out.
        limit: of the time that it may take.
        train: raw rows.
        batch: raw rows.
    """
    from tasks.promotion.score import MAIN_OUTPUT, Scored, score, write_rows

    columns = list(dataset.features)
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as name:
        rows = Path(name, "rows.parquet")
        write_rows(pa.concat_tables([train.select(columns), batch.select(columns)]), rows)
        for model in models:
            champion = registry.champion(model)
            scored = score(fetch_saved_model(champion), rows, limit) if champion else None
            if isinstance(scored, Scored):
                answers = scored.outputs[MAIN_OUTPUT]
                found[model] = answers[: train.num_rows], answers[train.num_rows :]
    return found


def keep_out(dataset: Dataset, batch: Path, drift: Drift) -> Path:
    """Move a batch that drifts into data/rejected/D, with the measures over their limit as reasons.

    Args:
        dataset: whose rows it has.
        batch: the accepted file or folder.
        drift: of the batch.
    """
    reasons, done = Reasons(), Received()
    for column in drift.columns:
        if column.alarm:
            reason = f"drifts from train by {column.effect:.3g} ({column.distance}), limit {column.limit:.3g}"
            reasons.add([Failure(None, column.column, "", reason)])
    reject(dataset, batch, reasons, done)
    return done.rejected[0]


def copy_whole(batch: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    remove(partial)
    if batch.is_dir():
        shutil.copytree(batch, partial)
    else:
        shutil.copy2(batch, partial)
    partial.rename(target)
