"""Classification: what the test predictions of a classifier show."""

from typing import Any

import numpy as np
import pandas as pd

from tasks.evaluation.metrics import confusion_matrix

CONFIDENCE_BINS = 10
MAX_ERRORS = 8


def confusion(predictions: pd.DataFrame, names: list[str]) -> list[dict[str, Any]]:
    """Return a row for each true class: its name and, for each predicted class, the count and the share of the row."""
    counts = confusion_matrix(predictions, len(names))
    return [
        {"name": name, "cells": [{"count": int(n), "share": float(n / max(1, row.sum()))} for n in row]}
        for name, row in zip(names, counts, strict=True)
    ]


def confidence(predictions: pd.DataFrame, names: list[str]) -> np.ndarray:
    """Return the probability of each row's predicted class, float64 [rows]."""
    given = predictions[[f"probability {name}" for name in names]].to_numpy(np.float64)
    return given[np.arange(len(given)), predictions["predicted"]]


def calibration(predictions: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """Return the accuracy per confidence bin and the expected calibration error.

    bins: of equal width in confidence, each with its mean confidence, accuracy and rows. error: the mean over the rows
    of |accuracy - confidence| of their bin (Guo et al., On Calibration of Modern Neural Networks, 2017).
    """
    confidences = confidence(predictions, names)
    right = (predictions["true"] == predictions["predicted"]).to_numpy()
    bins = np.minimum((confidences * CONFIDENCE_BINS).astype(int), CONFIDENCE_BINS - 1)
    filled = [
        {
            "confidence": float(confidences[bins == number].mean()),
            "accuracy": float(right[bins == number].mean()),
            "rows": int((bins == number).sum()),
        }
        for number in np.unique(bins)
    ]
    error = sum(row["rows"] * abs(row["confidence"] - row["accuracy"]) for row in filled) / max(1, len(confidences))
    return {"bins": filled, "error": float(error)}


def most_confident_errors(predictions: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the wrong predictions with the highest confidence, in descending order of confidence."""
    confidences = pd.Series(confidence(predictions, names), predictions.index)
    wrong = predictions["true"] != predictions["predicted"]
    return predictions.loc[confidences[wrong].sort_values(ascending=False, kind="stable").index[:MAX_ERRORS]]
