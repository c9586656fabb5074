"""Diagnosis: findings on the learning curves and the errors, by fixed rules.

The rules look at the loss, whatever the task. They point at what deserves a look; they do not decide.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from tasks.evaluation.metrics import ClassMetrics, SliceMetrics

MIN_EPOCHS = 5
SETTLED_EPOCHS = 3  # the first epochs do not count as unstable
UNSTABLE_RISE = 1.5  # times the lowest validation loss until then
OVERFITTING_RISE = 1.05  # times the lowest validation loss
GAP = 1.5  # validation loss / train loss
MIN_GAP = 0.01  # between the two losses at the end, in train losses after the first epoch
IMPROVEMENT = 0.98  # validation loss / validation loss a fifth of the epochs before
MIN_SKILL = 0.5  # share of the error of a predictor without inputs that the model avoids
WEAK_F1 = 0.1  # below the mean over the classes
WEAK_ERROR = 1.5  # times the RMSE of all rows
MIN_ROWS = 20

Tone = Literal["good", "warning", "bad", "neutral"]


@dataclass(frozen=True)
class Finding:
    """What was found: a word or two, and a sentence with the numbers behind it."""

    tone: Tone
    title: str
    text: str


def diagnose(history: pd.DataFrame, skill: float | None, restored: bool = False) -> list[Finding]:
    """Return at least one finding on the learning curves.

    Args:
        history: columns epoch, loss and val_loss.
        skill: the share of the error of a predictor without inputs that the model avoids on train.
        restored: whether the fit keeps the epoch with the lowest validation loss; the curves then end there.
    """
    train, valid = (history[name].to_numpy(float) for name in ("loss", "val_loss"))
    epochs = len(history)
    broken = ~np.isfinite(train) | ~np.isfinite(valid)
    if broken.any():
        return [
            Finding(
                "bad", "diverged", f"The loss is not a finite number after epoch {1 + broken.argmax()} of {epochs}."
            )
        ]
    found = []
    if skill is not None and skill < MIN_SKILL:
        found.append(
            Finding(
                "warning",
                "underfitting",
                f"On train the model avoids {max(0.0, skill):.0%} of the error of a mean or majority predictor, less "
                f"than {MIN_SKILL:.0%}: the network or its recipe is too weak for the data.",
            )
        )
    if epochs < MIN_EPOCHS:
        return [
            *found,
            Finding("neutral", "too short to judge", f"{count(epochs)}; fewer than {MIN_EPOCHS} say little."),
        ]
    if restored:
        kept = int(valid.argmin()) + 1
        train, valid = train[:kept], valid[:kept]
    findings = [unstable(valid), overfitting(train, valid), still_improving(valid)]
    return [*found, *(finding for finding in findings if finding)] or [converged(valid)]


def converged(valid: np.ndarray) -> Finding:
    ends = f"The validation loss ends at {valid[-1]:.4g}; its lowest was {valid.min():.4g}"
    if valid[-1] > OVERFITTING_RISE * valid.min():
        return Finding("neutral", "past its best", f"{ends}, after epoch {valid.argmin() + 1} of {len(valid)}.")
    return Finding(
        "good", "converged", f"{ends}, and it no longer falls by {1 - IMPROVEMENT:.0%} in a fifth of the epochs."
    )


def unstable(valid: np.ndarray) -> Finding | None:
    lowest = np.minimum.accumulate(valid)
    rise = valid[SETTLED_EPOCHS:] - UNSTABLE_RISE * lowest[SETTLED_EPOCHS - 1 : -1]
    if not len(rise) or rise.max() <= 0:
        return None
    epoch = SETTLED_EPOCHS + int(rise.argmax())
    return Finding(
        "warning",
        "unstable",
        f"The validation loss jumps to {valid[epoch]:.4g} after epoch {epoch + 1}; it was {lowest[epoch - 1]:.4g} "
        "before. A smaller learning rate, or features without extreme outliers, would make it stable.",
    )


def overfitting(train: np.ndarray, valid: np.ndarray) -> Finding | None:
    best = int(valid.argmin())
    if valid[-1] > OVERFITTING_RISE * valid[best] and train[-1] < train[best]:
        return Finding(
            "warning",
            "overfitting",
            f"Since epoch {best + 1} of {len(valid)} the train loss fell from {train[best]:.4g} to {train[-1]:.4g}, "
            f"while the validation loss rose from {valid[best]:.4g} to {valid[-1]:.4g}. Fewer epochs or early stopping "
            "would help.",
        )
    if valid[-1] > GAP * train[-1] and valid[-1] - train[-1] > MIN_GAP * train[0]:
        return Finding(
            "warning",
            "overfitting",
            f"The validation loss ends at {valid[-1]:.4g}, more than {GAP} times the train loss of {train[-1]:.4g}.",
        )
    return None


def still_improving(valid: np.ndarray) -> Finding | None:
    fifth = max(1, len(valid) // 5)
    before, last = valid[-2 * fifth : -fifth].mean(), valid[-fifth:].mean()
    if last >= IMPROVEMENT * before:
        return None
    return Finding(
        "neutral",
        "still improving",
        f"Over the last {count(fifth)} the validation loss was {1 - last / before:.1%} lower than over as many before. "
        "More epochs would help.",
    )


def count(epochs: int) -> str:
    return f"{epochs} epoch{'s' * (epochs != 1)}"


def weak_classes(per_class: dict[str, ClassMetrics]) -> list[Finding]:
    """Return the classes whose F1 on test is far below the mean over the classes."""
    if not per_class:
        return []
    mean = float(np.mean([metrics.f1 for metrics in per_class.values()]))
    return [
        Finding(
            "warning",
            f"weak on {name}",
            f"F1 of {metrics.f1:.3f}, while the mean over the classes is {mean:.3f}: precision "
            f"{metrics.precision:.3f}, recall {metrics.recall:.3f} on {metrics.rows:,} rows.",
        )
        for name, metrics in per_class.items()
        if metrics.rows >= MIN_ROWS and metrics.f1 < mean - WEAK_F1
    ]


def weak_slices(slices: dict[str, SliceMetrics], rmse: float) -> list[Finding]:
    """Return the slices of the test rows whose RMSE is far above that of all rows."""
    return [
        Finding(
            "warning",
            f"weak where {name}",
            f"RMSE of {metrics.rmse:.3f}, while that of all rows is {rmse:.3f}; predicted "
            f"{abs(metrics.bias):.3f} too {'high' if metrics.bias > 0 else 'low'} on average over "
            f"{metrics.rows:,} rows.",
        )
        for name, metrics in slices.items()
        if metrics.rows >= MIN_ROWS and metrics.rmse > WEAK_ERROR * rmse
    ]
