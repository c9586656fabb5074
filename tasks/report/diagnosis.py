"""Diagnosis: what the learning curves and the errors say, in words, by the rules that stand here.

The rules look at the loss, whatever the task, and are meant to point at what deserves a look, not to decide.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from tasks.evaluation.metrics import ClassMetrics, SliceMetrics

FEWEST_EPOCHS = 5
SETTLED_EPOCHS = 3  # validation is called stable or not by what it does after these
UNSTABLE_RISE = 1.5  # times the lowest loss on valid until then
OVERFITTING_RISE = 1.05  # times the lowest loss on valid
GAP = 1.5  # loss on valid, in losses on train
LEAST_GAP = 0.01  # of the loss on train after the first epoch, between the two at the end
IMPROVEMENT = 0.98  # of the loss on valid, over a fifth of the epochs
LITTLE_SKILL = 0.5  # share of a guess's error that the model avoids
WEAK_F1 = 0.1  # below the mean over the classes
WEAK_ERROR = 1.5  # times the RMSE of all rows
FEWEST_ROWS = 20

Tone = Literal["good", "warning", "bad", "neutral"]


@dataclass(frozen=True)
class Finding:
    """What was found, in a word or two and in a sentence with the figures behind it."""

    tone: Tone
    title: str
    text: str


def diagnose(history: pd.DataFrame, skill: float | None, restored: bool = False) -> list[Finding]:
    """Return what the curves say, at least one finding.

    history: columns epoch, loss, val_loss. skill: share of the best guess's error on train that the model avoids.
    restored: the model that is kept is that of the epoch with the lowest loss on valid, at which the curves end then.
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
    if skill is not None and skill < LITTLE_SKILL:
        found.append(
            Finding(
                "warning",
                "underfitting",
                f"On train it avoids {max(0.0, skill):.0%} of the best guess's error, less than {LITTLE_SKILL:.0%}: "
                "the network or its recipe is too weak for the data.",
            )
        )
    if epochs < FEWEST_EPOCHS:
        return [
            *found,
            Finding("neutral", "too short to judge", f"{count(epochs)}; fewer than {FEWEST_EPOCHS} say little."),
        ]
    if restored:
        kept = int(valid.argmin()) + 1
        train, valid = train[:kept], valid[:kept]
    told = [unstable(valid), overfitting(train, valid), still_improving(valid)]
    return [*found, *(finding for finding in told if finding)] or [converged(valid)]


def converged(valid: np.ndarray) -> Finding:
    ends = f"The loss on valid ends at {valid[-1]:.4g}; its lowest was {valid.min():.4g}"
    if valid[-1] > OVERFITTING_RISE * valid.min():
        return Finding("neutral", "past its best", f"{ends}, after epoch {valid.argmin() + 1} of {len(valid)}.")
    return Finding(
        "good", "converged", f"{ends}, and it falls no more by {1 - IMPROVEMENT:.0%} in a fifth of the epochs."
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
        f"The loss on valid jumps to {valid[epoch]:.4g} after epoch {epoch + 1}, having been {lowest[epoch - 1]:.4g} "
        "before: a smaller learning rate, or features without far outliers, would steady it.",
    )


def overfitting(train: np.ndarray, valid: np.ndarray) -> Finding | None:
    best = int(valid.argmin())
    if valid[-1] > OVERFITTING_RISE * valid[best] and train[-1] < train[best]:
        return Finding(
            "warning",
            "overfitting",
            f"Since epoch {best + 1} of {len(valid)} the loss on train fell from {train[best]:.4g} to {train[-1]:.4g}, "
            f"that on valid rose from {valid[best]:.4g} to {valid[-1]:.4g}: fewer epochs, or early stopping, would do.",
        )
    if valid[-1] > GAP * train[-1] and valid[-1] - train[-1] > LEAST_GAP * train[0]:
        return Finding(
            "warning",
            "overfitting",
            f"The loss on valid ends at {valid[-1]:.4g}, more than {GAP} times that on train, {train[-1]:.4g}.",
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
        f"Over the last {count(fifth)} the loss on valid was {1 - last / before:.1%} lower than over as many before: "
        "more epochs would help.",
    )


def count(epochs: int) -> str:
    return f"{epochs} epoch{'s' * (epochs != 1)}"


def weak_classes(per_class: dict[str, ClassMetrics]) -> list[Finding]:
    """Return the classes whose F1 on test is far below the mean over the classes."""
    if not per_class:
        return []
    mean = float(np.mean([figures.f1 for figures in per_class.values()]))
    return [
        Finding(
            "warning",
            f"weak on {name}",
            f"F1 of {figures.f1:.3f}, where the mean over the classes is {mean:.3f}: precision "
            f"{figures.precision:.3f}, recall {figures.recall:.3f} on {figures.rows:,} rows.",
        )
        for name, figures in per_class.items()
        if figures.rows >= FEWEST_ROWS and figures.f1 < mean - WEAK_F1
    ]


def weak_slices(slices: dict[str, SliceMetrics], rmse: float) -> list[Finding]:
    """Return the slices of the test rows whose RMSE is far above that of all rows."""
    return [
        Finding(
            "warning",
            f"weak where {name}",
            f"RMSE of {figures.rmse:.3f}, where that of all rows is {rmse:.3f}; predicted "
            f"{abs(figures.bias):.3f} too {'high' if figures.bias > 0 else 'low'} in the mean of "
            f"{figures.rows:,} rows.",
        )
        for name, figures in slices.items()
        if figures.rows >= FEWEST_ROWS and figures.rmse > WEAK_ERROR * rmse
    ]
