"""Prepare: split a raw table and normalise its features; one Parquet file a split.

A prepared table has the columns `index` (int64, the row's number in the raw table), the features
(float32, pictures as tensors) and the target (int64 classes or a float32 quantity in its own unit).
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from config.params import DatasetParams
from datasets.dataset import SPLIT_COLUMN, Dataset, to_values
from runtime.errors import UserError
from tasks.data.contracts import (
    NORMALIZATION,
    PREPARED_SCHEMA,
    fault,
    write_contract,
)
from tasks.data.files import write_table
from tasks.data.normalization import Statistics, normalize_splits
from tasks.data.schema import GROUP_ROWS, prepared_schema
from tasks.data.validation import check_classes
from tasks.preparation.split import split_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` makes of a raw table, before it is written."""

    tables: dict[str, pa.Table]  # by split
    statistics: Statistics
    schema: dict


def prepare(dataset: Dataset, params: DatasetParams, table: pa.Table, provenance: dict) -> Prepared:
    """Split and normalise `table`. Raises UserError when a split would be empty or a class is unknown.

    provenance: what `ingest` says of `table`.
    """
    if table.num_rows != provenance["rows"]:
        path, told = paths.raw_provenance(dataset.name), f"is {provenance['rows']}, but there are {table.num_rows}"
        raise fault(path, f"ingest@{dataset.name}", "rows", told)
    raw = {name: to_values(table[name]) for name in (*dataset.features, dataset.target)}
    target = raw.pop(dataset.target)
    check_classes(paths.raw_table(dataset.name), dataset, target, f"ingest@{dataset.name}")
    given = to_values(table[SPLIT_COLUMN]).astype("U") if SPLIT_COLUMN in table.column_names else None
    labels = target if dataset.class_names and params.split.stratify else None
    try:
        rows = split_rows(given, labels, table.num_rows, params.split)
    except UserError as error:
        raise UserError(f"{paths.PARAMS}: datasets.{dataset.name}.{error}") from None
    check_not_empty(dataset, rows)

    duplicates = count_duplicates(list(raw.values()), rows)
    tables, statistics = normalize_splits(dataset, table, rows, params.normalization, params.tail)
    facts = {
        "dataset": dataset.name,
        "source": provenance["source"],
        "raw_sha256": provenance["sha256"],
        "features": list(dataset.features),
        "derived": list(dataset.derived),
        "target": dataset.target,
        "target_unit": dataset.target_unit,
        "class_names": provenance["class_names"],
        "rows": {split: len(taken) for split, taken in rows.items()},
        "columns": {field.name: str(field.type) for field in prepared_schema(dataset)},
        "train_median": None if dataset.class_names else float(np.median(target[rows["train"]].astype(np.float32))),
        "duplicates": duplicates,
    }
    return Prepared(tables, statistics, facts)


def check_not_empty(dataset: Dataset, rows: dict[str, np.ndarray]) -> None:
    for split, taken in rows.items():
        if not len(taken):
            raise UserError(
                f"{paths.raw_table(dataset.name)}: no row is left for {split}. Give other shares in "
                f"datasets.{dataset.name}.split of {paths.PARAMS}."
            )


def count_duplicates(features: list[np.ndarray], rows: dict[str, np.ndarray]) -> dict[str, int]:
    """Count rows whose features equal those of an earlier row, in all and against the train split."""
    flat = np.concatenate([values.reshape(len(values), -1) for values in features], axis=1)
    keys = np.array([hash(row.tobytes()) for row in flat])
    train = keys[rows["train"]]
    return {
        "rows_equal_to_an_earlier_row": len(keys) - len(np.unique(keys)),
        "valid_rows_also_in_train": int(np.isin(keys[rows["valid"]], train).sum()),
        "test_rows_also_in_train": int(np.isin(keys[rows["test"]], train).sum()),
    }


def write_prepared(prepared: Prepared, folder: Path) -> None:
    """Write the tables, `normalization.json` and `schema.json` into `folder`."""
    for split, table in prepared.tables.items():
        write_table(folder / f"{split}.parquet", table, GROUP_ROWS)
    write_contract(folder / "normalization.json", NORMALIZATION, prepared.statistics)
    write_contract(folder / "schema.json", PREPARED_SCHEMA, prepared.schema)
    logger.info("%s: %s rows", prepared.schema["dataset"], prepared.schema["rows"])


prepare_task = task(prepare)
write_prepared_task = task(write_prepared)
