"""Normalise: bring features to a common scale, with statistics of the train split alone.

The same function normalises in `prepare` (NumPy) and inside the exported graph (Keras tensors), so that
serving cannot skew from training. It uses arithmetic operators and clip only, in float32.

standard: (x - mean) / standard deviation. clipped: the same, after x was moved into the range that all but a
tail of the train rows on each side lie in (winsorising; J. W. Tukey, "The future of data analysis", Annals of
Mathematical Statistics 33, 1962).
"""

from typing import Any

import numpy as np

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
