"""Read: what the stages have written of each model and data set, and what of it is missing.

A report is most wanted when something went wrong. So a file that is not there or damaged stops nothing: it is told on
the page that would have shown it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from config import paths
from config.errors import UserError
from config.params import Params
from datasets import get_dataset
from datasets.dataset import Dataset, to_values
from tasks.files import missing, open_table, read_json
from tasks.identity import of_another_training
from tasks.prepare import INDEX
from tasks.raw import read_provenance, read_raw

# What the pages take for granted in the files of a model.
METRICS = ("dataset", "task", "source", "raw_sha256", "seed", "parameters", "epochs", "metrics", "per_class", "probes")
RUN = ("began", "seconds", "device", "cores", "platform", "backend", "versions", "git_commit", "files")
HISTORY = ("epoch", "loss", "val_loss")
PREDICTIONS = ("index", "true", "predicted")
GRAPH = ("layers", "links", "index")


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
    run = attempt(read_object, folder / "run.json", RUN, stage)
    return Artifacts(
        name=name,
        metrics=attempt(read_object, folder / "metrics.json", METRICS, stage),
        run=run,
        history=attempt(read_frame, pd.read_csv, folder / "history.csv", HISTORY, stage),
        predictions=attempt(read_frame, pd.read_parquet, folder / "predictions.parquet", PREDICTIONS, stage),
        graph=attempt(read_object, folder / "network" / "graph.json", GRAPH, stage),
        filters=attempt(read_arrays, folder / "network" / "filters.npz", stage) or {},
        maps=attempt(read_arrays, folder / "network" / "maps.npz", stage) or {},
        missing=attempt.missing,
        mixed=of_another_training(folder, run["files"]) if run else [],
    )


def read_object(path: Path, keys: tuple[str, ...], stage: str) -> dict[str, Any]:
    """Read a JSON object; raises UserError that names the stage to run when it is missing, damaged or lacks a key."""
    found = read_json(path, stage)
    refuse_without(path, keys, found, stage)
    return found


def refuse_without(path: Path, wanted: tuple[str, ...], found: Iterable[str], stage: str) -> None:
    if lacking := [name for name in wanted if name not in found]:
        raise UserError(f"{path}: {', '.join(lacking)} missing. Run `dvc repro --force {stage}`.")


def read_frame(read: Callable[[Path], pd.DataFrame], path: Path, columns: tuple[str, ...], stage: str) -> pd.DataFrame:
    """Read a table; raises UserError that names the stage to run when it is missing, damaged, empty or not whole."""
    try:
        frame = read(path)
    except FileNotFoundError:
        raise missing(path, stage) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {error}. Run `dvc repro --force {stage}`.") from None
    refuse_without(path, columns, frame.columns, stage)
    if frame.empty:
        raise UserError(f"{path}: no rows. Run `dvc repro --force {stage}`.")
    return frame


def read_arrays(path: Path, stage: str) -> dict[str, np.ndarray]:
    """Read a file of NumPy's savez; raises UserError that names the stage to run when it is missing or damaged."""
    try:
        with np.load(path) as arrays:
            return dict(arrays)
    except FileNotFoundError:
        raise missing(path, stage) from None
    except Exception as error:  # noqa: BLE001 - a damaged archive can raise anything
        raise UserError(f"{path}: {error}. Run `dvc repro --force {stage}`.") from None


def read_parity(name: str) -> dict[str, Any] | None:
    """Read what `parity` wrote of model `name`, its figures and `history`, a row an epoch of each run; None without."""
    folder, stage, attempt = paths.parity_folder(name), f"parity@{name}", Attempts()
    figures = attempt(read_json, folder / "metrics.json", stage)
    history = attempt(read_frame, pd.read_csv, folder / "history.csv", ("normalization", "seed", "epoch"), stage)
    return None if attempt.missing else {**figures, "history": history}


def read_baselines(params: Params) -> dict[str, dict[str, Any]]:
    """Read what `baselines` wrote, by name, with `seconds` of the fit or None; without those that are not there."""
    attempt = Attempts()
    measured = attempt(read_json, paths.BASELINES / "metrics.json", "baselines") or {}
    run = attempt(read_json, paths.BASELINES / "run.json", "baselines") or {}
    return {name: {**measured[name], "seconds": run.get(name)} for name in params.baselines if name in measured}


def read_data(name: str) -> Data:
    dataset, attempt, stage = get_dataset(name), Attempts(), f"prepare@{name}"
    provenance = attempt(read_provenance, dataset)
    folder = paths.prepared_folder(name)
    schema = attempt(read_json, folder / "schema.json", stage)
    rows = {split: attempt(read_rows, name, split) for split in paths.SPLITS}
    if not schema:
        rows = {}
    elif provenance and schema.get("raw_sha256") != provenance["sha256"]:
        attempt.missing.append(
            f"{folder} was made of other rows than {paths.raw_table(name)}. Run `dvc repro {stage}`."
        )
        rows = {}
    return Data(
        dataset=dataset,
        provenance=provenance,
        table=attempt(read_raw, dataset, provenance["sha256"]) if provenance else None,
        schema=schema,
        statistics=attempt(read_json, folder / "normalization.json", stage),
        rows={split: taken for split, taken in rows.items() if taken is not None},
        missing=attempt.missing,
    )


def read_rows(dataset: str, split: str) -> np.ndarray:
    """Return the number in the raw table of each row of a split."""
    with open_table(paths.prepared_table(dataset, split), f"prepare@{dataset}") as file:
        return to_values(file.read(columns=[INDEX])[INDEX])
