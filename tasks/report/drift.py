"""Drift: whether the splits of a data set follow one distribution, and which rows are outliers."""

from typing import Any

import numpy as np

from config import paths
from tasks.arrivals.distances import class_shares

SIGNIFICANCE = 0.01  # of all tests of a data set together (Bonferroni)
NOTABLE = 0.1  # a smaller distance is no drift, however significant it is
FAR_OUT = 3.0  # interquartile ranges beyond the quartiles (Tukey, Exploratory Data Analysis, 1977)
BINS = 24


def compare_splits(columns: dict[str, np.ndarray], rows: dict[str, np.ndarray], classes: bool) -> list[dict[str, Any]]:
    """Test for each column whether validation and test are distributed as train.

    Numbers are tested by the two-sample Kolmogorov-Smirnov test, classes by the chi-squared test of homogeneity. The
    distance is the greatest difference between the two distribution functions, or between the shares of a class. A
    column drifts if the test is significant at SIGNIFICANCE for all columns together and the distance is at least
    NOTABLE.

    Args:
        columns: the values of all rows, by name.
        rows: the rows of each split.
        classes: whether the last column holds classes.
    """
    from scipy.stats import chi2_contingency, ks_2samp

    others = [split for split in paths.SPLITS[1:] if split in rows]
    tests = len(columns) * len(others)
    found = []
    for number, (name, values) in enumerate(columns.items()):
        train = values[rows["train"]]
        for split in others:
            other = values[rows[split]]
            if classes and number == len(columns) - 1:
                known = int(values.max()) + 1
                counts = np.stack([np.bincount(part, minlength=known) for part in (train, other)])
                shares = [class_shares(part, known) for part in (train, other)]
                filled = counts[:, counts.sum(axis=0) > 0]
                p = float(chi2_contingency(filled).pvalue) if filled.shape[1] > 1 else 1.0
                distance, test = float(np.abs(shares[0] - shares[1]).max()), "chi-squared"
            else:
                result = ks_2samp(train, other, method="asymp")
                p, distance, test = float(result.pvalue), float(result.statistic), "Kolmogorov-Smirnov"
            drifted = p * tests < SIGNIFICANCE and distance >= NOTABLE
            found.append({"column": name, "split": split, "test": test, "distance": distance, "p": p, "drift": drifted})
    return found


def far_out(values: np.ndarray) -> dict[str, Any]:
    """Return how many values lie FAR_OUT interquartile ranges beyond the quartiles, with bounds and extremes."""
    low, high = np.quantile(values, (0.25, 0.75))
    below, above = low - FAR_OUT * (high - low), high + FAR_OUT * (high - low)
    return {
        "rows": int(((values < below) | (values > above)).sum()),
        "lowest": float(values.min()),
        "quartiles": [float(low), float(np.median(values)), float(high)],
        "highest": float(values.max()),
        "bounds": [float(below), float(above)],
    }


def histogram(values: np.ndarray, rows: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Return the share of each split's rows in each of BINS bins over the middle 99 % of all values."""
    low, high = np.quantile(values, (0.005, 0.995))
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, BINS + 1)
    found = []
    for split, taken in rows.items():
        counts, _ = np.histogram(values[taken], edges)
        found += [
            {"split": split, "from": float(left), "to": float(right), "share": float(n / len(taken))}
            for left, right, n in zip(edges[:-1], edges[1:], counts, strict=True)
        ]
    return found


def far_from_class(images: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the rows of the images that lie farthest from the mean image of their class, the farthest first.

    The distance is Euclidean, over the pixels.

    Args:
        images: uint8 [rows, height, width].
        labels: the class of each.
        count: how many to return.
    """
    distance = np.empty(len(images))
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        flat = images[mine].reshape(len(mine), -1).astype(np.float32)
        distance[mine] = np.linalg.norm(flat - flat.mean(axis=0), axis=1)
    return np.argsort(-distance, kind="stable")[:count]
