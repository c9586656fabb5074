"""Metrics: what is computed from true and predicted values, here alone. Without Keras, so that the report can use it.

RMSE and MAE have the target's unit. Precision, recall and F1 are scikit-learn's; F1 is averaged over the classes.
"""

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt
from sklearn import metrics

from tasks.data.contracts import Number, OpenContract

# With fewer rows than this, a quarter of them says nothing.
MIN_SLICED_ROWS = 100


class ClassMetrics(OpenContract):
    """The metrics of one class."""

    precision: Number
    recall: Number
    f1: Number
    rows: NonNegativeInt


class SliceMetrics(OpenContract):
    """The metrics of a part of the rows. bias: the mean of predicted - true."""

    rmse: Number
    mae: Number
    bias: Number
    rows: NonNegativeInt


def regression_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return RMSE, MAE and R2 of quantities, one a row in either array."""
    true, predicted = true.reshape(-1).astype(np.float64), predicted.reshape(-1).astype(np.float64)
    return {
        "rmse": float(metrics.root_mean_squared_error(true, predicted)),
        "mae": float(metrics.mean_absolute_error(true, predicted)),
        "r2": float(metrics.r2_score(true, predicted)),
    }


def classification_metrics(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Return accuracy and the mean F1 of class numbers, [rows] each."""
    return {
        "accuracy": float(metrics.accuracy_score(true, predicted)),
        "f1_macro": float(metrics.f1_score(true, predicted, average="macro", zero_division=0)),
    }


def metrics_per_class(predictions: pd.DataFrame, names: list[str]) -> dict[str, ClassMetrics]:
    """Return the metrics of each class. Columns of predictions: true, predicted."""
    columns = metrics.precision_recall_fscore_support(
        predictions["true"], predictions["predicted"], labels=range(len(names)), zero_division=0
    )
    return {
        name: ClassMetrics(precision=float(p), recall=float(r), f1=float(f), rows=int(n))
        for name, p, r, f, n in zip(names, *columns, strict=True)
    }


def confusion_matrix(predictions: pd.DataFrame, classes: int) -> np.ndarray:
    """Return the rows of each true class (down) and predicted class (across), int64 [classes, classes]."""
    return metrics.confusion_matrix(predictions["true"], predictions["predicted"], labels=range(classes))


def slice_metrics(error: pd.Series) -> SliceMetrics:
    """Return the metrics of the rows with the float64 residuals `error`, predicted - true."""
    return SliceMetrics(
        rmse=float(np.sqrt((error**2).mean())),
        mae=float(error.abs().mean()),
        bias=float(error.mean()),
        rows=len(error),
    )


def metrics_per_quarter(name: str, values: pd.Series, error: pd.Series) -> dict[str, SliceMetrics]:
    """Return the metrics of each quarter of the rows by a column; nothing for fewer than MIN_SLICED_ROWS rows.

    Args:
        name: of the column, for the names of the quarters.
        values: of the column. Where many are equal there are fewer than four parts.
        error: the residuals of the same rows, in the same order.
    """
    return {part: slice_metrics(error[rows]) for part, rows in quarters(name, values).items()}


def quarters(name: str, values: pd.Series) -> dict[str, np.ndarray]:
    """Return which rows are in each quarter by a column, bool [rows], by the quarter's name.

    name: of the column. values: where many are equal there are fewer than four parts; none for fewer than
    MIN_SLICED_ROWS rows.
    """
    if len(values) < MIN_SLICED_ROWS:
        return {}
    found = pd.qcut(values, 4, duplicates="drop")
    parts = {f"{name} {part.left:g} to {part.right:g}": (found == part).to_numpy() for part in found.cat.categories}
    return {part: rows for part, rows in parts.items() if rows.any()}
