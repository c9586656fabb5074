"""Checks of the tables that a stage reads."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from datasets.dataset import Dataset, to_values
from runtime.errors import UserError


def check_table(path: Path, table: pa.Table, schema: pa.Schema, produced_by: str) -> None:
    """Raise UserError unless a table has the columns and types of a schema, rows, and no missing values.

    Args:
        path: of the table.
        table: its rows.
        schema: the expected columns.
        produced_by: the stage that makes the file again.
    """
    remedy = f"Run `dvc repro --force {produced_by}`."
    for field in schema:
        if field.name not in table.column_names:
            raise UserError(
                f"{path}: column {field.name!r} is missing; it has {', '.join(table.column_names)}. {remedy}"
            )
        found = table.schema.field(field.name).type
        if found != field.type:
            raise UserError(f"{path}: column {field.name!r} is {found}, expected {field.type}. {remedy}")
    if table.num_rows == 0:
        raise UserError(f"{path}: no rows. {remedy}")
    for name in schema.names:
        column = table[name]
        bad = column.null_count or not_finite(column)
        if bad:
            raise UserError(f"{path}: column {name!r} has {bad} missing or non-finite values. {remedy}")


def check_classes(path: Path, dataset: Dataset, target: np.ndarray, produced_by: str) -> None:
    """Raise UserError unless every target is the number of a class, if the data set has classes.

    Args:
        path: of the table.
        dataset: whose rows they are.
        target: of each row.
        produced_by: the stage that makes the file again.
    """
    if dataset.class_names and not np.isin(target, np.arange(len(dataset.class_names))).all():
        raise UserError(
            f"{path}: column {dataset.target!r} holds {target.min()} to {target.max()}, expected 0 to "
            f"{len(dataset.class_names) - 1}. Run `dvc repro --force {produced_by}`."
        )


def check_rows(path: Path, found: int, stated: int, produced_by: str) -> None:
    """Raise UserError unless a prepared table has as many rows as schema.json states.

    Args:
        path: of the table.
        found: rows of the table.
        stated: rows by schema.json.
        produced_by: the stage that makes the file again.
    """
    if found != stated:
        raise UserError(f"{path}: {found} rows, but schema.json says {stated}. Run `dvc repro --force {produced_by}`.")


def check_index(path: Path, index: np.ndarray, rows: int, produced_by: str) -> None:
    """Raise UserError unless the index holds numbers of raw rows, each at most once.

    Args:
        path: of the table.
        index: int64 [rows].
        rows: how many raw rows there are.
        produced_by: the stage that makes the file again.
    """
    if index.min() < 0 or index.max() >= rows or len(np.unique(index)) < len(index):
        raise UserError(
            f"{path}: column 'index' does not hold the numbers of different raw rows, 0 to {rows - 1}. "
            f"Run `dvc repro --force {produced_by}`."
        )


def not_finite(column: pa.ChunkedArray) -> int:
    """Return the number of NaN and infinite values."""
    values = to_values(column)
    return int(np.count_nonzero(~np.isfinite(values))) if values.dtype.kind == "f" else 0
