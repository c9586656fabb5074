"""The raw rows of the train split, with which new rows are compared."""

import pyarrow as pa

from config import paths
from datasets.dataset import Dataset, to_values
from runtime.errors import UserError
from tasks.data.contracts import Source
from tasks.data.files import open_table
from tasks.data.raw import read_provenance, read_raw
from tasks.data.schema import INDEX, read_prepared_schema
from tasks.data.validation import check_index, check_rows, check_table


def read_train_rows(dataset: Dataset) -> tuple[pa.Table, Source]:
    """Return the raw rows of the train split in the order of the raw table, and their source, "real" or "sample".

    Raises UserError where the data set is not ingested and prepared, or the two do not fit together.
    """
    provenance, schema = read_provenance(dataset), read_prepared_schema(dataset)
    path, stage = paths.prepared_table(dataset.name, "train"), f"prepare@{dataset.name}"
    if schema.raw_sha256 != provenance.sha256:
        raise UserError(f"{path} was made of other rows than {paths.raw_table(dataset.name)}. Run `dvc repro {stage}`.")
    with open_table(path, stage) as file:
        prepared = file.read(columns=[INDEX])
    check_table(path, prepared, pa.schema([(INDEX, pa.int64())]), stage)
    check_rows(path, prepared.num_rows, schema.rows.train, stage)
    index = to_values(prepared[INDEX])
    check_index(path, index, provenance.rows, stage)
    return read_raw(dataset, provenance.sha256).take(pa.array(sorted(index))), provenance.source
