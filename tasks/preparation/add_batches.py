"""Add the new rows of the accepted batches to the rows of the source."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from datasets.dataset import SPLIT_COLUMN, Dataset
from runtime.errors import UserError
from tasks.arrivals.batches import digest, list_batches
from tasks.arrivals.parse import arrival_schema, parse
from tasks.data.raw import Batch
from tasks.preparation.content import row_digests

# In the column `split` of raw rows that a batch has brought: the source gives them none.
NO_SPLIT = "batch"

logger = logging.getLogger(__name__)


def add_batches(dataset: Dataset, source: pa.Table) -> tuple[pa.Table, list[Batch]]:
    """Return the raw rows: those of the source, then the new ones of each batch in the order of acceptance.

    A row of a batch is new unless all its raw values equal, bit by bit, those of an earlier row. The rows of the source
    stay as they are, with their own duplicates.

    Args:
        dataset: whose rows they are.
        source: the rows that its source gives.

    Raises:
        UserError: a batch is not as it was when it was accepted.
    """
    columns = arrival_schema(dataset).names
    tables, batches = [source], []
    seen: set[bytes] = set()
    for path in list_batches(dataset.name):
        seen = seen or set(row_digests(source, columns))
        rows = read_batch(dataset, path)
        new = []
        for number, content in enumerate(row_digests(rows, columns)):
            if content not in seen:
                seen.add(content)
                new.append(number)
        tables.append(as_raw(dataset, rows.take(np.array(new, np.int64))))
        duplicates = rows.num_rows - len(new)
        counts = {"rows": rows.num_rows, "new_rows": len(new), "duplicates": duplicates}
        batches.append(Batch(name=path.name, sha256=digest(path), **counts))
        logger.info("%s: %d new rows of batch %s, %d duplicates", dataset.name, len(new), path.name, duplicates)
    return (pa.concat_tables(tables) if batches else source), batches


def read_batch(dataset: Dataset, path: Path) -> pa.Table:
    """Read an accepted batch; raises UserError where it is damaged."""
    table, reasons = parse(dataset, path)
    if table is None:
        folder = paths.batches_folder(dataset.name)
        raise UserError(
            f"{path} is not as it was accepted: {reasons.first()}. Run `dvc checkout --force {folder}`, or make "
            f"datasets/{dataset.name}.py take it again."
        )
    return table


def as_raw(dataset: Dataset, rows: pa.Table) -> pa.Table:
    """Return rows of a batch with all raw columns."""
    split = pa.array([NO_SPLIT] * rows.num_rows, pa.string())
    columns = [split if name == SPLIT_COLUMN else rows[name] for name in dataset.schema.names]
    return pa.table(columns, schema=dataset.schema)


add_batches_task = task(add_batches)
