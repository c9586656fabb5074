"""Raw: read what `ingest` wrote, and make sure that it is that."""

import pyarrow as pa
from prefect import task

from config import paths
from datasets.dataset import Dataset, checksum
from runtime.errors import UserError
from tasks.data.contracts import PROVENANCE, check_provenance, read_contract
from tasks.data.files import read_table
from tasks.data.validation import check_table


def read_raw(dataset: Dataset, sha256: str) -> pa.Table:
    """Read the raw table; raises UserError when it is not as `ingest` wrote it.

    sha256: of its rows, as the provenance or what was made from it says.
    """
    path, stage = paths.raw_table(dataset.name), f"ingest@{dataset.name}"
    table = read_table(path, stage)
    check_table(path, table, dataset.schema, stage)
    found = checksum(table)
    if found != sha256:
        raise UserError(
            f"{path}: its rows have SHA-256 {found}, expected {sha256}: the file was altered, or what lies beside or "
            f"was made from it is of another source. Run `dvc repro --force {stage}`, then `dvc repro`."
        )
    return table


def read_provenance(dataset: Dataset) -> dict:
    """Read what `ingest` says of the raw table; raises UserError where the data set's file says otherwise."""
    path, stage = paths.raw_provenance(dataset.name), f"ingest@{dataset.name}"
    provenance = read_contract(path, PROVENANCE, stage)
    check_provenance(path, stage, dataset, provenance)
    return provenance


read_raw_task = task(read_raw)
read_provenance_task = task(read_provenance)
