"""Raw rows and their splits, normalized anew: for trainings that try another normalization than the prepared data's."""

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa

from config import paths
from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import Dataset
from tasks.data.examples import Examples, to_columns, to_examples
from tasks.data.normalization import normalize_splits
from tasks.data.raw import read_raw
from tasks.data.schema import PreparedSchema, read_schema, read_split_rows


@dataclass(frozen=True)
class RawSplits:
    """Raw rows and the splits of the prepared data. rows: int64 numbers of the raw rows of each split."""

    table: pa.Table
    rows: dict[str, np.ndarray]
    schema: PreparedSchema


def read_raw_splits(dataset: Dataset) -> RawSplits:
    """Read the raw rows of a data set and their splits.

    Raises UserError where a file is missing, damaged, or of another source than the others.
    """
    schema = read_schema(dataset.name)
    table = read_raw(dataset, schema.raw_sha256)
    return RawSplits(table, read_split_rows(dataset, schema, table.num_rows), schema)


def normalized_examples(
    params: ModelParams, data: RawSplits, normalization: str, tail: Fraction | None, splits: Collection[str]
) -> dict[str, Examples]:
    """Return the examples of some splits, normalized by the statistics of the train split.

    Args:
        params: a model's recipe.
        data: the raw rows of its data set.
        normalization, tail: as in `tasks.data.normalization.fit_normalization`.
        splits: the names of the splits; the train split is read in any case.
    """
    rows = {split: taken for split, taken in data.rows.items() if split in {"train", *splits}}
    tables, _ = normalize_splits(get_dataset(params.dataset), data.table, rows, normalization, tail)
    examples = {}
    for split in splits:
        columns = to_columns(params, tables[split], paths.prepared_table(params.dataset, split))
        examples[split] = to_examples(params, columns, data.schema)
    return examples
