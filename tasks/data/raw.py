"""Raw rows and their provenance, as `ingest` writes them: data/raw/D.parquet and data/raw/D.json."""

from pathlib import Path
from typing import Self

import pyarrow as pa
from prefect import task
from pydantic import NonNegativeInt, PositiveInt, model_validator

from config import paths
from datasets.dataset import Dataset, checksum
from runtime.errors import UserError
from tasks.data.contracts import (
    Contract,
    Sha256,
    Source,
    only_with_batches,
    read_contract,
    refuse_false_source,
    refuse_other_values,
    write_contract,
)
from tasks.data.files import read_table
from tasks.data.validation import check_table


class Batch(Contract):
    """A batch: rows that a user has added. sha256: of its file. duplicates: rows that equal an earlier one."""

    name: str
    sha256: Sha256
    rows: PositiveInt
    new_rows: NonNegativeInt
    duplicates: NonNegativeInt


class Provenance(Contract):
    """data/raw/D.json: where the raw rows come from.

    With batches, the first `source_rows` are those of the source; the new rows of each batch follow, in the order of
    `batches`.
    """

    dataset: str
    title: str
    source: Source
    origin: str
    version: str
    licence: str
    citation: str | None
    sha256: Sha256
    rows: PositiveInt
    columns: dict[str, str]
    class_names: list[str] | None
    source_rows: PositiveInt | None = only_with_batches()
    source_sha256: Sha256 | None = only_with_batches()
    batches: list[Batch] | None = only_with_batches()

    @model_validator(mode="after")
    def rows_add_up(self) -> Self:
        given = (self.source_rows, self.source_sha256, self.batches)
        if any(value is None for value in given) and given != (None, None, None):
            raise ValueError("source_rows, source_sha256 and batches go together")
        if self.source_rows and self.batches is not None:
            new = sum(batch.new_rows for batch in self.batches)
            if self.rows != self.source_rows + new:
                raise ValueError(f"rows is {self.rows}, but there are {self.source_rows} of the source and {new} new")
        return self


def write_provenance(provenance: Provenance, folder: Path) -> None:
    write_contract(folder / paths.raw_provenance(provenance.dataset).name, provenance)


def read_provenance(dataset: Dataset) -> Provenance:
    """Read the provenance of the raw rows; raises UserError where it contradicts the data set's file."""
    path, stage = paths.raw_provenance(dataset.name), f"ingest@{dataset.name}"
    provenance = read_contract(path, Provenance, stage)
    expected = {
        "dataset": dataset.name,
        "columns": {field.name: str(field.type) for field in dataset.schema},
        "class_names": list(dataset.class_names) if dataset.class_names else None,
    }
    refuse_other_values(path, stage, provenance, expected, f"datasets/{dataset.name}.py")
    refuse_false_source(path, stage, dataset, provenance, "sha256")
    return provenance


def read_raw(dataset: Dataset, sha256: str) -> pa.Table:
    """Read the raw rows; raises UserError where they are not as `ingest` wrote them.

    sha256: of the rows, as the provenance or the prepared schema states it.
    """
    path, stage = paths.raw_table(dataset.name), f"ingest@{dataset.name}"
    table = read_table(path, stage)
    check_table(path, table, dataset.schema, stage)
    found = checksum(table)
    if found != sha256:
        raise UserError(
            f"{path}: its rows have SHA-256 {found}, expected {sha256}: the file was altered, or the provenance or the "
            f"prepared data is of another source. Run `dvc repro --force {stage}`, then `dvc repro`."
        )
    return table


read_raw_task = task(read_raw)
read_provenance_task = task(read_provenance)
