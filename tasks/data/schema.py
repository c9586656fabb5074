"""The columns of prepared tables, and `schema.json`, which describes them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from prefect import task
from pydantic import NonNegativeInt, PositiveInt

from config import paths
from datasets import get_dataset
from datasets.dataset import Dataset, image_type, to_values
from tasks.data.contracts import (
    Contract,
    Sha256,
    Source,
    Statistic,
    fault,
    only_with_batches,
    read_contract,
    refuse_false_source,
    refuse_other_values,
    write_contract,
)
from tasks.data.files import read_table
from tasks.data.raw import read_provenance
from tasks.data.validation import check_index, check_rows, check_table

FILE = "schema.json"
INDEX = "index"
# Rows of a row group, the unit in which larger data is shuffled and read; one of Fashion-MNIST decodes to 13 MB.
GROUP_ROWS = 4096
# Rows of a batch in validation and prediction; divides GROUP_ROWS.
BATCH_ROWS = 1024


def prepared_schema(dataset: Dataset) -> pa.Schema:
    """Return the columns and types of every prepared table of `dataset`."""
    fields = [(INDEX, pa.int64())]
    for name in dataset.prepared_columns:
        raw = pa.float32() if name in dataset.derived else dataset.schema.field(name).type
        tensor = isinstance(raw, pa.FixedShapeTensorType)
        fields.append((name, image_type(np.float32, tuple(raw.shape)) if tensor else pa.float32()))
    fields.append((dataset.target, pa.int64() if dataset.class_names else pa.float32()))
    return pa.schema(fields)


class SplitRows(Contract):
    """How many rows each split has."""

    train: PositiveInt
    valid: PositiveInt
    test: PositiveInt

    def of(self, split: str) -> int:
        return getattr(self, split)

    @property
    def total(self) -> int:
        return self.train + self.valid + self.test


class Duplicates(Contract):
    """How many rows have the features of another row."""

    rows_equal_to_an_earlier_row: NonNegativeInt
    valid_rows_also_in_train: NonNegativeInt
    test_rows_also_in_train: NonNegativeInt


class PreparedSchema(Contract):
    """data/prepared/D/schema.json: what `prepare` has made of the raw rows."""

    dataset: str
    source: Source
    raw_sha256: Sha256
    source_sha256: Sha256 | None = only_with_batches()
    features: list[str]
    derived: list[str]
    target: str
    target_unit: str | None
    class_names: list[str] | None
    rows: SplitRows
    columns: dict[str, str]
    train_median: Statistic | None  # of the target; None for classes
    duplicates: Duplicates


def write_schema(schema: PreparedSchema, folder: Path) -> None:
    write_contract(folder / FILE, schema)


def read_prepared_schema(dataset: Dataset) -> PreparedSchema:
    """Read schema.json; raises UserError where it contradicts the data set's file."""
    path, stage = paths.prepared_folder(dataset.name) / FILE, f"prepare@{dataset.name}"
    schema = read_contract(path, PreparedSchema, stage)
    expected = {
        "dataset": dataset.name,
        "features": list(dataset.features),
        "derived": list(dataset.derived),
        "target": dataset.target,
        "target_unit": dataset.target_unit,
        "class_names": list(dataset.class_names) if dataset.class_names else None,
        "columns": {field.name: str(field.type) for field in prepared_schema(dataset)},
    }
    refuse_other_values(path, stage, schema, expected, f"datasets/{dataset.name}.py")
    refuse_false_source(path, stage, dataset, schema, "raw_sha256")
    if (schema.train_median is None) != bool(dataset.class_names):
        raise fault(path, stage, "train_median", f"is {schema.train_median!r}")
    return schema


def read_schema(dataset: str) -> PreparedSchema:
    """Read schema.json; raises UserError where it contradicts the data set's file or the raw rows' provenance."""
    path, stage, facts = paths.prepared_folder(dataset) / FILE, f"prepare@{dataset}", get_dataset(dataset)
    schema = read_prepared_schema(facts)
    if paths.raw_provenance(dataset).exists():
        raw = read_provenance(facts)
        expected = {"source": raw.source, "raw_sha256": raw.sha256, "source_sha256": raw.source_sha256}
        refuse_other_values(path, stage, schema, expected, str(paths.raw_provenance(dataset)))
        if schema.rows.total != raw.rows:
            message = f"are {schema.rows.total} in all, but {paths.raw_provenance(dataset)} says {raw.rows}"
            raise fault(path, stage, "rows", message)
    return schema


def read_split_rows(dataset: Dataset, schema: PreparedSchema, raw_rows: int) -> dict[str, np.ndarray]:
    """Return the raw row numbers, int64, of each prepared split, in its order.

    Args:
        dataset: whose rows they are.
        schema: of its prepared data.
        raw_rows: how many raw rows there are.

    Raises:
        UserError: a prepared table is missing, damaged, or not what `prepare` wrote.
    """
    rows = {}
    for split in paths.SPLITS:
        path, stage = paths.prepared_table(dataset.name, split), f"prepare@{dataset.name}"
        table = read_table(path, stage)
        check_table(path, table, prepared_schema(dataset), stage)
        check_rows(path, table.num_rows, schema.rows.of(split), stage)
        rows[split] = to_values(table[INDEX])
        check_index(path, rows[split], raw_rows, stage)
    return rows


read_schema_task = task(read_schema)
