"""Verdict: whether a metric is better than the reference, worse, or the same within rounding and noise.

The reference is what the lecture notes print. A difference counts only if it exceeds the tolerance, which is the sum of

- rounding: half a unit of the last digit that the notes print, and
- noise: twice the standard deviation that chance alone gives the metric (see `estimate_noise`).
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

import numpy as np
import pandas as pd

from tasks.evaluation.metrics_files import LectureRun

# The metric that stands for a model, by task.
PRIMARY_METRIC = {"regression": "rmse", "binary": "accuracy", "multiclass": "accuracy"}
# Targets that say the same in another form: categorical_crossentropy compares with one_hot rows.
SAME_TARGET = {"one_hot": "class"}
LOWER_IS_BETTER = ("loss", "rmse", "mae")
# YAML drops the zeros at a number's end; the notes print four decimals or more.
MIN_DECIMALS = 4
DEVIATIONS = 2

Outcome = Literal["better", "worse", "same"]


@dataclass(frozen=True)
class Evidence:
    """What the noise of a model's metrics is estimated from.

    recipe_runs: the metrics of each run by the lecture recipe, with its `normalization`.
    predictions: columns true and predicted of the test rows; None if they cannot be read.
    rows: the number of rows of each split.
    """

    recipe_runs: Sequence[LectureRun] = ()
    predictions: pd.DataFrame | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Noise:
    """The part of the tolerance that chance explains. basis: what it was estimated from, for the page."""

    amount: float
    basis: str


@dataclass(frozen=True)
class Verdict:
    """How a metric compares with the reference. difference: the metric minus the reference, on `split`."""

    split: str
    reference: float
    difference: float
    rounding: float
    noise: Noise
    outcome: Outcome

    @property
    def tolerance(self) -> float:
        return self.rounding + self.noise.amount


def lower_is_better(metric: str) -> bool:
    """Return whether less of `metric` is better; "aux_rmse" is the RMSE of the output "aux"."""
    return metric.rpartition("_")[2] in LOWER_IS_BETTER


def compare_with_reference(metrics: dict, notes: dict, metric: str, evidence: Evidence) -> Verdict | None:
    """Compare a metric on test with the lecture notes', or on validation if they print no other.

    Args:
        metrics: the model's metrics by split.
        notes: what the notes print, by split.
        metric: the name of the metric to compare.
        evidence: what the noise is estimated from.

    Returns:
        The verdict, or None if the notes do not print the metric.
    """
    for split in ("test", "valid"):
        if metric in notes.get(split, {}):
            measured, reference = metrics[split][metric], notes[split][metric]
            rounding, noise = half_unit(reference), estimate_noise(metric, split, measured, evidence)
            outcome = judge(measured - reference, rounding + noise.amount, metric)
            return Verdict(split, reference, measured - reference, rounding, noise, outcome)
    return None


def judge(difference: float, tolerance: float, metric: str) -> Outcome:
    """Return what a difference, new minus old, says of a metric. Exactly the tolerance is the same still."""
    if abs(difference) <= tolerance * (1 + 1e-9):
        return "same"
    return "better" if (difference < 0) == lower_is_better(metric) else "worse"


def half_unit(printed: float) -> float:
    """Return half a unit of the last digit of a printed number."""
    exponent = Decimal(repr(printed)).as_tuple().exponent
    assert isinstance(exponent, int)  # the parameters admit finite numbers only
    return 0.5 * 10.0 ** min(exponent, -MIN_DECIMALS)


def estimate_noise(metric: str, split: str, measured: float, evidence: Evidence) -> Noise:
    """Return two standard deviations of a metric.

    They are those over the seeds of the lecture recipe, of the normalization that varies most, if the model has such
    runs. Otherwise two standard errors over the split's rows bound them: of an accuracy by the binomial distribution
    (Agresti and Coull, 1998, so that it is not 0 for an accuracy of 1), of an RMSE from the squared errors of the
    predictions on test.

    Args:
        metric: the name of the metric.
        split: the split that it was measured on.
        measured: its value.
        evidence: what is known of the model's runs, predictions and rows.

    Returns:
        The noise; 0 if nothing is known that it could be estimated from.
    """
    by_normalization: dict[str, list[float]] = {}
    for run in evidence.recipe_runs:
        if metric in run.metrics.get(split, {}):
            by_normalization.setdefault(run.normalization, []).append(run.metrics[split][metric])
    if repeated := [values for values in by_normalization.values() if len(values) > 1]:
        deviation = max(statistics.stdev(values) for values in repeated)
        return Noise(DEVIATIONS * deviation, f"two standard deviations over {len(repeated[0])} seeds")
    if metric == "accuracy" and (rows := evidence.rows.get(split)):
        return Noise(DEVIATIONS * accuracy_error(measured, rows), f"two standard errors of {rows:,} rows")
    if metric == "rmse" and split == "test" and evidence.predictions is not None and len(evidence.predictions) > 1:
        error = rmse_error(evidence.predictions)
        return Noise(DEVIATIONS * error, f"two standard errors of {len(evidence.predictions):,} rows")
    return Noise(0.0, "noise not known")


def accuracy_error(accuracy: float, rows: int) -> float:
    """Return the standard error of an accuracy by Agresti and Coull: with two more rows right and two more wrong."""
    share = (accuracy * rows + 2) / (rows + 4)
    return float(np.sqrt(share * (1 - share) / (rows + 4)))


def rmse_error(predictions: pd.DataFrame) -> float:
    """Return the standard error of the RMSE of predictions, from that of the mean squared error (delta method)."""
    squares = (predictions["predicted"].to_numpy(float) - predictions["true"].to_numpy(float)) ** 2
    rmse = float(np.sqrt(squares.mean()))
    return float(squares.std(ddof=1) / np.sqrt(len(squares)) / (2 * rmse)) if rmse else 0.0
