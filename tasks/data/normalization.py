"""Normalization: bring features to a common scale, by statistics of the train split alone.

The same `apply` runs in `prepare` on NumPy arrays and in the exported graph on Keras tensors, so that serving cannot
differ from training. It uses arithmetic operators and clip only, in float32.
"""

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from prefect import task
from pydantic import AfterValidator, Field, TypeAdapter

from config import paths
from datasets import get_dataset
from datasets.dataset import Dataset, to_column, to_values
from tasks.data.contracts import Contract, Statistic, fault, read_contract, write_contract
from tasks.data.schema import prepared_schema


def exceed_zero(value: float) -> float:
    if not np.float32(value) > 0:
        raise ValueError("is not greater than 0")
    return value


Divisor = Annotated[Statistic, AfterValidator(exceed_zero)]


class Identity(Contract):
    """The values stay as they are."""

    method: Literal["none"] = "none"

    def apply(self, name: str, values: Any) -> Any:
        """Return the float32 `values` of column `name` on the common scale; same shape and kind of array."""
        return values


class Pixels(Contract):
    """The values are divided by the largest one that a pixel can have."""

    method: Literal["pixels"] = "pixels"
    divisor: Divisor

    def apply(self, name: str, values: Any) -> Any:
        """Return the float32 `values` of column `name` on the common scale; same shape and kind of array."""
        return values / np.float32(self.divisor)


class Standard(Contract):
    """(x - mean) / standard deviation, by column."""

    method: Literal["standard"] = "standard"
    mean: dict[str, Statistic]
    std: dict[str, Divisor]

    def apply(self, name: str, values: Any) -> Any:
        """Return the float32 `values` of column `name` on the common scale; same shape and kind of array."""
        return (values - np.float32(self.mean[name])) / np.float32(self.std[name])


class Clipped(Contract):
    """As `Standard`, after values beyond the bounds of their column were moved to the bound.

    The bounds leave the same share of the train rows outside on each side (winsorizing; J. W. Tukey, "The future of
    data analysis", Annals of Mathematical Statistics 33, 1962).
    """

    low: dict[str, Statistic]
    high: dict[str, Statistic]
    method: Literal["clipped"] = "clipped"
    mean: dict[str, Statistic]
    std: dict[str, Divisor]

    def apply(self, name: str, values: Any) -> Any:
        """Return the float32 `values` of column `name` on the common scale; same shape and kind of array."""
        clipped = clip(values, np.float32(self.low[name]), np.float32(self.high[name]))
        return (clipped - np.float32(self.mean[name])) / np.float32(self.std[name])


# data/prepared/D/normalization.json
Normalization = Annotated[Identity | Pixels | Standard | Clipped, Field(discriminator="method")]
CONTRACT: TypeAdapter[Identity | Pixels | Standard | Clipped] = TypeAdapter(Normalization)
FILE = "normalization.json"


def fit_normalization(method: str, train: dict[str, np.ndarray], tail: float | None = None) -> Normalization:
    """Compute the statistics of a method. A constant column gets the standard deviation 1, so that it becomes 0.

    Args:
        method: a `normalization` of params.yaml.
        train: raw values of each feature in the train split, [rows] or [rows, ...].
        tail: for "clipped", the share of the rows below the lower bound, and of those above the upper one.
    """
    if method == "standard":
        return Standard(
            mean={name: float(values.mean(dtype=np.float64)) for name, values in train.items()},
            std={name: float(values.std(dtype=np.float64)) or 1.0 for name, values in train.items()},
        )
    if method == "clipped":
        assert tail is not None
        low = {name: float(np.quantile(values, tail)) for name, values in train.items()}
        high = {name: float(np.quantile(values, 1 - tail)) for name, values in train.items()}
        clipped = {name: values.clip(low[name], high[name]) for name, values in train.items()}
        standard = fit_normalization("standard", clipped)
        assert isinstance(standard, Standard)
        return Clipped(low=low, high=high, mean=standard.mean, std=standard.std)
    return Pixels(divisor=255.0) if method == "pixels" else Identity()


def clip(values: Any, low: np.float32, high: np.float32) -> Any:
    """Return values within the bounds `low` and `high`: NumPy arrays or Keras tensors."""
    if isinstance(values, np.ndarray):
        return values.clip(low, high)
    from keras import ops  # `prepare` and the report do without Keras

    return ops.clip(values, low, high)


def normalize_splits(
    dataset: Dataset, table: pa.Table, rows: dict[str, np.ndarray], method: str, tail: Fraction | None
) -> tuple[dict[str, pa.Table], Normalization]:
    """Normalize the rows of every split by the statistics of the train split.

    Args:
        dataset: whose rows they are.
        table: the raw rows.
        rows: int64 numbers of the raw rows of each split.
        method, tail: as in `fit_normalization`.

    Returns:
        The prepared table of each split, and the normalization.
    """
    raw = {name: to_values(table[name]) for name in (*dataset.features, dataset.target)}
    target = raw.pop(dataset.target).astype(np.int64 if dataset.class_names else np.float32)
    numbers = {name: values.astype(np.float32) for name, values in raw.items() if values.ndim == 1}
    features = dataset.derive({**raw, **numbers})
    train = {name: values[rows["train"]] for name, values in features.items()}
    normalization = fit_normalization(method, train, float(tail) if tail else None)
    schema = prepared_schema(dataset)
    tables = {}
    for split, taken in rows.items():
        normal = [normalization.apply(name, values[taken].astype(np.float32)) for name, values in features.items()]
        columns = [taken, *normal, target[taken]]
        tables[split] = pa.table([to_column(values) for values in columns], schema=schema)
    return tables, normalization


def write_normalization(normalization: Normalization, folder: Path) -> None:
    write_contract(folder / FILE, normalization)


def read_normalization(dataset: str) -> Normalization:
    """Read the normalization of the prepared data; raises UserError where one of its statistics cannot be used."""
    path, stage = paths.prepared_folder(dataset) / FILE, f"prepare@{dataset}"
    normalization = read_contract(path, CONTRACT, stage)
    columns = set(get_dataset(dataset).prepared_columns)
    for key in ("low", "high", "mean", "std"):
        statistics = getattr(normalization, key, None)
        if statistics is not None and statistics.keys() != columns:
            odd = sorted(statistics.keys() ^ columns)[0]
            raise fault(path, stage, f"{key}.{odd}", "is missing" if odd in columns else "is no column")
    if isinstance(normalization, Clipped):
        for name, low in normalization.low.items():
            if low > normalization.high[name]:
                raise fault(path, stage, f"low.{name}", f"is above high.{name}")
    return normalization


read_normalization_task = task(read_normalization)
