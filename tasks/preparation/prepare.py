"""Prepare: split raw rows and normalize their features; one Parquet file per split.

A prepared table has the columns `index` (int64, the number of the raw row), the features (float32, images as tensors)
and the target (int64 classes, or a float32 quantity in its own unit).
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
from tasks.data.contracts import fault
from tasks.data.files import write_table
from tasks.data.normalization import Normalization, normalize_splits, write_normalization
from tasks.data.raw import Provenance
from tasks.data.schema import GROUP_ROWS, Duplicates, PreparedSchema, SplitRows, prepared_schema, write_schema
from tasks.data.validation import check_classes
from tasks.preparation.content import row_digests
from tasks.preparation.split import place_new_rows, split_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """The prepared data before it is written. tables: by split."""

    tables: dict[str, pa.Table]
    normalization: Normalization
    schema: PreparedSchema


def prepare(dataset: Dataset, params: DatasetParams, table: pa.Table, provenance: Provenance) -> Prepared:
    """Split and normalize raw rows.

    Args:
        dataset: whose rows they are.
        params: how they are prepared.
        table: the raw rows.
        provenance: of these rows.

    Raises:
        UserError: a split would be empty, or a class is unknown.
    """
    if table.num_rows != provenance.rows:
        path, message = paths.raw_provenance(dataset.name), f"is {provenance.rows}, but there are {table.num_rows}"
        raise fault(path, f"ingest@{dataset.name}", "rows", message)
    raw = {name: to_values(table[name]) for name in (*dataset.features, dataset.target)}
    target = raw.pop(dataset.target)
    check_classes(paths.raw_table(dataset.name), dataset, target, f"ingest@{dataset.name}")
    source = table.slice(0, provenance.source_rows or table.num_rows)
    given = to_values(source[SPLIT_COLUMN]).astype("U") if SPLIT_COLUMN in source.column_names else None
    labels = target[: source.num_rows] if dataset.class_names and params.split.stratify else None
    try:
        rows = split_rows(given, labels, source.num_rows, params.split)
    except UserError as error:
        raise UserError(f"{paths.PARAMS}: datasets.{dataset.name}.{error}") from None
    check_not_empty(dataset, rows)
    if source.num_rows < table.num_rows:
        rows = place_new_rows(rows, row_digests(table, dataset.features))

    duplicates = count_duplicates(list(raw.values()), rows)
    tables, normalization = normalize_splits(dataset, table, rows, params.normalization, params.tail)
    schema = PreparedSchema(
        dataset=dataset.name,
        source=provenance.source,
        raw_sha256=provenance.sha256,
        source_sha256=provenance.source_sha256,
        features=list(dataset.features),
        derived=list(dataset.derived),
        target=dataset.target,
        target_unit=dataset.target_unit,
        class_names=provenance.class_names,
        rows=SplitRows(**{split: len(taken) for split, taken in rows.items()}),
        columns={field.name: str(field.type) for field in prepared_schema(dataset)},
        train_median=None if dataset.class_names else float(np.median(target[rows["train"]].astype(np.float32))),
        duplicates=duplicates,
    )
    return Prepared(tables, normalization, schema)


def check_not_empty(dataset: Dataset, rows: dict[str, np.ndarray]) -> None:
    for split, taken in rows.items():
        if not len(taken):
            raise UserError(
                f"{paths.raw_table(dataset.name)}: no row is left for {split}. Give other shares in "
                f"datasets.{dataset.name}.split of {paths.PARAMS}."
            )


def count_duplicates(features: list[np.ndarray], rows: dict[str, np.ndarray]) -> Duplicates:
    """Count rows whose features equal, bit by bit, those of an earlier row or of a train row.

    Args:
        features: each [rows] or [rows, ...].
        rows: int64 row numbers of each split.
    """
    import pandas as pd  # late: `--help` must not wait for it

    flat = np.concatenate([values.reshape(len(values), -1) for values in features], axis=1)
    keys = pd.Series([row.tobytes() for row in flat])
    train = keys[rows["train"]]
    return Duplicates(
        rows_equal_to_an_earlier_row=int(keys.duplicated().sum()),
        valid_rows_also_in_train=int(keys[rows["valid"]].isin(train).sum()),
        test_rows_also_in_train=int(keys[rows["test"]].isin(train).sum()),
    )


def write_prepared(prepared: Prepared, folder: Path) -> None:
    """Write the tables, `normalization.json` and `schema.json` into `folder`."""
    for split, table in prepared.tables.items():
        write_table(folder / f"{split}.parquet", table, GROUP_ROWS)
    write_normalization(prepared.normalization, folder)
    write_schema(prepared.schema, folder)
    rows = prepared.schema.rows
    logger.info("%s: %d train, %d valid, %d test rows", prepared.schema.dataset, rows.train, rows.valid, rows.test)


prepare_task = task(prepare)
write_prepared_task = task(write_prepared)
