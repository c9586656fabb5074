"""Normalise: bring features to a common scale, with statistics of the train split alone.

The same function normalises in `prepare` (NumPy) and inside the exported graph (Keras tensors), so that
serving cannot skew from training. It uses arithmetic operators and clip only, in float32.

standard: (x - mean) / standard deviation. clipped: the same, after x was moved into the range that all but a
tail of the train rows on each side lie in (winsorising; J. W. Tukey, "The future of data analysis", Annals of
Mathematical Statistics 33, 1962).
"""

from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task

from config import paths
from datasets import get_dataset
from datasets.dataset import Dataset, to_column, to_values
from tasks.data.contracts import NORMALIZATION, check_statistics, read_contract
from tasks.data.schema import prepared_schema

# {"method": "none"} or {"method": "pixels", "divisor": 255.0} or
# {"method": "standard", "mean": {column: float}, "std": {column: float}} or
# {"method": "clipped", "low": {column: float}, "high": ..., "mean": ..., "std": ...}
Statistics = dict[str, Any]


def train_statistics(method: str, train: dict[str, np.ndarray], tail: float | None = None) -> Statistics:
    """Return what `normalize` needs to know.

    train: raw values of each feature in the train split, [rows] or [rows, ...]. tail: for "clipped", the share of
        rows below the lower bound, and of those above the upper one.
    A constant column gets the standard deviation 1, so that it becomes 0 and not NaN.
    """
    if method == "standard":
        return {
            "method": method,
            "mean": {name: float(values.mean(dtype=np.float64)) for name, values in train.items()},
            "std": {name: float(values.std(dtype=np.float64)) or 1.0 for name, values in train.items()},
        }
    if method == "clipped":
        assert tail is not None
        low = {name: float(np.quantile(values, tail)) for name, values in train.items()}
        high = {name: float(np.quantile(values, 1 - tail)) for name, values in train.items()}
        clipped = {name: values.clip(low[name], high[name]) for name, values in train.items()}
        return {"low": low, "high": high, **train_statistics("standard", clipped), "method": method}
    if method == "pixels":
        return {"method": method, "divisor": 255.0}
    return {"method": method}


def normalize(name: str, values: Any, statistics: Statistics) -> Any:
    """Return the float32 `values` of column `name` on the common scale; same shape and kind of array."""
    if statistics["method"] == "clipped":
        low, high = np.float32(statistics["low"][name]), np.float32(statistics["high"][name])
        values = clip(values, low, high)
    if statistics["method"] in ("standard", "clipped"):
        return (values - np.float32(statistics["mean"][name])) / np.float32(statistics["std"][name])
    if statistics["method"] == "pixels":
        return values / np.float32(statistics["divisor"])
    return values


def clip(values: Any, low: np.float32, high: np.float32) -> Any:
    if isinstance(values, np.ndarray):
        return values.clip(low, high)
    from keras import ops  # late: `prepare` does without Keras

    return ops.clip(values, low, high)


def normalize_splits(
    dataset: Dataset, table: pa.Table, rows: dict[str, np.ndarray], method: str, tail: Fraction | None
) -> tuple[dict[str, pa.Table], Statistics]:
    """Return the prepared table of each split, and the statistics of the train split that they are normalized with.

    Args:
        table: the raw rows.
        rows: int64 numbers of the raw rows of each split, by its name.
        method, tail: as in `train_statistics`.
    """
    raw = {name: to_values(table[name]) for name in (*dataset.features, dataset.target)}
    target = raw.pop(dataset.target).astype(np.int64 if dataset.class_names else np.float32)
    numbers = {name: values.astype(np.float32) for name, values in raw.items() if values.ndim == 1}
    features = dataset.derive({**raw, **numbers})
    train = {name: values[rows["train"]] for name, values in features.items()}
    statistics = train_statistics(method, train, float(tail) if tail else None)
    schema = prepared_schema(dataset)
    tables = {}
    for split, taken in rows.items():
        normal = [normalize(name, values[taken].astype(np.float32), statistics) for name, values in features.items()]
        columns = [taken, *normal, target[taken]]
        tables[split] = pa.table([to_column(values) for values in columns], schema=schema)
    return tables, statistics


def read_statistics(dataset: str) -> Statistics:
    """Read the statistics that `prepare` normalised with; raises UserError where one of them cannot be used."""
    path, stage = paths.prepared_folder(dataset) / "normalization.json", f"prepare@{dataset}"
    statistics = read_contract(path, NORMALIZATION, stage)
    check_statistics(path, stage, get_dataset(dataset).prepared_columns, statistics)
    return statistics


read_statistics_task = task(read_statistics)
