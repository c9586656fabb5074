"""The columns of prepared tables, and `schema.json`, which says what `prepare` has made."""

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from datasets import get_dataset
from datasets.dataset import Dataset, image_type, to_values
from tasks.data.contracts import PREPARED_SCHEMA, check_prepared_schema, fault, read_contract, refuse_other_values
from tasks.data.files import read_table
from tasks.data.raw import read_provenance
from tasks.data.validation import check_index, check_rows, check_table

INDEX = "index"
# Rows of a row group, the unit in which larger data is shuffled and read; one of Fashion-MNIST decodes to 13 MB.
GROUP_ROWS = 4096
# Rows of a batch from which nothing is learnt; divides GROUP_ROWS.
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


def read_prepared_schema(dataset: Dataset) -> dict:
    """Read what `prepare` says of its tables; raises UserError where the data set's file says otherwise."""
    path, stage = paths.prepared_folder(dataset.name) / "schema.json", f"prepare@{dataset.name}"
    schema = read_contract(path, PREPARED_SCHEMA, stage)
    columns = {field.name: str(field.type) for field in prepared_schema(dataset)}
    check_prepared_schema(path, stage, dataset, columns, schema)
    return schema


def read_schema(dataset: str) -> dict:
    """Read what `prepare` says of its tables: source, classes, rows, checksum of the raw rows.

    Raises UserError where the data set's file, or the provenance of the raw rows, says otherwise.
    """
    path, stage, facts = paths.prepared_folder(dataset) / "schema.json", f"prepare@{dataset}", get_dataset(dataset)
    schema = read_prepared_schema(facts)
    if paths.raw_provenance(dataset).exists():
        raw = read_provenance(facts)
        made_of = {"source": raw["source"], "raw_sha256": raw["sha256"]}
        refuse_other_values(path, stage, schema, made_of, str(paths.raw_provenance(dataset)))
        if sum(schema["rows"].values()) != raw["rows"]:
            told = f"are {sum(schema['rows'].values())} in all, but {paths.raw_provenance(dataset)} says {raw['rows']}"
            raise fault(path, stage, "rows", told)
    return schema


def read_split_rows(dataset: Dataset, schema: dict, raw_rows: int) -> dict[str, np.ndarray]:
    """Return the raw row numbers, int64, of each prepared split, in its order.

    Args:
        schema: the data set's, of `read_schema`.
        raw_rows: how many raw rows there are.

    Raises:
        UserError: a prepared table is missing, damaged, or not what `prepare` wrote.
    """
    rows = {}
    for split in paths.SPLITS:
        path, stage = paths.prepared_table(dataset.name, split), f"prepare@{dataset.name}"
        table = read_table(path, stage)
        check_table(path, table, prepared_schema(dataset), stage)
        check_rows(path, table.num_rows, schema["rows"][split], stage)
        rows[split] = to_values(table[INDEX])
        check_index(path, rows[split], raw_rows, stage)
    return rows


read_schema_task = task(read_schema)
