"""Normalise: bring features to a common scale, with statistics of the train split alone.

The same function normalises in `prepare` (NumPy) and inside the exported graph (Keras tensors), so that
serving cannot skew from training. It uses arithmetic operators only, in float32.
"""

from typing import Any

import numpy as np

# {"method": "none"} or {"method": "pixels", "divisor": 255.0} or
# {"method": "standard", "mean": {column: float}, "std": {column: float}}
Statistics = dict[str, Any]


def train_statistics(method: str, train: dict[str, np.ndarray]) -> Statistics:
    """Return what `normalize` needs to know.

    train: raw values of each feature in the train split, [rows] or [rows, ...].
    A constant column gets the standard deviation 1, so that it becomes 0 and not NaN.
    """
    if method == "standard":
        return {
            "method": method,
            "mean": {name: float(values.mean(dtype=np.float64)) for name, values in train.items()},
            "std": {name: float(values.std(dtype=np.float64)) or 1.0 for name, values in train.items()},
        }
    if method == "pixels":
        return {"method": method, "divisor": 255.0}
    return {"method": method}


def normalize(name: str, values: Any, statistics: Statistics) -> Any:
    """Return the float32 `values` of column `name` on the common scale; same shape and kind of array."""
    if statistics["method"] == "standard":
        return (values - np.float32(statistics["mean"][name])) / np.float32(statistics["std"][name])
    if statistics["method"] == "pixels":
        return values / np.float32(statistics["divisor"])
    return values
