"""Regression: what the test predictions of a regression model show."""

from typing import Any

import numpy as np
import pandas as pd

MIN_ROWS = 100  # a quarter of fewer rows says little
CELL_DEGREES = 0.25


def error_metrics(error: pd.Series) -> dict[str, Any]:
    """Return RMSE, MAE, mean and number of residuals, predicted - true."""
    return {
        "rmse": float(np.sqrt((error**2).mean())),
        "mae": float(error.abs().mean()),
        "bias": float(error.mean()),
        "rows": len(error),
    }


def residual(predictions: pd.DataFrame) -> pd.Series:
    return predictions["predicted"].astype(np.float64) - predictions["true"].astype(np.float64)


def by_quarter(predictions: pd.DataFrame, features: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the metrics of each quarter of the test rows by each feature; {} for fewer than MIN_ROWS rows.

    features: of the test rows, in raw units. A feature with few values has fewer than four parts.
    """
    if len(predictions) < MIN_ROWS:
        return {}
    error = residual(predictions).reset_index(drop=True)
    slices = {}
    for name, values in features.reset_index(drop=True).items():
        quarters = pd.qcut(values, 4, duplicates="drop")
        for quarter, rows in error.groupby(quarters, observed=True):
            slices[f"{name} {quarter.left:g} to {quarter.right:g}"] = error_metrics(rows)
    return slices


def on_map(predictions: pd.DataFrame, places: pd.DataFrame) -> pd.DataFrame:
    """Return the mean residual and the rows of each cell of CELL_DEGREES. places: longitude, latitude of the rows.

    Columns: longitude and latitude (of the cell's corner in the south-west, degrees), residual, rows.
    """
    cells = (places.to_numpy(np.float64) // CELL_DEGREES) * CELL_DEGREES
    frame = pd.DataFrame(
        {"longitude": cells[:, 0], "latitude": cells[:, 1], "residual": residual(predictions).to_numpy()}
    )
    means = frame.groupby(["longitude", "latitude"], as_index=False)["residual"].agg(["mean", "size"])
    return means.rename(columns={"mean": "residual", "size": "rows"})
