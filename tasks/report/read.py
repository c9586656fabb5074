"""Read what the stages have written of each model and data set, and note what is missing.

A report is most useful when something went wrong. So a missing or damaged file stops nothing: the page that needs it
names it.
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
from tasks.data.contracts import (
    BASELINES,
    BASELINES_RUN,
    GRAPH,
    LECTURE_RECIPE,
    METRICS,
    RUN,
    check_graph,
    check_metrics,
    read_contract,
    refuse_false_source,
    refuse_other_values,
)
from tasks.data.files import missing, open_table
from tasks.data.normalization import read_statistics
from tasks.data.raw import read_provenance, read_raw
from tasks.data.schema import INDEX, read_prepared_schema
from tasks.data.validation import check_index, check_rows, check_table
from tasks.publishing.checksums import of_another_training

# What the pages take for granted in the tables of a model.
HISTORY = ("epoch", "loss", "val_loss")
PREDICTIONS = ("index", "true", "predicted")
CURVES = ("normalization", "seed", "epoch")
TEXT = ("normalization",)
COUNTS = ("index", "epoch", "seed")


@dataclass(frozen=True)
class Artifacts:
    """What `train` has written of a model: None, or nothing, where it is not there. missing: a sentence for each.

    mixed: the files that are not of the training that run.json describes.
    """

    name: str
    metrics: dict[str, Any] | None
    run: dict[str, Any] | None
    history: pd.DataFrame | None
    predictions: pd.DataFrame | None
    graph: dict[str, Any] | None
    filters: dict[str, np.ndarray]
    maps: dict[str, np.ndarray]
    missing: list[str]
    mixed: list[str]


@dataclass(frozen=True)
class Data:
    """What `ingest` and `prepare` have written of a data set.

    table: the raw rows. rows: the number of each split's rows in it.
    """

    dataset: Dataset
    provenance: dict[str, Any] | None
    table: pa.Table | None
    schema: dict[str, Any] | None
    statistics: dict[str, Any] | None
    rows: dict[str, np.ndarray]
    missing: list[str]

    @property
    def split_rows(self) -> dict[str, int]:
        """The number of rows of each split; {} if they were not prepared."""
        return dict(self.schema["rows"]) if self.schema else {}


@dataclass
class Attempts:
    """Reads one thing after another and keeps what could not be read."""

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
    run = attempt(read_contract, folder / "run.json", RUN, stage)
    return Artifacts(
        name=name,
        metrics=metrics,
        run=run,
        history=attempt(read_frame, pd.read_csv, folder / "history.csv", HISTORY, stage),
        predictions=attempt(read_predictions, folder / "predictions.parquet", stage, metrics),
        graph=attempt(read_graph, folder / "network" / "graph.json", stage),
        filters=attempt(read_arrays, folder / "network" / "filters.npz", 4, stage) or {},
        maps=attempt(read_arrays, folder / "network" / "maps.npz", 3, stage) or {},
        missing=attempt.missing,
        mixed=of_another_training(folder, run["files"]) if run else [],
    )


def read_metrics(name: str) -> dict[str, Any]:
    """Read what `train` has measured of model `name`; raises UserError where it contradicts itself, too."""
    path, stage = paths.artifacts_folder(name) / "metrics.json", f"train@{name}"
    found = read_contract(path, METRICS, stage)
    refuse_other_values(path, stage, found, {"name": name}, "its folder")
    check_metrics(path, stage, found)
    dataset = get_dataset(found["dataset"])
    refuse_false_source(path, stage, dataset, found["source"], found["raw_sha256"], "raw_sha256")
    return found


def read_graph(path: Path, stage: str) -> dict[str, Any]:
    """Read the layers of a network and their links; raises UserError where they cannot be drawn."""
    found = read_contract(path, GRAPH, stage)
    check_graph(path, stage, found)
    return found


def refuse_without(path: Path, wanted: tuple[str, ...], found: Iterable[str], stage: str) -> None:
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(f"{path}: {', '.join(lacking)} missing. Run `dvc repro --force {stage}`.")


def read_frame(read: Callable[[Path], pd.DataFrame], path: Path, columns: tuple[str, ...], stage: str) -> pd.DataFrame:
    """Read a table; raises UserError that names the stage to run when it is missing, damaged, empty or not whole.

    columns: those that it must have. All but text hold numbers.
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


def read_predictions(path: Path, stage: str, metrics: dict[str, Any] | None) -> pd.DataFrame:
    """Read what a model says of the test rows; raises UserError where that cannot be of the model with `metrics`."""
    frame = read_frame(pd.read_parquet, path, PREDICTIONS, stage)
    names = list(metrics["per_class"]) if metrics else []
    chances = [f"probability {name}" for name in names]
    refuse_without(path, tuple(chances), frame.columns, stage)
    for name in ("true", "predicted", *chances):
        if frame[name].dtype.kind not in "iuf" or not np.isfinite(frame[name]).all():
            raise UserError(f"{path}: {name} holds other than finite numbers. Run `dvc repro --force {stage}`.")
    for name in ("true", "predicted") if names else ():
        if frame[name].dtype.kind not in "iu" or not frame[name].between(0, len(names) - 1).all():
            raise UserError(f"{path}: {name} holds other than 0 to {len(names) - 1}. Run `dvc repro --force {stage}`.")
    if frame["index"].min() < 0 or frame["index"].max() >= raw_rows(metrics):
        raise UserError(f"{path}: index holds numbers of no raw row. Run `dvc repro --force {stage}`.")
    return frame


def raw_rows(metrics: dict[str, Any] | None) -> float:
    """Return how many raw rows those are that a model was made from; infinity where they are not there."""
    try:
        raw = read_provenance(get_dataset(metrics["dataset"])) if metrics else {}
    except UserError:
        raw = {}
    return raw["rows"] if metrics and raw.get("sha256") == metrics["raw_sha256"] else np.inf


def read_arrays(path: Path, dimensions: int, stage: str) -> dict[str, np.ndarray]:
    """Read a file of NumPy's savez; raises UserError that names the stage to run when it is missing or damaged.

    dimensions: of each array, which holds numbers.
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


def read_lecture_recipe(name: str) -> dict[str, Any] | None:
    """Read the metrics of `lecture_recipe@name`, and its `history`, a row an epoch of each run; None without."""
    folder, stage, attempt = paths.lecture_recipe_folder(name), f"lecture_recipe@{name}", Attempts()
    figures = attempt(read_lecture_recipe_metrics, folder / "metrics.json", stage)
    history = attempt(read_frame, pd.read_csv, folder / "history.csv", CURVES, stage)
    return None if attempt.missing else {**figures, "history": history}


def read_lecture_recipe_metrics(path: Path, stage: str) -> dict[str, Any]:
    found = read_contract(path, LECTURE_RECIPE, stage)
    for run in found["runs"]:
        check_metrics(path, stage, run)
    return found


def read_baselines(params: Params) -> dict[str, dict[str, Any]]:
    """Read what `baselines` wrote, by name, with `seconds` of the fit or None; without those that are not there."""
    attempt = Attempts()
    measured = attempt(read_baseline_metrics, paths.BASELINES / "metrics.json", "baselines") or {}
    run = attempt(read_contract, paths.BASELINES / "run.json", BASELINES_RUN, "baselines") or {}
    return {name: {**measured[name], "seconds": run.get(name)} for name in params.baselines if name in measured}


def read_baseline_metrics(path: Path, stage: str) -> dict[str, Any]:
    found = read_contract(path, BASELINES, stage)
    for measured in found.values():
        check_metrics(path, stage, measured)
        dataset = get_dataset(measured["dataset"])
        refuse_false_source(path, stage, dataset, measured["source"], measured["raw_sha256"], "raw_sha256")
    return found


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
        table=attempt(read_raw, dataset, provenance["sha256"]) if provenance else None,
        schema=schema,
        statistics=attempt(read_statistics, name),
        rows={split: taken for split, taken in rows.items() if taken is not None},
        missing=attempt.missing,
    )


def made_of_others(schema: dict[str, Any], provenance: dict[str, Any]) -> bool:
    """Tell whether prepared rows were made of other raw rows than `provenance` describes."""
    made_of = (schema["source"], schema["raw_sha256"], sum(schema["rows"].values()))
    return made_of != (provenance["source"], provenance["sha256"], provenance["rows"])


def read_rows(dataset: str, split: str, schema: dict[str, Any]) -> np.ndarray:
    """Return the number in the raw table of each row of a split; raises UserError where it is not as `schema` says."""
    path, stage = paths.prepared_table(dataset, split), f"prepare@{dataset}"
    with open_table(path, stage) as file:
        table = file.read(columns=[INDEX])
    check_table(path, table, pa.schema([(INDEX, pa.int64())]), stage)
    index = to_values(table[INDEX])
    check_rows(path, len(index), schema["rows"][split], stage)
    check_index(path, index, sum(schema["rows"].values()), stage)
    return index
