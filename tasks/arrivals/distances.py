"""Distances between two distributions, which the checks of a batch, its drift and the report share."""

import numpy as np


def class_shares(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the share of rows of each class, float64 [classes]. labels: int [rows], 0 to `classes` - 1."""
    return np.bincount(labels, minlength=classes) / len(labels)


def total_variation(shares: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the share of rows that would have to change class to make the shares equal: [..., classes] -> [...]."""
    return np.abs(shares - others).sum(axis=-1) / 2


def hellinger(shares: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the Hellinger distance, 0 to 1: [..., classes] -> [...].

    Where one class of many is rarer or missing, fewer rows show it than by the total variation, to which the chance
    differences of all other classes add up.
    """
    return np.sqrt(np.maximum(0, 1 - np.sqrt(shares * others).sum(axis=-1)))
