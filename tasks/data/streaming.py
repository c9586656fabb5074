"""Streams: splits too large for memory, read from their Parquet file one row group at a time."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect import task

from config import paths
from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import to_values
from models.common.features import get_target
from runtime.errors import UserError
from tasks.data.examples import Columns, Examples, class_weights, read_examples, to_columns, to_examples
from tasks.data.files import open_table
from tasks.data.schema import GROUP_ROWS, PreparedSchema, read_schema
from tasks.data.validation import check_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stream:
    """Rows of one split that stay on disk.

    by_class: the weight of each class. errors: those of `read`, which TensorFlow replaces by its own.
    """

    params: ModelParams
    path: Path
    rows: int
    schema: PreparedSchema
    by_class: dict[int, float]
    errors: list[UserError] = field(default_factory=list)

    @property
    def groups(self) -> int:
        return -(-self.rows // GROUP_ROWS)

    def read(self, group: int) -> Columns:
        """Return the columns of a row group that the model needs, with the target and the index.

        Raises UserError where the file is damaged or not as `prepare` writes it.
        """
        try:
            with open_table(self.path, f"prepare@{self.params.dataset}") as file:
                table = file.read_row_group(group, use_threads=False)
            return to_columns(self.params, table, self.path)
        except UserError as error:
            self.errors.append(error)
            raise

    def to_examples(self, columns: Columns) -> Examples:
        """Turn rows of `read` into examples for the model."""
        return to_examples(self.params, columns, self.schema, self.by_class)

    def first_rows(self) -> Examples:
        """Return the first row group."""
        return self.to_examples(self.read(0))

    def parts(self) -> Iterator[Examples]:
        """Yield all rows, a row group at a time, in the order of the file."""
        for group in range(self.groups):
            yield self.to_examples(self.read(group))


Split = Examples | Stream


def open_split(params: ModelParams, split: str, memory: int) -> Split:
    """Open a split for a model: in memory, or as a stream.

    Args:
        params: the model's recipe.
        split: "train", "valid" or "test".
        memory: bytes; if the inputs take more, the rows stay on disk.

    Raises:
        UserError: the file is missing or not as `prepare` writes it.
    """
    path, stage = paths.prepared_table(params.dataset, split), f"prepare@{params.dataset}"
    with open_table(path, stage) as file:
        rows = file.metadata.num_rows
        groups = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    if rows <= GROUP_ROWS:
        return read_examples(params, split)
    stream = Stream(params, path, rows, read_schema(params.dataset), {})
    check_rows(path, rows, stream.schema.rows.of(split), stage)
    first = stream.first_rows()
    size = rows * sum(values.nbytes for values in first.inputs.values()) // first.rows
    if size <= memory:
        return read_examples(params, split)
    if any(group != GROUP_ROWS for group in groups[:-1]):
        raise UserError(
            f"{path}: its row groups are not of {GROUP_ROWS} rows, which streaming needs. "
            f"Run `dvc repro --force {stage}`."
        )
    logger.info("%s: streaming %d rows (%.1f GB) from disk", path, rows, size / 1e9)
    return Stream(params, path, rows, stream.schema, read_class_weights(params, path, stage, stream.schema))


def read_class_weights(params: ModelParams, path: Path, stage: str, schema: PreparedSchema) -> dict[int, float]:
    """Return the weight of a row of each class, computed from the whole split; {} without a class_weight.

    Args:
        params: the model's recipe.
        path: of the split.
        stage: which makes it, for messages.
        schema: of the prepared data.
    """
    if params.fit.class_weight is None:
        return {}
    name = get_dataset(params.dataset).target
    with open_table(path, stage) as file:
        labels = to_values(file.read(columns=[name])[name])
    return class_weights(params, get_target(params.target).compute(labels, schema), schema)


@contextmanager
def raise_read_errors(*splits: Split) -> Iterator[None]:
    """Raise the error of reading a split in the block, instead of the error that TensorFlow turns it into."""
    try:
        yield
    except Exception:
        for split in splits:
            if isinstance(split, Stream) and split.errors:
                raise split.errors[0] from None
        raise


open_split_task = task(open_split)
