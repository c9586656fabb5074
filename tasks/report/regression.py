"""Regression: what the test predictions of a regression model show."""

import numpy as np
import pandas as pd

from tasks.evaluation.metrics import SliceMetrics, metrics_per_quarter

CELL_DEGREES = 0.25


def residual(predictions: pd.DataFrame) -> pd.Series:
    return predictions["predicted"].astype(np.float64) - predictions["true"].astype(np.float64)


def by_quarter(predictions: pd.DataFrame, features: pd.DataFrame) -> dict[str, SliceMetrics]:
    """Return the metrics of each quarter of the test rows by each feature; features: of these rows, in raw units."""
    error = residual(predictions).reset_index(drop=True)
    slices: dict[str, SliceMetrics] = {}
    for name, values in features.reset_index(drop=True).items():
        slices |= metrics_per_quarter(str(name), values, error)
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
