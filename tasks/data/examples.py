"""Examples: the prepared rows of a split, as arrays of inputs, targets and weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from config import paths
from config.params import ModelParams
from datasets import get_dataset
from datasets.dataset import Dataset, to_values
from models.common.features import columns_needed, compute_inputs, get_sample_weight, get_target
from models.common.outputs import MAIN_OUTPUT, network_input
from runtime.errors import UserError
from tasks.data.files import read_table
from tasks.data.schema import INDEX, PreparedSchema, prepared_schema, read_schema
from tasks.data.validation import check_classes, check_index, check_rows, check_table

Columns = dict[str, np.ndarray]  # name of a prepared column: values [rows] or [rows, ...]


@dataclass(frozen=True)
class Examples:
    """Rows of one split.

    inputs: float32 [rows, ...] of each input of the network, by name.
    target: for the loss, int64 [rows] or float32 [rows, 1] or [rows, classes].
    index: int64 [rows], the numbers of the raw rows.
    weight: float32 [rows], of each row in training; None: all the same.
    own: the targets of outputs that learn another one, by output.
    """

    inputs: dict[str, np.ndarray]
    target: np.ndarray
    index: np.ndarray
    weight: np.ndarray | None = None
    own: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def x(self) -> np.ndarray | dict[str, np.ndarray]:
        """The inputs as Keras takes them."""
        return network_input(self.inputs)

    @property
    def rows(self) -> int:
        return len(self.target)

    def first_rows(self) -> "Examples":
        return self

    def take(self, rows: np.ndarray) -> "Examples":
        """Return the rows with these numbers, in the given order."""
        inputs = {name: values[rows] for name, values in self.inputs.items()}
        weight = None if self.weight is None else self.weight[rows]
        own = {output: target[rows] for output, target in self.own.items()}
        return Examples(inputs, self.target[rows], self.index[rows], weight, own)

    def parts(self) -> Iterator["Examples"]:
        """Yield all rows at once; a `Stream` yields them in parts."""
        yield self


def join(parts: Sequence[Examples]) -> Examples:
    """Return the rows of all `parts`, one after another."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    inputs = {name: np.concatenate([part.inputs[name] for part in parts]) for name in first.inputs}
    weights = [part.weight for part in parts if part.weight is not None]
    target, index = (np.concatenate([getattr(part, name) for part in parts]) for name in ("target", "index"))
    own = {output: np.concatenate([part.own[output] for part in parts]) for output in first.own}
    return Examples(inputs, target, index, np.concatenate(weights) if weights else None, own)


def read_examples(params: ModelParams, split: str) -> Examples:
    """Read a split as examples for a model.

    Args:
        params: the model's recipe.
        split: "train", "valid" or "test".

    Raises:
        UserError: the file is missing, has other columns or types than `prepare` writes, no rows or missing values, or
            a feature does not suit the data set.
    """
    path, stage = paths.prepared_table(params.dataset, split), f"prepare@{params.dataset}"
    table, schema = read_table(path, stage), read_schema(params.dataset)
    columns = to_columns(params, table, path)
    check_rows(path, table.num_rows, schema.rows.of(split), stage)
    check_index(path, columns[INDEX], schema.rows.total, stage)
    return to_examples(params, columns, schema)


def to_columns(params: ModelParams, table: pa.Table, path: Path) -> Columns:
    """Return the columns of a prepared table that a model needs, with the target and the index.

    Args:
        params: the model's recipe.
        table: the prepared rows.
        path: of the table, for messages.

    Raises:
        UserError: the table is not as `prepare` writes it.
    """
    dataset = get_dataset(params.dataset)
    check_table(path, table, prepared_schema(dataset), f"prepare@{dataset.name}")
    check_classes(path, dataset, to_values(table[dataset.target]), f"prepare@{dataset.name}")
    needed = columns_needed(params.inputs, dataset.features, tuple(dataset.derived))
    return {name: to_values(table[name]) for name in (*needed, dataset.target, INDEX)}


def to_examples(
    params: ModelParams, columns: Columns, schema: PreparedSchema, by_class: dict | None = None
) -> Examples:
    """Turn prepared rows into examples for a model.

    Args:
        params: the model's recipe.
        columns: the prepared rows.
        schema: of the prepared data.
        by_class: the weight of each class, where the rows are a part of the split; None: computed from these rows.
    """
    dataset = get_dataset(params.dataset)
    labels = columns[dataset.target]
    target = get_target(params.target).compute(labels, schema)
    inputs = {
        name: np.asarray(values) for name, values in compute_inputs(params.inputs, columns, dataset.features).items()
    }
    by_class = by_class or class_weights(params, target, schema)
    weight = row_weights(params, labels, target, schema, by_class)
    own = {output: get_target(name).compute(labels, schema) for output, name in params.targets.items()}
    return Examples(inputs, target, columns[INDEX], weight, own)


def class_weights(params: ModelParams, target: np.ndarray, schema: PreparedSchema) -> dict[int, float]:
    """Return the weight of a row of each class by the recipe's class_weight; {} without one.

    Args:
        params: the model's recipe.
        target: of the whole split, from which "balanced" is computed.
        schema: of the prepared data.
    """
    from sklearn.utils.class_weight import compute_class_weight

    wanted = params.fit.class_weight
    if wanted == "balanced":
        true = true_class(target)
        classes = np.unique(true)
        weights = compute_class_weight(wanted, classes=classes, y=true)
        return dict(zip(classes.tolist(), weights.tolist(), strict=True))
    return {k: wanted.get(name, 1.0) for k, name in enumerate(class_names(params, schema))} if wanted else {}


def row_weights(
    params: ModelParams, labels: np.ndarray, target: np.ndarray, schema: PreparedSchema, by_class: dict[int, float]
) -> np.ndarray | None:
    """Return the product of class weight and sample weight, float32 [rows]; None where the recipe has neither.

    Args:
        params: the model's recipe.
        labels: the prepared target.
        target: what the loss gets.
        schema: of the prepared data.
        by_class: the weight of each class.
    """
    weights = np.ones(len(labels), np.float32)
    if params.fit.sample_weight:
        weights = weights * get_sample_weight(params.fit.sample_weight)(labels, schema)
    if by_class:
        weights = weights * np.array([by_class[k] for k in true_class(target).tolist()])
    return weights.astype(np.float32) if params.fit.sample_weight or by_class else None


def class_names(params: ModelParams, schema: PreparedSchema, output: str = MAIN_OUTPUT) -> list[str]:
    """Return the names of the classes that an output tells apart; none for a quantity."""
    target = get_target(params.target_of(output))
    return [] if target.task == "regression" else list(target.class_names or schema.class_names or ())


def true_class(target: np.ndarray) -> np.ndarray:
    """Return int64 class numbers [rows] from a target: class numbers, 0 and 1 in a column, or one-hot rows."""
    if target.ndim == 2 and target.shape[1] > 1:
        return target.argmax(axis=1)
    return target.reshape(-1).astype(np.int64)


def check_features(
    section: str, dataset: Dataset, inputs: dict[str, str], target_name: str, key: str = "target"
) -> list[str]:
    """Return the raw columns that inputs need, after a check that inputs and target suit the data set.

    Args:
        section: of params.yaml, for messages.
        dataset: whose rows they get.
        inputs: name of each input: its feature.
        target_name: the target.
        key: of the target in the section.

    Raises:
        UserError: an input or the target does not suit the data set.
    """
    try:
        needed = dataset.raw_columns(columns_needed(inputs, dataset.features, tuple(dataset.derived)))
    except UserError as error:
        raise UserError(f"{paths.PARAMS}: {section}.inputs: {error}") from None
    try:
        target = get_target(target_name)
    except UserError as error:
        raise UserError(f"{paths.PARAMS}: {section}.{key}: {error}") from None
    if target.dataset not in (None, dataset.name):
        message = f"{target_name!r} is for {target.dataset}, not for {dataset.name}."
        raise UserError(f"{paths.PARAMS}: {section}.{key}: {message}")
    if target.dataset is None and (target.task == "regression") != (dataset.class_names is None):
        fitting = "class" if dataset.class_names else "value"
        message = f"{target_name!r} does not fit {dataset.name}; use {fitting!r}."
        raise UserError(f"{paths.PARAMS}: {section}.{key}: {message}")
    return needed
