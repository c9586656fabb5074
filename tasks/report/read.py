"""Read what the stages have written for each model and data set, and what of it is missing.

A report matters most when something went wrong. So a missing or damaged file stops nothing: its page says so.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from config import paths
from config.params import Params
from datasets import get_dataset
from datasets.dataset import Dataset, to_values
from runtime.disk import refuse_unless_file
from runtime.errors import UserError
from tasks.arrivals.drift_record import Drift, drift_files, read_drift
from tasks.data.files import missing, open_table
from tasks.data.normalization import Normalization, read_normalization
from tasks.data.raw import Provenance, read_provenance, read_raw
from tasks.data.schema import INDEX, PreparedSchema, read_prepared_schema
from tasks.data.validation import check_index, check_rows, check_table
from tasks.evaluation.metrics_files import (
    BaselineMetrics,
    LectureRun,
    ModelMetrics,
    read_baseline_metrics,
    read_baseline_runs,
    read_lecture_recipe_metrics,
    read_metrics,
)
from tasks.promotion.verdict import FILE as VERDICT_FILE
from tasks.promotion.verdict import Verdict, read_verdict
from tasks.publishing.checksums import of_another_training, tree_sha256
from tasks.publishing.export_record import ExportRecord, read_export_record
from tasks.publishing.records import Graph, RunRecord, read_graph, read_run

# The columns that the pages need in the tables of a model.
HISTORY = ("epoch", "loss", "val_loss")
PREDICTIONS = ("index", "true", "predicted")
CURVES = ("normalization", "seed", "epoch")
TEXT = ("normalization",)
COUNTS = ("index", "epoch", "seed")


@dataclass(frozen=True)
class Artifacts:
    """What `train` has written for a model; None or empty where it is missing.

    verdict: of the last candidate that was judged; None, and nothing missing, where none was. is_judged: whether that
    candidate is the model in this folder. missing: a sentence for each file that cannot be read. mixed: the files of
    another training than run.json's.
    """

    name: str
    metrics: ModelMetrics | None
    run: RunRecord | None
    history: pd.DataFrame | None
    predictions: pd.DataFrame | None
    graph: Graph | None
    filters: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    export: ExportRecord | None
    verdict: Verdict | None
    is_judged: bool
    missing: list[str]
    mixed: list[str]


@dataclass(frozen=True)
class Data:
    """What `ingest` and `prepare` have written for a data set.

    table: the raw rows. rows: the number in `table` of each row of a split. drifts: of the accepted batches.
    """

    dataset: Dataset
    provenance: Provenance | None
    table: pa.Table | None
    schema: PreparedSchema | None
    normalization: Normalization | None
    rows: dict[str, np.ndarray]
    drifts: list[Drift]
    missing: list[str]

    @property
    def split_rows(self) -> dict[str, int]:
        """The number of rows of each split; {} if they were not prepared."""
        return self.schema.rows.model_dump() if self.schema else {}


@dataclass(frozen=True)
class LectureRecipe:
    """What `lecture_recipe` has written for a model. history: a row an epoch of each run."""

    runs: list[LectureRun]
    history: pd.DataFrame


@dataclass(frozen=True)
class BaselineResult:
    """What `baselines` has written for a baseline. seconds: of the fit."""

    metrics: BaselineMetrics
    seconds: float | None


@dataclass
class Attempts:
    """Reads one thing after another, and keeps the messages of what cannot be read."""

    missing: list[str] = field(default_factory=list)

    def __call__(self, read: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return read(*arguments)
        except UserError as error:
            self.missing.append(str(error))
            return None


def read_artifacts(name: str) -> Artifacts:
    folder, stage, attempt = paths.artifacts_folder(name), f"train@{name}", Attempts()
    metrics = attempt(read_metrics, name)
    run = attempt(read_run, name)
    verdict = attempt(read_verdict, name) if (folder / VERDICT_FILE).exists() else None
    return Artifacts(
        name=name,
        metrics=metrics,
        run=run,
        history=attempt(read_frame, pd.read_csv, folder / "history.csv", HISTORY, stage),
        predictions=attempt(read_predictions, folder / "predictions.parquet", stage, metrics),
        graph=attempt(read_graph, folder / "network" / "graph.json", stage),
        filters=attempt(read_arrays, folder / "network" / "filters.npz", 4, stage) or {},
        maps=attempt(read_arrays, folder / "network" / "maps.npz", 3, stage) or {},
        export=attempt(read_export_record, name),
        verdict=verdict,
        is_judged=bool(verdict and tree_sha256(folder / "saved_model") == verdict.candidate.sha256),
        missing=attempt.missing,
        mixed=of_another_training(folder, run.files) if run else [],
    )


def refuse_without(path: Path, wanted: tuple[str, ...], found: Iterable[str], stage: str) -> None:
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(f"{path}: {', '.join(lacking)} missing. Run `dvc repro --force {stage}`.")


def read_frame(read: Callable[[Path], pd.DataFrame], path: Path, columns: tuple[str, ...], stage: str) -> pd.DataFrame:
    """Read a table.

    Args:
        read: the function of pandas that reads such a file.
        path: the file.
        columns: that it must have. All but TEXT hold numbers.
        stage: which makes it, for the message.

    Raises:
        UserError: the file is missing, damaged or empty, or a column is missing or of another type.
    """
    refuse_unless_file(path)
    try:
        frame = read(path)
    except FileNotFoundError:
        raise missing(path, stage) from None
    except (ValueError, OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: {error}. Run `dvc repro --force {stage}`.") from None
    refuse_without(path, columns, frame.columns, stage)
    if frame.empty:
        raise UserError(f"{path}: no rows. Run `dvc repro --force {stage}`.")
    for name in columns:
        if name not in TEXT and frame[name].dtype.kind not in "iuf":
            raise UserError(f"{path}: {name} is {frame[name].dtype}, not numbers. Run `dvc repro --force {stage}`.")
        if name in COUNTS and frame[name].dtype.kind not in "iu":
            raise UserError(f"{path}: {name} holds other than whole numbers. Run `dvc repro --force {stage}`.")
    return frame


def read_predictions(path: Path, stage: str, metrics: ModelMetrics | None) -> pd.DataFrame:
    """Read the predictions for the test rows.

    Args:
        path: the file.
        stage: which makes it, for the message.
        metrics: of the same model, if they can be read.

    Raises:
        UserError: the file cannot be read, or its predictions are of another model than `metrics`.
    """
    frame = read_frame(pd.read_parquet, path, PREDICTIONS, stage)
    names = list(metrics.per_class) if metrics else []
    chances = [f"probability {name}" for name in names]
    refuse_without(path, tuple(chances), frame.columns, stage)
    further = [str(name) for name in frame if str(name).endswith(("_true", "_predicted"))]
    for name in ("true", "predicted", *further, *chances):
        if frame[name].dtype.kind not in "iuf" or not np.isfinite(frame[name]).all():
            raise UserError(f"{path}: {name} holds other than finite numbers. Run `dvc repro --force {stage}`.")
    for name in ("true", "predicted") if names else ():
        if frame[name].dtype.kind not in "iu" or not frame[name].between(0, len(names) - 1).all():
            raise UserError(f"{path}: {name} holds other than 0 to {len(names) - 1}. Run `dvc repro --force {stage}`.")
    if frame["index"].min() < 0 or frame["index"].max() >= raw_rows(metrics):
        raise UserError(f"{path}: index holds numbers of no raw row. Run `dvc repro --force {stage}`.")
    return frame


def raw_rows(metrics: ModelMetrics | None) -> float:
    """Return the number of raw rows that a model was made from; infinity where it is not known."""
    if metrics is None:
        return np.inf
    try:
        raw = read_provenance(get_dataset(metrics.dataset))
    except UserError:
        return np.inf
    return raw.rows if raw.sha256 == metrics.raw_sha256 else np.inf


def read_arrays(path: Path, dimensions: int, stage: str) -> dict[str, np.ndarray]:
    """Read a file of NumPy's savez.

    Args:
        path: the file.
        dimensions: of each array.
        stage: which makes it, for the message.

    Raises:
        UserError: the file is missing or damaged, or an array has other dimensions or holds no numbers.
    """
    refuse_unless_file(path)
    try:
        with np.load(path) as arrays:
            found = dict(arrays)
    except FileNotFoundError:
        raise missing(path, stage) from None
    except Exception as error:  # noqa: BLE001 - a damaged archive can raise anything
        raise UserError(f"{path}: {error}. Run `dvc repro --force {stage}`.") from None
    for name, values in found.items():
        if values.ndim != dimensions or not values.size or values.dtype.kind not in "iuf":
            raise UserError(f"{path}: {name} is no array of {dimensions} dimensions. Run `dvc repro --force {stage}`.")
    return found


def read_lecture_recipe(name: str) -> LectureRecipe | None:
    """Read the results of `lecture_recipe@name`; None where they are missing."""
    attempt = Attempts()
    metrics = attempt(read_lecture_recipe_metrics, name)
    path = paths.lecture_recipe_folder(name) / "history.csv"
    history = attempt(read_frame, pd.read_csv, path, CURVES, f"lecture_recipe@{name}")
    return None if attempt.missing else LectureRecipe(metrics.runs, history)


def read_baselines(params: Params) -> dict[str, BaselineResult]:
    """Read the results of `baselines`, by name, without those that are missing."""
    attempt = Attempts()
    measured = attempt(read_baseline_metrics) or {}
    runs = attempt(read_baseline_runs) or {}
    return {
        name: BaselineResult(measured[name], runs[name].fit if name in runs else None)
        for name in params.baselines
        if name in measured
    }


def read_data(name: str) -> Data:
    dataset, attempt, stage = get_dataset(name), Attempts(), f"prepare@{name}"
    provenance = attempt(read_provenance, dataset)
    folder = paths.prepared_folder(name)
    schema = attempt(read_prepared_schema, dataset)
    rows = {split: attempt(read_rows, name, split, schema) for split in paths.SPLITS if schema}
    if schema and provenance and made_of_others(schema, provenance):
        attempt.missing.append(
            f"{folder} was made of other rows than {paths.raw_table(name)}. Run `dvc repro {stage}`."
        )
        rows = {}
    return Data(
        dataset=dataset,
        provenance=provenance,
        table=attempt(read_raw, dataset, provenance.sha256) if provenance else None,
        schema=schema,
        normalization=attempt(read_normalization, name),
        rows={split: taken for split, taken in rows.items() if taken is not None},
        drifts=[drift for path in drift_files(name) if (drift := attempt(read_drift, path))],
        missing=attempt.missing,
    )


def made_of_others(schema: PreparedSchema, provenance: Provenance) -> bool:
    """Tell whether prepared rows were made of other raw rows than `provenance` describes."""
    made_of = (schema.source, schema.raw_sha256, schema.rows.total)
    return made_of != (provenance.source, provenance.sha256, provenance.rows)


def read_rows(dataset: str, split: str, schema: PreparedSchema) -> np.ndarray:
    """Return the number in the raw table of each row of a split.

    Args:
        dataset: whose rows they are.
        split: "train", "valid" or "test".
        schema: of the prepared data.

    Raises:
        UserError: the table cannot be read, or is not as `schema` says.
    """
    path, stage = paths.prepared_table(dataset, split), f"prepare@{dataset}"
    with open_table(path, stage) as file:
        table = file.read(columns=[INDEX])
    check_table(path, table, pa.schema([(INDEX, pa.int64())]), stage)
    index = to_values(table[INDEX])
    check_rows(path, len(index), schema.rows.of(split), stage)
    check_index(path, index, schema.rows.total, stage)
    return index
