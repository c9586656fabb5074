"""Prune a trial: stop it at an epoch at which trials of earlier rounds were better.

It is compared with no trial of its own round, so that the number of workers decides nothing.
"""

from collections.abc import Sequence
from typing import Any

import keras
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner

from models.common.outputs import MAIN_OUTPUT
from tasks.search.proposals import direction_of
from tasks.search.records import Job, TrialRecord
from tasks.search.space import distributions
from tasks.search.store import frozen

STARTUP = 4  # trials that have ended before the median prunes
REDUCTION = 3  # of the trials, one in so many goes beyond a rung of `halving`


def make_pruner(kind: str, warmup: int) -> BasePruner:
    """Return a pruner.

    Args:
        kind: "none"; "median": of the values of the trials at that epoch; "halving": asynchronous successive halving
            (L. Li et al., "A system for massively parallel hyperparameter tuning", MLSys 2020).
        warmup: epochs before it can stop a trial.
    """
    if kind == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=warmup)
    if kind == "halving":
        return SuccessiveHalvingPruner(min_resource=warmup, reduction_factor=REDUCTION)
    return NopPruner()


class Pruning(keras.callbacks.Callback):
    """Reports the objective of each epoch to a trial of Optuna, and stops the training when that is to be pruned.

    values: of the epochs so far. pruned: whether it has stopped the training.
    """

    def __init__(self, job: Job, earlier: Sequence[TrialRecord]):
        super().__init__()
        self.study = optuna.create_study(
            direction=direction_of(job.objective), pruner=make_pruner(job.pruner, job.warmup)
        )
        self.study.add_trials([frozen(record, job.space) for record in earlier])
        self.study.enqueue_trial(job.parameters)
        self.trial = self.study.ask(distributions(job.space))
        self.objective, self.pruned = job.objective, False
        self.values: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        # Of several outputs, each metric has its output's name.
        own = f"val_{self.objective}"
        value = float(logs[own if own in logs else f"val_{MAIN_OUTPUT}_{self.objective}"])
        self.values.append(value)
        self.trial.report(value, epoch + 1)
        if self.trial.should_prune():
            self.pruned = self.model.stop_training = True

    def notes(self) -> dict[str, Any]:
        """Return what the pruner keeps of the trial: the rungs that it has reached."""
        return dict(self.study.trials[-1].system_attrs) if self.pruned or self.values else {}
