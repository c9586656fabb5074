"""Examples: the prepared rows of a split, as the arrays that a model takes and learns."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import to_values
from models import network_input
from models.views import columns_needed, compute_inputs, get_target_view, get_weight_view
from tasks.check import check_classes, check_table
from tasks.files import read_json, read_table
from tasks.prepare import INDEX, prepared_schema


@dataclass(frozen=True)
class Examples:
    """Rows of one split. `inputs`: name of a network's input: float32 [rows, ...]."""

    inputs: dict[str, np.ndarray]
    target: np.ndarray  # what the loss gets: int64 [rows] or float32 [rows, 1] or [rows, classes]
    index: np.ndarray  # int64 [rows], the row's number in the raw table
    weight: np.ndarray | None = None  # float32 [rows], how much each row counts in training; None: all the same

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
    path = paths.prepared_folder(dataset.name) / f"{split}.parquet"
    stage = f"prepare@{dataset.name}"
    table = read_table(path, stage)
    check_table(path, table, prepared_schema(dataset), stage)
    check_classes(path, dataset, to_values(table[dataset.target]), stage)
    return to_examples(params, table, read_schema(dataset.name))


def to_examples(params: ModelParams, table: pa.Table, schema: dict) -> Examples:
    """Return the rows of a prepared `table` as model `params` sees them; schema: what `prepare` says of it."""
    dataset = get_dataset(params.dataset)
    needed = columns_needed(params.inputs, dataset.features, tuple(dataset.derived))
    columns = {name: to_values(table[name]) for name in needed}
    labels = to_values(table[dataset.target])
    inputs = compute_inputs(params.inputs, columns, dataset.features)
    target = get_target_view(params.target).compute(labels, schema)
    weight = row_weights(params, labels, target, schema)
    arrays = {name: np.asarray(values) for name, values in inputs.items()}
    return Examples(arrays, target, to_values(table[INDEX]), weight)


def row_weights(params: ModelParams, labels: np.ndarray, target: np.ndarray, schema: dict) -> np.ndarray | None:
    """Return the product of the recipe's class_weight and sample_weight, float32 [rows]; None without either."""
    weights = np.ones(len(labels), np.float32)
    if params.fit.sample_weight:
        weights = weights * get_weight_view(params.fit.sample_weight)(labels, schema)
    if params.fit.class_weight:
        from sklearn.utils.class_weight import compute_sample_weight

        names, wanted = class_names(params, schema), params.fit.class_weight
        by_number = wanted if wanted == "balanced" else {k: wanted.get(name, 1.0) for k, name in enumerate(names)}
        weights = weights * compute_sample_weight(by_number, true_class(target))
    given = params.fit.sample_weight or params.fit.class_weight
    return weights.astype(np.float32) if given else None


def class_names(params: ModelParams, schema: dict) -> list[str]:
    """Return the names of the classes that the model tells apart; empty for a regression."""
    if params.task == "regression":
        return []
    return list(get_target_view(params.target).class_names or schema["class_names"])


def true_class(target: np.ndarray) -> np.ndarray:
    """Return int64 [rows] from what a loss gets: class numbers, 0 and 1 in a column, or one-hot rows."""
    if target.ndim == 2 and target.shape[1] > 1:
        return target.argmax(axis=1)
    return target.reshape(-1).astype(np.int64)


read_schema_task = task(read_schema)
read_examples_task = task(read_examples)
