"""Examples: the prepared rows of a split, as the arrays that a model takes and learns."""

from dataclasses import dataclass

import numpy as np
from prefect import task

from config import paths
from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import to_values
from models import network_input
from models.views import columns_needed, compute_inputs, get_target_view
from tasks.check import check_classes, check_table
from tasks.files import read_json, read_table
from tasks.prepare import INDEX, prepared_schema


@dataclass(frozen=True)
class Examples:
    """Rows of one split. `inputs`: name of a network's input: float32 [rows, ...]."""

    inputs: dict[str, np.ndarray]
    target: np.ndarray  # what the loss gets: int64 [rows] or float32 [rows, 1]
    index: np.ndarray  # int64 [rows], the row's number in the raw table

    @property
    def x(self) -> np.ndarray | dict[str, np.ndarray]:
        """What Keras takes."""
        return network_input(self.inputs)


def read_schema(dataset: str) -> dict:
    """Read what `prepare` says of its tables: source, classes, rows, checksum of the raw rows."""
    return read_json(paths.prepared_folder(dataset) / "schema.json", f"prepare@{dataset}")


def read_examples(params: ModelParams, split: str) -> Examples:
    """Read a split ("train", "valid" or "test") as model `params` sees it.

    Raises UserError when the file is missing, has other columns or types than `prepare` writes, no rows,
    or missing values, and when a view does not fit the data set.
    """
    dataset = get_dataset(params.dataset)
    needed = columns_needed(params.inputs, dataset.features)
    path = paths.prepared_folder(dataset.name) / f"{split}.parquet"
    stage = f"prepare@{dataset.name}"
    table = read_table(path, stage)
    check_table(path, table, prepared_schema(dataset), stage)
    columns = {name: to_values(table[name]) for name in needed}
    labels = to_values(table[dataset.target])
    check_classes(path, dataset, labels, stage)
    inputs = compute_inputs(params.inputs, columns, dataset.features)
    target = get_target_view(params.target).compute(labels)
    return Examples({name: np.asarray(values) for name, values in inputs.items()}, target, to_values(table[INDEX]))


read_schema_task = task(read_schema)
read_examples_task = task(read_examples)
